import fc from 'fast-check'
import t from 'tap'
import { HubError } from '../error/errors.js'
import type { FailureCode, LastError } from '../facts.js'
import { machineStates } from '../machine/machine.js'
import type { Candidate } from '../placement/placement.js'
import { requestStates } from '../request/request.js'
import { renderUserData } from './bootstrap.js'
import { hostConditionTypes, riseConditions } from './conditions.js'
import { decideHost } from './decide.js'
import { hostStates, type HostState } from './host.js'
import { keepWaiting, placeHost } from './placed.js'
import type { HostDecision, HostRecord, HostView, RequestView } from './record.js'
import { moveToReinstall, type ReinstallView } from './reinstall.js'
import { hostEvents, transitionHost } from './transitions.js'

const start = new Date('2026-01-01T00:00:00.000Z')
const after = (ms: number) => new Date(start.getTime() + ms)
const minute = 60_000

function failure(code: FailureCode, over: Partial<LastError> = {}): LastError {
  return {
    code,
    message: 'as the provider says',
    externalCode: '',
    step: '',
    retryable: false,
    attempts: 1,
    at: start.toISOString(),
    ...over,
  }
}

function hostOf(over: Partial<HostRecord> = {}): HostRecord {
  return {
    organizationId: 'org',
    id: 'h',
    name: 'workspaces/default/hosts/web-1',
    bootstrap: { phoneHome: true, phoneHomeTimeoutMs: 15 * minute, provisionTimeoutMs: 60 * minute, userData: '' },
    state: 'ORDERED',
    stateAt: start,
    stateMessage: '',
    conditions: [],
    lastError: null,
    attempts: [],
    providerId: null,
    providerName: null,
    requestId: null,
    requestName: null,
    machineId: null,
    machineName: null,
    addresses: [],
    power: null,
    price: null,
    progress: null,
    phoneHomeAt: null,
    readyAt: null,
    releasedAt: null,
    ...over,
  }
}

function requestOf(over: Partial<RequestView> = {}): RequestView {
  return {
    id: 'r1',
    name: 'r-1',
    providerId: 'p',
    providerName: 'fsn1',
    state: 'PROVISIONING',
    operation: 'PROVISION',
    adoptExternalId: null,
    reinstallWishedAt: null,
    desiredPresence: 'PRESENT',
    presence: 'UNKNOWN',
    externalId: null,
    typeId: 'small',
    location: 'fsn1',
    price: null,
    machineId: null,
    machineName: null,
    addresses: [],
    power: null,
    progress: null,
    lastError: null,
    pausedAt: null,
    pausedMs: 0,
    createdAt: start,
    provisionedAt: null,
    phonedHomeAt: null,
    forgottenBy: null,
    neverClaimed: false,
    ...over,
  }
}

function viewOf(
  host: Partial<HostRecord>,
  request: Partial<RequestView> | null,
  over: Partial<HostView> = {},
): HostView {
  return {
    host: hostOf({ ...(request !== null && { requestId: 'r1', requestName: 'r-1' }), ...host }),
    request: request === null ? null : requestOf(request),
    machineState: null,
    connection: { connectedSince: after(-60 * minute) },
    now: after(1_000),
    graceUntil: start,
    ...over,
  }
}

const provisioned = { state: 'PROVISIONED', presence: 'PRESENT', externalId: 'srv-1', provisionedAt: start } as const

void t.test('the way to READY', async (t) => {
  t.equal(decideHost(viewOf({}, null)).action.kind, 'place', 'ORDERED asks for a place')
  const pending = decideHost(viewOf({ state: 'PLACED' }, { state: 'PENDING', neverClaimed: true }))
  t.match(pending, {
    host: { state: 'PLACED', stateMessage: 'Waiting for an instance of provider fsn1 to take it up' },
    action: { kind: 'none' },
  })
  const making = decideHost(
    viewOf({ state: 'PLACED' }, { progress: { step: 'create-server', percent: 20, message: '' } }),
  )
  t.match(making.host, {
    state: 'PROVISIONING',
    stateMessage: 'Step create-server (20 %)',
    progress: { step: 'create-server' },
  })
  const silent = decideHost(
    viewOf(
      { state: 'PROVISIONING' },
      { ...provisioned, power: 'ON', addresses: [{ type: 'PUBLIC', ip: '192.0.2.1' }] },
    ),
  )
  t.match(silent.host, {
    state: 'BOOTSTRAPPING',
    power: 'ON',
    addresses: [{ ip: '192.0.2.1' }],
    stateMessage: 'Waiting for its machine to phone home',
  })
  t.equal(silent.host.readyAt, null)
  const ready = decideHost(
    viewOf({ state: 'BOOTSTRAPPING', lastError: failure('TIMEOUT') }, { ...provisioned, phonedHomeAt: after(5) }),
  )
  t.match(ready, {
    host: { state: 'READY', lastError: null, phoneHomeAt: after(5), stateMessage: '' },
    lookAgainInMs: null,
  })
  t.strictSame(
    ready.events.map((event) => event.reason),
    ['HostReady'],
  )
  const quick = decideHost(
    viewOf({ state: 'PLACED', bootstrap: { ...hostOf().bootstrap, phoneHome: false } }, provisioned),
  )
  t.equal(
    quick.host.state,
    'READY',
    'a class that asks for no phone home gets none, and no stage is waited for that has passed',
  )
  const walked = (['provisioned', 'ready'] as const).reduce<HostState | undefined>(
    (state, event) => state && transitionHost(state, event),
    'PLACED',
  )
  t.equal(walked, quick.host.state, 'in one commit, and yet by the moves of the table')
  t.equal(transitionHost('PLACED', 'ready'), undefined, 'none of which is skipped')
  t.strictSame(
    quick.host.conditions.map((condition) => condition.status),
    Array(6).fill('TRUE'),
  )
  t.equal(quick.host.conditions[4]?.reason, 'NotRequired')
})

void t.test('an error stays until the host is READY, whatever is tried meanwhile', async (t) => {
  const retried = failure('RATE_LIMITED', { retryable: true, attempts: 3, nextAttemptAt: after(minute).toISOString() })
  const failing = decideHost(viewOf({ state: 'PROVISIONING' }, { lastError: retried }))
  t.match(failing.host, {
    state: 'PROVISIONING',
    lastError: retried,
    stateMessage: 'Try 3 failed and is tried again: RATE_LIMITED: as the provider says',
  })
  const going = decideHost(viewOf({ ...failing.host }, { lastError: null }))
  t.match(going.host.lastError, retried)
})

void t.test('a server that was to be adopted is replaced by no other', async (t) => {
  const bootstrap = { ...hostOf().bootstrap, phoneHome: false }
  const adopting = { operation: 'ADOPT', adoptExternalId: 's-1' } as const
  const taken = decideHost(viewOf({ state: 'PLACED', bootstrap }, adopting))
  t.match(taken, {
    host: { state: 'PROVISIONING', stateMessage: 'Provider fsn1 is taking over server s-1' },
    action: { kind: 'none' },
  })
  const ready = decideHost(viewOf({ state: 'PROVISIONING', bootstrap }, { ...adopting, ...provisioned }))
  t.equal(ready.host.state, 'READY')
  for (const code of ['CAPACITY', 'CONFLICT'] as const) {
    const ended = { ...adopting, state: 'GONE', desiredPresence: 'ABSENT', lastError: failure(code) } as const
    t.match(decideHost(viewOf({ state: 'PROVISIONING', bootstrap }, ended)), {
      host: { state: 'ERROR', lastError: { code } },
      action: { kind: 'none' },
    })
  }
  const late = viewOf({ state: 'PROVISIONING', bootstrap }, adopting, { now: after(120 * minute) })
  t.match(decideHost(late), {
    host: { state: 'ERROR', lastError: { code: 'TIMEOUT', message: /^Adopting was not done/ } },
    action: { kind: 'deprovision' },
  })
  const unclaimed = { ...adopting, state: 'PENDING', neverClaimed: true } as const
  t.match(decideHost(viewOf({ state: 'RELEASING' }, unclaimed)), {
    host: { state: 'RELEASED' },
    action: { kind: 'cancel-request' },
  })
  const leaving = { ...adopting, operation: 'UNADOPT', desiredPresence: 'ABSENT', state: 'DEPROVISIONING' } as const
  t.match(
    decideHost(viewOf({ state: 'RELEASING' }, leaving)).host.stateMessage,
    'let go of server s-1, which stays as it is',
  )
})

void t.test('a place that has none is left for another one, once nothing of it exists', async (t) => {
  const gaveUp = viewOf(
    { state: 'PROVISIONING' },
    { state: 'FAILED', desiredPresence: 'ABSENT', lastError: failure('CAPACITY') },
  )
  const waiting = decideHost(gaveUp)
  t.match(waiting, {
    host: { state: 'PROVISIONING', attempts: [{ request: 'r-1', error: { code: 'CAPACITY' } }] },
    action: { kind: 'none' },
  })
  t.match(waiting.host.stateMessage, 'once nothing is left of this one')
  const overwritten = requestOf({
    state: 'DEPROVISIONING',
    desiredPresence: 'ABSENT',
    lastError: failure('UNAVAILABLE'),
  })
  const still = decideHost({ ...gaveUp, host: waiting.host, request: overwritten })
  t.match(
    still.host,
    { state: 'PROVISIONING', attempts: [{ error: { code: 'CAPACITY' } }] },
    'trouble with the removal is not why it was left',
  )
  t.strictSame(still.events, [])
  const gone = decideHost({ ...gaveUp, host: still.host, request: { ...overwritten, state: 'GONE' } })
  t.match(gone, {
    host: { state: 'ORDERED', lastError: { code: 'CAPACITY' } },
    lookAgainInMs: 0,
    events: [{ reason: 'HostReplaced' }],
  })
  t.equal(decideHost({ ...gaveUp, host: gone.host, request: { ...overwritten, state: 'GONE' } }).action.kind, 'place')
})

void t.test('after the sixth place that has none it is over, until a person asks for more', async (t) => {
  const attempts = [1, 2, 3, 4, 5].map((number) => ({
    provider: 'p',
    request: `r-0${number}`,
    typeId: '',
    location: '',
    error: failure('QUOTA'),
    startedAt: '',
  }))
  const request = { state: 'GONE', desiredPresence: 'ABSENT', lastError: failure('CAPACITY') } as const
  const over = decideHost(viewOf({ state: 'PROVISIONING', attempts }, request))
  t.match(over, {
    host: { state: 'ERROR', lastError: { code: 'CAPACITY' } },
    events: [{ reason: 'HostFailed', severity: 'ERROR' }],
  })
  t.equal(over.host.attempts.at(-1)?.final, true)
  const again = decideHost(
    viewOf({ state: 'PROVISIONING', attempts: over.host.attempts, requestName: 'r-2' }, { ...request, name: 'r-2' }),
  )
  t.equal(again.host.state, 'ORDERED', 'a retry counts anew')
  t.equal(again.host.attempts.length, 7, 'and forgets nothing')
})

void t.test('what waiting cannot cure is an ERROR at once, while the rest is cleaned up', async (t) => {
  for (const code of ['INVALID_SPEC', 'CREDENTIALS', 'CONFLICT', 'INTERNAL', 'TIMEOUT'] as const) {
    const failed = decideHost(
      viewOf({ state: 'PROVISIONING' }, { state: 'FAILED', desiredPresence: 'ABSENT', lastError: failure(code) }),
    )
    t.match(
      failed,
      { host: { state: 'ERROR', stateMessage: `${code}: as the provider says` }, action: { kind: 'none' } },
      code,
    )
  }
  const missed = decideHost(viewOf({ state: 'PROVISIONING' }, { state: 'FAILED', lastError: failure('CONFLICT') }))
  t.equal(missed.action.kind, 'deprovision', 'a failed request that nobody has wished away yet is')
  const forgotten = decideHost(viewOf({ state: 'PROVISIONING' }, { state: 'GONE', forgottenBy: 'token/1' }))
  t.match(forgotten.host, { state: 'ERROR', stateMessage: /forgotten by token\/1, and may still exist/ })
  t.equal(
    decideHost(viewOf({ state: 'PROVISIONING', requestName: 'r-1' }, null)).host.lastError?.code,
    'INTERNAL',
    'a record that is missing',
  )
})

void t.test('deadlines', async (t) => {
  const inTime = viewOf({ state: 'PROVISIONING' }, {}, { now: after(60 * minute - 1) })
  t.match(decideHost(inTime), { host: { state: 'PROVISIONING' }, lookAgainInMs: 1 })
  const late = { ...inTime, now: after(60 * minute) }
  t.match(decideHost(late), {
    host: { state: 'ERROR', lastError: { code: 'TIMEOUT' } },
    action: { kind: 'deprovision', failure: { code: 'TIMEOUT' } },
  })
  t.match(decideHost(late).host.stateMessage, 'not done within 60 min')
  t.equal(
    decideHost({ ...late, connection: { connectedSince: null } }).host.state,
    'PROVISIONING',
    'nothing is concluded from a silence that is the link’s',
  )
  t.equal(
    decideHost({ ...late, connection: { connectedSince: after(59 * minute) } }).lookAgainInMs,
    minute,
    'whoever comes back has time to speak up',
  )
  t.equal(
    decideHost({ ...late, graceUntil: after(60 * minute + 7) }).lookAgainInMs,
    7,
    'and so it is after a start of the hub',
  )
  const unclaimed = decideHost(viewOf({ state: 'PLACED' }, { state: 'PENDING', neverClaimed: true }, { now: late.now }))
  t.match(unclaimed, {
    host: { state: 'ERROR' },
    action: { kind: 'cancel-request', lastError: { code: 'TIMEOUT' } },
    lookAgainInMs: 0,
  })
  t.equal(
    decideHost({
      ...late,
      host: hostOf({ state: 'READY' }),
      request: requestOf({ ...provisioned, phonedHomeAt: start }),
    }).host.state,
    'READY',
  )
})

void t.test('a machine that stays silent is replaced twice', async (t) => {
  let host = hostOf({ state: 'PROVISIONING', requestId: 'r1', requestName: 'r-1' })
  for (const round of [1, 2, 3]) {
    const name = `r-${round}`
    const view = viewOf(
      { ...host, state: 'PROVISIONING', requestName: name },
      { ...provisioned, name },
      { now: after(15 * minute) },
    )
    const late = decideHost(view)
    t.match(late.action, { kind: 'deprovision', failure: { code: 'TIMEOUT', step: 'phone-home' } })
    if (round === 3) {
      t.equal(late.host.state, 'ERROR', 'but not for ever')
      break
    }
    t.equal(late.host.state, 'BOOTSTRAPPING', 'it waits until nothing is left')
    const request = requestOf({
      ...provisioned,
      name,
      state: 'GONE',
      desiredPresence: 'ABSENT',
      lastError: late.host.lastError,
    })
    const gone = decideHost({ ...view, host: late.host, request })
    t.match(gone, { host: { state: 'ORDERED', machineId: null }, events: [{ reason: 'HostReplaced' }] })
    host = gone.host
  }
})

void t.test('a machine that vanishes is an ERROR, and well again if it comes back', async (t) => {
  const lost = decideHost(viewOf({ state: 'READY' }, { ...provisioned, phonedHomeAt: start, presence: 'ABSENT' }))
  t.match(
    lost,
    { host: { state: 'ERROR', stateMessage: /srv-1 vanished outside of Slipway/ }, action: { kind: 'none' } },
    'nothing is done about it without a person',
  )
  t.strictSame(
    lost.host.conditions.map((condition) => condition.status),
    ['TRUE', 'TRUE', 'FALSE', 'FALSE', 'FALSE', 'FALSE'],
    'what is not there is not created',
  )
  const view = viewOf({ ...lost.host }, { ...provisioned, phonedHomeAt: start, presence: 'ABSENT' })
  t.match(decideHost(view), { host: { state: 'ERROR' }, events: [] })
  t.match(decideHost({ ...view, request: requestOf({ ...provisioned, phonedHomeAt: start }) }), {
    host: { state: 'READY', lastError: null },
    events: [{ reason: 'HostReady' }],
  })
  const retried = decideHost({ ...view, host: { ...lost.host, state: 'ORDERED' } })
  t.match(
    retried,
    { host: { state: 'ORDERED' }, action: { kind: 'deprovision', failure: null } },
    'a retry first makes sure that it is gone',
  )
  t.equal(
    decideHost(viewOf({ state: 'READY' }, { ...provisioned, phonedHomeAt: start }, { machineState: 'GONE' })).host
      .state,
    'ERROR',
  )
})

void t.test('release, from wherever', async (t) => {
  t.match(decideHost(viewOf({ state: 'RELEASING' }, null)), {
    host: { state: 'RELEASED' },
    events: [{ reason: 'HostReleased' }],
    lookAgainInMs: null,
  })
  t.match(decideHost(viewOf({ state: 'RELEASING' }, { state: 'PENDING', neverClaimed: true })), {
    host: { state: 'RELEASED' },
    action: { kind: 'cancel-request' },
  })
  for (const state of ['PENDING', 'PROVISIONING', 'PROVISIONED', 'FAILED'] as const) {
    t.match(
      decideHost(viewOf({ state: 'RELEASING' }, { state })),
      { host: { state: 'RELEASING' }, action: { kind: 'deprovision' } },
      state,
    )
  }
  const going = viewOf(
    { state: 'RELEASING' },
    {
      state: 'DEPROVISIONING',
      desiredPresence: 'ABSENT',
      lastError: failure('UNAVAILABLE', { retryable: true, nextAttemptAt: 'soon' }),
    },
  )
  t.match(decideHost(going), {
    host: { state: 'RELEASING', lastError: { code: 'UNAVAILABLE' }, stateMessage: /^Try 1 failed and is tried again/ },
    action: { kind: 'none' },
  })
  t.match(
    decideHost({ ...going, connection: { connectedSince: null } }).host.stateMessage,
    'fsn1, which is out of reach',
  )
  const gone = decideHost({ ...going, request: requestOf({ state: 'GONE', forgottenBy: 'token/1' }) })
  t.match(gone, { host: { state: 'RELEASED', lastError: null }, events: [{ message: /forgotten by token\/1/ }] })
  t.match(
    decideHost({ ...going, host: gone.host }),
    { host: { state: 'RELEASED' }, action: { kind: 'none' }, events: [] },
    'and that is the end of it',
  )
})

void t.test('waiting for a place is told once for each reason', async (t) => {
  const place = {
    provider: { name: 'fsn1', kind: 'DYNAMIC' },
    typeId: 'small',
    location: 'fsn1',
    machine: null,
  } as unknown as Candidate
  const judged = (reason: 'OFFERING_HELD' | 'SHAPE_TOO_SMALL', message: string) => ({
    candidate: place,
    chosen: false,
    rejected: { reason, message },
  })
  const none = keepWaiting(hostOf(), [], start)
  t.match(none, {
    host: { stateMessage: 'No place for it now: no provider offers its class' },
    events: [{ reason: 'HostWaiting' }],
    lookAgainInMs: 1_000,
  })
  const held = keepWaiting(
    none.host,
    [judged('SHAPE_TOO_SMALL', 'a is too small'), judged('OFFERING_HELD', 'b is held')],
    after(20_000),
  )
  t.match(held, { host: { stateMessage: 'No place for it now: b is held' }, lookAgainInMs: 10_000 })
  t.equal(held.host.conditions[1]?.reason, 'OfferingHeld', 'what passes by itself is told before what lasts')
  t.equal(held.events.length, 1)
  const later = keepWaiting(held.host, [judged('OFFERING_HELD', 'c is held')], after(minute * 9))
  t.match(later, { host: { stateMessage: /c is held/ }, events: [], lookAgainInMs: 30_000 })
})

void t.test('user-data', async (t) => {
  const values = { hostname: 'web-1', phoneHomeUrl: 'http://hub/phone-home/$&', phoneHomeToken: 'secret' }
  t.equal(
    renderUserData(
      '{{hostname}} {{phone_home_url}} {{phone_home_token}} {{ hostname }} {{other}} {{hostname}}',
      values,
    ),
    'web-1 http://hub/phone-home/$& secret {{ hostname }} {{other}} web-1',
  )
})

void t.test('conditions: the time moves with the status alone', async (t) => {
  const first = riseConditions([], { reached: 'Placed', reason: 'Placed', message: 'one', phoneHome: true }, start)
  const second = riseConditions(
    first,
    { reached: 'Created', reason: 'Provisioning', message: 'two', phoneHome: true },
    after(5),
  )
  t.strictSame(
    second.map((condition) => condition.type),
    [...hostConditionTypes],
  )
  t.strictSame(
    second.map((condition) => Date.parse(condition.lastTransitionAt) - start.getTime()),
    [0, 0, 5, 0, 0, 0],
  )
  t.equal(second[3]?.message, 'two')
})

const codes: readonly FailureCode[] = [
  'CAPACITY',
  'QUOTA',
  'INVALID_SPEC',
  'CREDENTIALS',
  'CONFLICT',
  'RATE_LIMITED',
  'UNAVAILABLE',
  'TIMEOUT',
  'INTERNAL',
]
const anyError = fc.option(
  fc
    .record({ code: fc.constantFrom(...codes), step: fc.constantFrom('', 'phone-home', 'create') })
    .map(({ code, step }) => failure(code, { step })),
)
const anyTime = fc.integer({ min: -120, max: 120 }).map((minutes) => after(minutes * minute))

const reinstalling = {
  ...provisioned,
  state: 'PROVISIONING',
  operation: 'REINSTALL',
  provisionedAt: null,
  reinstallWishedAt: after(100 * minute),
} as const

void t.test('a reinstall goes through PROVISIONING and BOOTSTRAPPING to READY', async (t) => {
  const now = { now: after(101 * minute) }
  const making = decideHost(viewOf({ state: 'PROVISIONING' }, reinstalling, now))
  t.match(making.host, { state: 'PROVISIONING', stateMessage: 'Provider fsn1 is reinstalling its machine' })
  t.equal(making.action.kind, 'none', 'its deadline counts from the wish, and not from the first order')
  const booted = { ...reinstalling, state: 'PROVISIONED', provisionedAt: now.now } as const
  const silent = decideHost(viewOf({ state: 'PROVISIONING' }, booted, now))
  t.equal(silent.host.state, 'BOOTSTRAPPING')
  const ready = decideHost(viewOf({ ...silent.host }, { ...booted, phonedHomeAt: now.now }, now))
  t.match(ready.host, { state: 'READY', lastError: null })
})

void t.test(
  'a reinstall that goes wrong leads to ERROR and keeps the machine; one that comes good late ends it',
  async (t) => {
    const refused = { ...reinstalling, lastError: failure('INVALID_SPEC') }
    const failed = decideHost(viewOf({ state: 'PROVISIONING' }, refused, { now: after(101 * minute) }))
    t.match(failed, { host: { state: 'ERROR', lastError: { code: 'INVALID_SPEC' } }, action: { kind: 'none' } })
    const passing = { ...reinstalling, lastError: failure('TIMEOUT', { retryable: true }) }
    const waiting = decideHost(viewOf({ state: 'PROVISIONING' }, passing, { now: after(101 * minute) }))
    t.equal(waiting.host.state, 'PROVISIONING', 'what may pass is waited for')
    for (const [state, request, step] of [
      ['PROVISIONING', passing, ''],
      ['BOOTSTRAPPING', { ...reinstalling, state: 'PROVISIONED', provisionedAt: after(100 * minute) }, 'phone-home'],
    ] as const) {
      const late = decideHost(viewOf({ state }, request, { now: after(200 * minute) }))
      t.match(late, { host: { state: 'ERROR', lastError: { code: 'TIMEOUT', step } }, action: { kind: 'none' } }, state)
      const home = {
        ...reinstalling,
        state: 'PROVISIONED',
        provisionedAt: start,
        phonedHomeAt: after(201 * minute),
      } as const
      const back = decideHost(viewOf({ ...late.host }, home, { now: after(202 * minute) }))
      t.match(back.host, { state: 'READY', lastError: null }, `${state} and then it speaks up`)
    }
  },
)

function refusalOf(view: ReinstallView): string {
  try {
    return moveToReinstall(view).host
  } catch (error) {
    return error instanceof HubError ? error.reason : String(error)
  }
}

void t.test('what may be reinstalled', async (t) => {
  const machine = { name: 'm-1', state: 'ACTIVE', static: false, protected: false } as const
  const provider = { name: 'fsn1', capabilities: ['REINSTALL'] } as const
  const host = { name: 'web-1', state: 'READY', protected: false } as const
  const request = requestOf(provisioned)
  const base = { host, provider, request, machine }
  t.strictSame(moveToReinstall(base), { host: 'PROVISIONING', request: 'PROVISIONING', machine: 'ACTIVE' })
  const rack = moveToReinstall({ ...base, machine: { ...machine, static: true } })
  t.equal(rack.machine, 'PROVISIONING', 'a static machine passes through PROVISIONING again')
  t.equal(moveToReinstall({ ...base, host: { ...host, state: 'ERROR' } }).host, 'PROVISIONING')
  for (const state of ['PROVISIONING', 'BOOTSTRAPPING'] as const) {
    const second = { ...base, host: { ...host, state }, request: { ...request, operation: 'REINSTALL' as const } }
    t.equal(moveToReinstall(second).host, 'PROVISIONING', `a second wish in ${state}`)
    t.equal(refusalOf({ ...base, host: { ...host, state } }), 'HOST_STATE_FORBIDS', state)
  }
  const refusals = [
    ['HOST_PROTECTED', { host: { ...host, protected: true } }],
    ['REINSTALL_UNSUPPORTED', { provider: { name: 'fsn1', capabilities: ['POWER'] } }],
    ['HOST_STATE_FORBIDS', { host: { ...host, state: 'RELEASING' } }],
    ['HOST_STATE_FORBIDS', { request: null }],
    ['HOST_STATE_FORBIDS', { request: { ...request, presence: 'ABSENT' } }],
    ['HOST_STATE_FORBIDS', { request: { ...request, desiredPresence: 'ABSENT' } }],
    ['HOST_STATE_FORBIDS', { request: { ...request, state: 'DEPROVISIONING' } }],
    ['HOST_STATE_FORBIDS', { machine: { ...machine, state: 'GONE' } }],
    ['MACHINE_PROTECTED', { machine: { ...machine, protected: true } }],
    ['MACHINE_STATE_FORBIDS', { machine: { ...machine, static: true, state: 'PROVISION_FAILED' } }],
  ] as const
  for (const [reason, change] of refusals) t.equal(refusalOf({ ...base, ...change }), reason, JSON.stringify(change))
})

void t.test('any state with any inputs gives a lawful decision', async () => {
  const anyView = fc.record({
    state: fc.constantFrom(...hostStates),
    lastError: anyError,
    attempts: fc.array(
      fc.record({ request: fc.constantFrom('r-0', 'r-1', 'r-2'), error: anyError, final: fc.boolean() }),
      { maxLength: 22 },
    ),
    phoneHome: fc.boolean(),
    request: fc.option(
      fc.record({
        state: fc.constantFrom(...requestStates),
        operation: fc.constantFrom('PROVISION' as const, 'REINSTALL' as const, 'DEPROVISION' as const),
        reinstallWishedAt: fc.option(anyTime),
        desiredPresence: fc.constantFrom('PRESENT' as const, 'ABSENT' as const),
        presence: fc.constantFrom('UNKNOWN' as const, 'PRESENT' as const, 'ABSENT' as const),
        externalId: fc.constantFrom(null, 'srv'),
        lastError: anyError,
        createdAt: anyTime,
        provisionedAt: fc.option(anyTime),
        phonedHomeAt: fc.option(anyTime),
        forgottenBy: fc.constantFrom(null, null, 'token/1'),
        claimed: fc.boolean(),
      }),
      { freq: 9 },
    ),
    machineState: fc.option(fc.constantFrom(...machineStates)),
    connectedSince: fc.option(anyTime),
    now: anyTime,
    graceUntil: anyTime,
  })
  fc.assert(
    fc.property(anyView, (any) => {
      const attempts = any.attempts.map(({ request, error, final }) => ({
        provider: 'p',
        request,
        typeId: '',
        location: '',
        error: error ?? failure('INTERNAL'),
        startedAt: '',
        ...(final && { final: true as const }),
      }))
      const host = {
        state: any.state,
        lastError: any.lastError,
        attempts,
        bootstrap: { ...hostOf().bootstrap, phoneHome: any.phoneHome },
      }
      const request =
        any.request === null
          ? null
          : { ...any.request, neverClaimed: any.request.state === 'PENDING' && !any.request.claimed }
      const view = viewOf(host, request, {
        machineState: any.machineState,
        connection: { connectedSince: any.connectedSince },
        now: any.now,
        graceUntil: any.graceUntil,
      })
      expectLawful(view, decideHost(view))
    }),
    { numRuns: 10_000 },
  )
})

/** The moves that need a person. */
const byHand: ReadonlySet<string> = new Set(['release', 'retry', 'reinstall'])
/** The moves that need none. */
const reachableAlone = new Map(hostStates.map((state) => [state, statesFrom(state)]))

function statesFrom(state: HostState): ReadonlySet<HostState> {
  const found = new Set([state])
  for (const from of found) {
    for (const event of hostEvents) {
      const to = byHand.has(event) ? undefined : transitionHost(from, event)
      if (to !== undefined) found.add(to)
    }
  }
  return found
}

/** What holds for every decision. */
function expectLawful(view: HostView, decision: HostDecision): void {
  const { host, action } = decision
  const { request } = view
  const expect = (holds: boolean, what: string) => {
    if (!holds) throw new Error(`${what}: ${JSON.stringify({ view, decision }, null, 1)}`)
  }
  expect(reachableAlone.get(view.host.state)?.has(host.state) === true, 'the move is in the table')
  const rested = host.state === 'READY' || host.state === 'ERROR' || host.state === 'RELEASED'
  expect(rested || action.kind === 'place' || decision.lookAgainInMs !== null, 'what is under way is looked at again')
  expect(
    decision.lookAgainInMs === null || (decision.lookAgainInMs >= 0 && decision.lookAgainInMs <= minute),
    'within a minute',
  )
  const live = request !== null && request.state !== 'GONE'
  expect(
    action.kind !== 'place' || (!live && host.state === 'ORDERED'),
    'a place is looked for only when nothing is left of the one before',
  )
  expect(
    action.kind !== 'cancel-request' || request?.neverClaimed === true,
    'only what nobody was told of is cancelled',
  )
  expect(
    action.kind !== 'deprovision' || (live && (request.desiredPresence === 'PRESENT' || action.failure !== null)),
    'a wish is made once',
  )
  expect(
    action.kind !== 'deprovision' ||
      request?.operation !== 'REINSTALL' ||
      !['PROVISIONING', 'PROVISIONED'].includes(request.state) ||
      ['RELEASING', 'ORDERED'].includes(host.state),
    'a machine that was in use goes by a person alone',
  )
  expect(
    host.state !== 'RELEASED' || view.host.state === 'RELEASED' || !live || action.kind === 'cancel-request',
    'nothing is left of what is released',
  )
  expect(host.state !== 'ERROR' || host.lastError !== null || view.host.state === 'ERROR', 'an ERROR has its reason')
  expect(host.attempts.length <= Math.max(20, view.host.attempts.length), 'attempts are capped')
  expect(
    decision.events.every((event) => event.message !== '' && event.subject === host.name),
    'events say something',
  )
  const statuses = host.conditions.map((condition) => condition.status)
  const rises = statuses.lastIndexOf('TRUE') < statuses.length - statuses.filter((status) => status === 'FALSE').length
  expect(rises, 'conditions rise in order')
  expect(
    host.conditions.every((condition) => condition.status === 'TRUE' || condition.reason !== ''),
    'what does not hold has a reason',
  )
  if (action.kind !== 'none') return
  const again = decideHost({ ...view, host })
  const moving = decision.lookAgainInMs === 0
  expect(
    moving || (again.events.length === 0 && again.action.kind === 'none'),
    'the same view, once it is dealt with, asks for nothing more',
  )
}

// A provider, a person and time, which do as they like for a while, and then as they should.

type Whim =
  | 'look'
  | 'claim'
  | 'progress'
  | 'done'
  | 'fail'
  | 'gone'
  | 'phone'
  | 'vanish'
  | 'return'
  | 'cut'
  | 'connect'
  | 'time'
  | 'release'
  | 'retry'
  | 'reinstall'
  | 'forget'

class World {
  host = hostOf()
  request: RequestView | null = null
  now = start
  connectedSince: Date | null = start
  live = 0
  placed = 0
  readonly #placesLeft: boolean

  constructor(placesLeft: boolean, phoneHome: boolean) {
    this.#placesLeft = placesLeft
    this.host = { ...this.host, bootstrap: { ...this.host.bootstrap, phoneHome } }
  }

  look(): HostDecision {
    const view: HostView = {
      host: this.host,
      request: this.request,
      machineState: null,
      connection: { connectedSince: this.connectedSince },
      now: this.now,
      graceUntil: start,
    }
    const decision = decideHost(view)
    expectLawful(view, decision)
    this.host = decision.host
    const { action } = decision
    if (action.kind === 'cancel-request') this.#change({ state: 'GONE', desiredPresence: 'ABSENT', presence: 'ABSENT' })
    if (action.kind === 'deprovision') {
      this.#change({
        desiredPresence: 'ABSENT',
        ...(action.failure !== null && { state: 'FAILED', lastError: action.failure }),
      })
    }
    if (action.kind === 'place') this.#place()
    return decision
  }

  #place(): void {
    if (!this.#placesLeft) {
      this.host = keepWaiting(this.host, [], this.now).host
      return
    }
    if (this.request !== null && this.request.state !== 'GONE') throw new Error('two live requests')
    const name = `r-${++this.placed}`
    const candidate = {
      provider: { id: 'p', name: 'fsn1', kind: 'DYNAMIC' },
      typeId: 'small',
      location: 'x',
      machine: null,
    } as unknown as Candidate
    this.host = placeHost(this.host, { id: name, name, price: null }, candidate, this.now).host
    this.request = requestOf({ id: name, name, state: 'PENDING', neverClaimed: true, createdAt: this.now })
  }

  #change(over: Partial<RequestView>): void {
    if (this.request === null) throw new Error('there is no request')
    this.request = {
      ...this.request,
      ...over,
      neverClaimed: this.request.neverClaimed && (over.state ?? 'PENDING') === 'PENDING',
    }
  }

  #reinstall(): void {
    const { host, request } = this
    try {
      const moves = moveToReinstall({
        host: { name: 'web-1', state: host.state, protected: false },
        provider: null,
        request,
        machine: { name: 'm-1', state: 'ACTIVE', static: false, protected: false },
      })
      this.host = { ...host, state: moves.host, stateAt: this.now, lastError: null, phoneHomeAt: null }
      this.#change({
        state: moves.request,
        operation: 'REINSTALL',
        reinstallWishedAt: this.now,
        provisionedAt: null,
        phonedHomeAt: null,
        lastError: null,
      })
    } catch (error) {
      if (!(error instanceof HubError)) throw error
    }
  }

  whim(whim: Whim, code: FailureCode, minutes: number): void {
    const request = this.request
    const wanted = request?.desiredPresence === 'PRESENT'
    switch (whim) {
      case 'look':
        this.look()
        return
      case 'claim':
        if (this.connectedSince === null) return
        if (request?.state === 'PENDING' && wanted) this.#change({ state: 'PROVISIONING' })
        else if (request !== null && !wanted && request.state !== 'GONE') this.#change({ state: 'DEPROVISIONING' })
        return
      case 'progress':
        if (request?.state === 'PROVISIONING')
          this.#change({ externalId: 'srv', progress: { step: 'create', message: '' } })
        return
      case 'done':
        if (request?.state === 'PROVISIONING' && wanted)
          this.#change({ state: 'PROVISIONED', presence: 'PRESENT', provisionedAt: this.now, lastError: null })
        return
      case 'fail':
        if (request?.state !== 'PROVISIONING' || !wanted) return
        // What exists is kept, whatever goes wrong with it.
        if (request.operation === 'REINSTALL') this.#change({ lastError: failure(code) })
        else this.#change({ state: 'FAILED', desiredPresence: 'ABSENT', lastError: failure(code) })
        return
      case 'gone':
        if (request?.state === 'DEPROVISIONING') this.#change({ state: 'GONE', presence: 'ABSENT' })
        return
      case 'phone':
        if (request?.state === 'PROVISIONED' && request.presence === 'PRESENT') this.#change({ phonedHomeAt: this.now })
        return
      case 'vanish':
        if (request?.state === 'PROVISIONED') this.#change({ presence: 'ABSENT' })
        return
      case 'return':
        if (request?.state === 'PROVISIONED') this.#change({ presence: 'PRESENT' })
        return
      case 'cut':
        this.connectedSince = null
        return
      case 'connect':
        this.connectedSince ??= this.now
        return
      case 'time':
        this.now = new Date(this.now.getTime() + minutes * minute)
        return
      case 'release':
        if (transitionHost(this.host.state, 'release') !== undefined)
          this.host = { ...this.host, state: 'RELEASING', stateAt: this.now }
        return
      case 'retry':
        if (transitionHost(this.host.state, 'retry') !== undefined)
          this.host = { ...this.host, state: 'ORDERED', stateAt: this.now }
        return
      case 'reinstall':
        this.#reinstall()
        return
      case 'forget':
        if (request !== null) this.#change({ state: 'GONE', forgottenBy: 'token/1' })
    }
  }
}

const whims: readonly Whim[] = [
  'look',
  'look',
  'look',
  'claim',
  'claim',
  'progress',
  'done',
  'done',
  'fail',
  'gone',
  'gone',
  'phone',
  'vanish',
  'return',
  'cut',
  'connect',
  'time',
  'release',
  'retry',
  'reinstall',
  'reinstall',
  'forget',
]
const anyWhims = fc.array(
  fc.record({ whim: fc.constantFrom(...whims), code: fc.constantFrom(...codes), minutes: fc.constantFrom(1, 16, 61) }),
  { maxLength: 60 },
)

void t.test('whatever happened before: once all behave, every host comes to rest', async () => {
  fc.assert(
    fc.property(
      anyWhims,
      fc.boolean(),
      fc.constantFrom<readonly Whim[]>(['done', 'phone'], ['fail'], ['done'], []),
      (before, phoneHome, manners) => {
        const world = new World(true, phoneHome)
        for (const { whim, code, minutes } of before) world.whim(whim, code, minutes)
        world.whim('connect', 'INTERNAL', 0)
        for (let round = 0; round < 200; round++) {
          const decision = world.look()
          if (['READY', 'ERROR', 'RELEASED'].includes(world.host.state) && decision.lookAgainInMs === null) return true
          for (const whim of ['claim', ...manners, 'gone'] as const) world.whim(whim, 'CAPACITY', 0)
          world.whim('time', 'INTERNAL', 1)
        }
        throw new Error(`still ${world.host.state}: ${JSON.stringify(world, null, 1)}`)
      },
    ),
    { numRuns: 4000 },
  )
})

void t.test('and every release arrives, even where no place was ever found', async () => {
  fc.assert(
    fc.property(anyWhims, fc.boolean(), (before, places) => {
      const world = new World(places, true)
      for (const { whim, code, minutes } of before) world.whim(whim, code, minutes)
      world.whim('connect', 'INTERNAL', 0)
      world.whim('release', 'INTERNAL', 0)
      for (let round = 0; round < 10 && world.host.state !== 'RELEASED'; round++) {
        world.look()
        world.whim('claim', 'INTERNAL', 0)
        world.whim('gone', 'INTERNAL', 0)
      }
      return world.host.state === 'RELEASED' && (world.request === null || world.request.state === 'GONE')
    }),
    { numRuns: 3000 },
  )
})
