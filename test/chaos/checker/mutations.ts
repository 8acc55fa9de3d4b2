import type { Listing, Operation, Outcome, WatchKind, WatchLine } from '../history.js'
import type { Example } from './example.js'

// Ways in which a run can go wrong, each as a change to the histories of a good one. The checker must find every one.

export interface Mutation {
  readonly name: string
  /** The rule that must be found broken. */
  readonly rule: string
  readonly mutate: (example: Example) => void
}

type Message = Extract<WatchLine, { type: 'message' }>
type Change = {
  change: Message['changes'][number]['change']
  seen: Record<string, unknown> & { uid: string; version: number }
}

const watchers = ['watcher-1', 'watcher-2'] as const

function linesOf(example: Example, watch: string): WatchLine[] {
  const file = example.watches.find(({ name }) => name === watch)
  if (file === undefined) throw new Error(`there is no watch ${watch}`)
  return file.lines as WatchLine[]
}

/** The changes of a watch, to be changed, with the lines that they are in. */
function changesOf(example: Example, watch: string): { line: Message; change: Change }[] {
  return linesOf(example, watch).flatMap((line) =>
    line.type === 'message' ? line.changes.map((change) => ({ line, change: change as unknown as Change })) : [],
  )
}

function changeOf(example: Example, watch: string, uid: string, version: number): { line: Message; change: Change } {
  const found = changesOf(example, watch).find(
    ({ change }) => change.seen.uid === uid && change.seen.version === version,
  )
  if (found === undefined) throw new Error(`${watch} was not told ${uid}@${version}`)
  return found
}

function lineOf(example: Example, watch: string, uid: string, version: number): WatchLine {
  return changeOf(example, watch, uid, version).line
}

function drop(example: Example, watch: string, uid: string, version: number): void {
  const lines = linesOf(example, watch)
  lines.splice(lines.indexOf(lineOf(example, watch, uid, version)), 1)
}

/** Tells a change again, directly after or after so many lines. */
function repeat(example: Example, watch: string, uid: string, version: number, later = 1): void {
  const lines = linesOf(example, watch)
  const line = lineOf(example, watch, uid, version)
  lines.splice(lines.indexOf(line) + later, 0, structuredClone(line))
}

/** Exchanges the places of two changes. */
function swap(example: Example, watch: string, one: readonly [string, number], other: readonly [string, number]): void {
  const lines = linesOf(example, watch)
  const [first, second] = [
    lines.indexOf(lineOf(example, watch, ...one)),
    lines.indexOf(lineOf(example, watch, ...other)),
  ]
  ;[lines[first], lines[second]] = [lines[second] as WatchLine, lines[first] as WatchLine]
}

function listed(example: Example, moment: Listing['moment'], kind: WatchKind, uid: string): Record<string, unknown> {
  const listing = example.listings.find((candidate) => candidate.moment === moment && candidate.kind === kind)
  const object = listing?.objects.find((candidate) => candidate.uid === uid)
  if (object === undefined) throw new Error(`${uid} is not listed`)
  return object as Record<string, unknown>
}

function unlist(example: Example, kind: WatchKind, uid: string): void {
  for (const listing of example.listings)
    if (listing.kind === kind) listing.objects = listing.objects.filter((object) => object.uid !== uid)
}

function ledger(example: Example, name: string) {
  const file = example.ledgers.find((candidate) => candidate.name === name)
  if (file === undefined) throw new Error(`there is no ledger ${name}`)
  return file.lines
}

type LedgerFact = Omit<Example['ledgers'][number]['lines'][number], 'seq'>

function happens(example: Example, world: string, fact: LedgerFact): void {
  const lines = ledger(example, world)
  lines.push({ seq: lines.length + 1, ...fact })
  lines.sort((one, other) => one.atMs - other.atMs)
}

function never(example: Example, world: string, fact: string, about: string): void {
  const lines = ledger(example, world)
  const index = lines.findIndex((line) => line.fact === fact && (line.id ?? line.binding ?? line.serial) === about)
  if (index === -1) throw new Error(`there is no ${fact} of ${about}`)
  lines.splice(index, 1)
}

/** A call and its outcome, at the end of what client-1 did. */
function calls(example: Example, operation: Operation, outcome: object, at = 1_010_000): void {
  const call = `client-1.9.${example.clients.length}`
  const head = { by: 'client-1', call }
  example.clients.push({ at, ...head, type: 'invoke', hub: 'hub-2', ...operation })
  example.clients.push({ at: at + 50, ...head, ...outcome } as unknown as Outcome)
}

const orderA = {
  op: 'order' as const,
  key: 'key-a',
  host: 'workspaces/default/hosts/a',
  want: { machineClass: 'machineClasses/cloud-a', hostname: 'a', labels: { chaos: '0' }, providerData: {} },
}
const hostA = { host: orderA.host, uid: 'host-a' }
const seenA = { uid: 'host-a', name: orderA.host, version: 6, state: 'READY', labels: { chaos: '7' } }
const created = (id: string, ownershipKey: string, atMs: number): LedgerFact => ({
  atMs,
  fact: 'server.created',
  id,
  ownershipKey,
  call: 'create',
})

const money: readonly Mutation[] = [
  {
    name: 'a second server on the same cloud',
    rule: 'S1',
    mutate: (run) => happens(run, 'cloud-a', created('srv-a2', 'the-hub/request-a', 1_002_000)),
  },
  {
    name: 'a second server on the other cloud',
    rule: 'S1',
    mutate: (run) => happens(run, 'cloud-b', created('srv-a2', 'the-hub/request-a', 1_002_000)),
  },
  {
    name: 'a second server for a millisecond',
    rule: 'S1',
    mutate: (run) => {
      happens(run, 'cloud-a', created('srv-a2', 'the-hub/request-a', 1_002_000))
      happens(run, 'cloud-a', {
        atMs: 1_002_000,
        fact: 'server.deleted',
        id: 'srv-a2',
        goneAtMs: 1_002_001,
        call: 'delete',
      })
    },
  },
  {
    name: 'a second server while the first is being deleted',
    rule: 'S1',
    mutate: (run) => happens(run, 'cloud-a', created('srv-a2', 'the-hub/request-a', 1_065_050)),
  },
  {
    name: 'a second server after a deletion that got stuck',
    rule: 'S1',
    mutate: (run) => {
      Object.assign(ledger(run, 'cloud-a').find(({ fact }) => fact === 'server.deleted') ?? {}, { goneAtMs: null })
      happens(run, 'cloud-a', created('srv-a2', 'the-hub/request-a', 1_066_000))
    },
  },
  {
    name: 'somebody else’s server is deleted',
    rule: 'S4',
    mutate: (run) =>
      happens(run, 'cloud-a', {
        atMs: 1_003_000,
        fact: 'server.deleted',
        id: 'srv-x',
        goneAtMs: 1_003_100,
        call: 'delete',
      }),
  },
  {
    name: 'somebody else’s server is rebooted',
    rule: 'S4',
    mutate: (run) =>
      happens(run, 'cloud-a', { atMs: 1_003_000, fact: 'server.powered', id: 'srv-x', wish: 'off', call: 'power' }),
  },
  {
    name: 'a server is deleted that nobody let go of',
    rule: 'S4',
    mutate: (run) => {
      run.clients = run.clients.filter(
        (line) => !(line.type === 'invoke' && line.op === 'release' && line.uid === 'host-a'),
      )
    },
  },
  {
    name: 'a server is deleted before its release',
    rule: 'S4',
    mutate: (run) =>
      happens(run, 'cloud-a', {
        atMs: 1_030_000,
        fact: 'server.deleted',
        id: 'srv-a',
        goneAtMs: 1_030_100,
        call: 'delete',
      }),
  },
  {
    name: 'a server is deleted that no request is known for',
    rule: 'S4',
    mutate: (run) => {
      happens(run, 'cloud-a', created('srv-q', 'the-hub/request-q', 1_002_000))
      happens(run, 'cloud-a', {
        atMs: 1_003_000,
        fact: 'server.deleted',
        id: 'srv-q',
        goneAtMs: 1_003_100,
        call: 'delete',
      })
    },
  },
  {
    name: 'a server without a record at rest',
    rule: 'I2',
    mutate: (run) => happens(run, 'cloud-b', created('srv-q', 'the-hub/request-q', 1_002_000)),
  },
  {
    name: 'a server whose request is GONE',
    rule: 'I2',
    mutate: (run) => Object.assign(listed(run, 'rest', 'request', 'request-a'), { state: 'GONE' }),
  },
  {
    name: 'a server that is never deleted',
    rule: 'L2',
    mutate: (run) => never(run, 'cloud-a', 'server.deleted', 'srv-a'),
  },
  {
    name: 'a deletion that never ends',
    rule: 'L2',
    mutate: (run) =>
      Object.assign(ledger(run, 'cloud-a').find(({ fact }) => fact === 'server.deleted') ?? {}, { goneAtMs: null }),
  },
  {
    name: 'a run that was never brought to its end',
    rule: 'L2',
    mutate: (run) => {
      run.listings = run.listings.filter(({ moment }) => moment !== 'end')
    },
  },
]

const rack: readonly Mutation[] = [
  {
    name: 'the rack refused a second host',
    rule: 'I6',
    mutate: (run) =>
      happens(run, 'rack', {
        atMs: 1_003_000,
        fact: 'violation',
        serial: 'R-1',
        what: 'provision-bound',
        message: 'it is taken',
      }),
  },
  {
    name: 'a machine is given to a second host',
    rule: 'I6',
    mutate: (run) =>
      happens(run, 'rack', { atMs: 1_003_000, fact: 'machine.provisioned', serial: 'R-1', binding: 'the-hub/other' }),
  },
  {
    name: 'a machine is given on without a wipe',
    rule: 'I7',
    mutate: (run) =>
      happens(run, 'rack', { atMs: 1_009_200, fact: 'machine.provisioned', serial: 'R-1', binding: 'the-hub/other' }),
  },
  {
    name: 'a machine is given on after a wipe that failed',
    rule: 'I7',
    mutate: (run) => {
      Object.assign(ledger(run, 'rack').at(-1) ?? {}, { fact: 'machine.wipe-failed' })
      happens(run, 'rack', { atMs: 1_012_000, fact: 'machine.provisioned', serial: 'R-1', binding: 'the-hub/other' })
    },
  },
  {
    name: 'a machine is wiped with its host on it',
    rule: 'I6',
    mutate: (run) =>
      happens(run, 'rack', { atMs: 1_005_000, fact: 'machine.wiped', serial: 'R-1', binding: 'the-hub/request-r' }),
  },
  {
    name: 'a machine was wiped before its release, and given on',
    rule: 'I6',
    mutate: (run) => {
      never(run, 'rack', 'machine.wiped', 'the-hub/request-r')
      happens(run, 'rack', { atMs: 1_008_000, fact: 'machine.wiped', serial: 'R-1', binding: 'the-hub/request-r' })
    },
  },
  {
    name: 'a machine is never cleaned',
    rule: 'L7',
    mutate: (run) => Object.assign(listed(run, 'end', 'machine', 'machine-r'), { state: 'CLEANING' }),
  },
  {
    name: 'a machine keeps its host',
    rule: 'I5',
    mutate: (run) => Object.assign(listed(run, 'end', 'machine', 'machine-r'), { host: 'workspaces/default/hosts/r' }),
  },
]

const orders: readonly Mutation[] = [
  {
    name: 'a key gives another host later',
    rule: 'S8',
    mutate: (run) => calls(run, orderA, { type: 'ok', seen: { ...seenA, uid: 'host-a2' } }),
  },
  {
    name: 'two calls at once under one key give two hosts',
    rule: 'S8',
    mutate: (run) => calls(run, orderA, { type: 'ok', seen: { ...seenA, uid: 'host-a2', version: 1 } }, 1_000_100),
  },
  {
    name: 'a key is refused that was accepted',
    rule: 'S8',
    mutate: (run) => calls(run, orderA, { type: 'fail', code: 'AlreadyExists', reason: 'NAME_TAKEN', message: 'no' }),
  },
  {
    name: 'a key is refused as used with another order',
    rule: 'S8',
    mutate: (run) =>
      calls(run, orderA, { type: 'fail', code: 'AlreadyExists', reason: 'IDEMPOTENCY_KEY_REUSED', message: 'no' }),
  },
  {
    name: 'another order under a used key is accepted',
    rule: 'I8',
    mutate: (run) => calls(run, { ...orderA, op: 'reuse' }, { type: 'ok', seen: seenA }),
  },
  {
    name: 'another order under a used key is refused for another reason',
    rule: 'I8',
    mutate: (run) =>
      calls(
        run,
        { ...orderA, op: 'reuse' },
        { type: 'fail', code: 'AlreadyExists', reason: 'NAME_TAKEN', message: 'no' },
      ),
  },
  { name: 'an acknowledged order is lost', rule: 'S13', mutate: (run) => unlist(run, 'host', 'host-r') },
  {
    name: 'an acknowledged order is another host now',
    rule: 'S13',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { uid: 'host-z' }),
  },
  {
    name: 'an acknowledged order has another class',
    rule: 'S13',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { machineClass: 'machineClasses/cloud-b' }),
  },
  {
    name: 'an acknowledged order has another hostname',
    rule: 'S13',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { hostname: 'b' }),
  },
  {
    name: 'an acknowledged order has lost its provider data',
    rule: 'S13',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { data: { simulate: 'fail' } }),
  },
  {
    name: 'an order is there without its event',
    rule: 'S13',
    mutate: (run) => unlist(run, 'event', 'events/ordered-b'),
  },
  {
    name: 'a host is there that nobody ordered',
    rule: 'S13',
    mutate: (run) => {
      for (const listing of run.listings)
        if (listing.kind === 'host')
          listing.objects.push({
            ...(listing.objects[0] as (typeof listing.objects)[number]),
            uid: 'host-q',
            name: 'workspaces/default/hosts/q',
          })
    },
  },
  {
    name: 'an order of unknown outcome is there in half',
    rule: 'S13',
    mutate: (run) => {
      calls(
        run,
        { ...orderA, key: 'key-h', host: 'workspaces/default/hosts/h' },
        { type: 'info', code: 'Unavailable', reason: '', message: 'cut' },
      )
      for (const listing of run.listings)
        if (listing.kind === 'host')
          listing.objects.push({
            ...(listing.objects[0] as (typeof listing.objects)[number]),
            uid: 'host-h',
            name: 'workspaces/default/hosts/h',
            machineClass: '',
          })
    },
  },
  ...['ORDERED', 'PLACED', 'PROVISIONING', 'BOOTSTRAPPING', 'RELEASING'].map((state): Mutation => ({
    name: `a host is stuck in ${state}`,
    rule: 'I4',
    mutate: (run) => Object.assign(listed(run, 'rest', 'host', 'host-a'), { state }),
  })),
  {
    name: 'a host is in ERROR without a reason',
    rule: 'I4',
    mutate: (run) => Object.assign(listed(run, 'rest', 'host', 'host-b'), { error: '' }),
  },
  {
    name: 'a run that never came to rest',
    rule: 'L1',
    mutate: (run) => {
      run.listings = run.listings.filter(({ moment }) => moment !== 'rest')
    },
  },
  {
    name: 'a request is stuck',
    rule: 'L7',
    mutate: (run) => Object.assign(listed(run, 'rest', 'request', 'request-a'), { state: 'PROVISIONING' }),
  },
  {
    name: 'a request has not seen its last wish',
    rule: 'L7',
    mutate: (run) => Object.assign(listed(run, 'rest', 'request', 'request-a'), { generation: 2 }),
  },
  {
    name: 'a release that was acknowledged has no effect',
    rule: 'I5',
    mutate: (run) => Object.assign(listed(run, 'rest', 'host', 'host-r'), { state: 'READY' }),
  },
  {
    name: 'a host is not released at the end',
    rule: 'I5',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { state: 'RELEASING' }),
  },
  {
    name: 'a request is not GONE at the end',
    rule: 'I5',
    mutate: (run) => Object.assign(listed(run, 'end', 'request', 'request-b'), { state: 'DEPROVISIONING' }),
  },
]

const sessions: readonly Mutation[] = [
  {
    name: 'a read goes back in time',
    rule: 'S15',
    mutate: (run) => calls(run, { op: 'get', ...hostA }, { type: 'ok', seen: { ...seenA, version: 5 } }),
  },
  {
    name: 'a host that was ordered is not found',
    rule: 'S15',
    mutate: (run) =>
      calls(run, { op: 'get', ...hostA }, { type: 'fail', code: 'NotFound', reason: 'HOST_NOT_FOUND', message: 'no' }),
  },
  {
    name: 'a label that was written is not read',
    rule: 'S15',
    mutate: (run) => calls(run, { op: 'get', ...hostA }, { type: 'ok', seen: { ...seenA, labels: { chaos: '0' } } }),
  },
  {
    name: 'a label that nobody wrote is read',
    rule: 'S15',
    mutate: (run) =>
      calls(run, { op: 'get', ...hostA }, { type: 'ok', seen: { ...seenA, version: 9, labels: { chaos: '99' } } }),
  },
  {
    name: 'a label that was refused is read',
    rule: 'S15',
    mutate: (run) => {
      calls(
        run,
        { op: 'label', ...hostA, value: '8' },
        { type: 'fail', code: 'InvalidArgument', reason: 'INVALID_FIELD', message: 'no' },
      )
      calls(run, { op: 'get', ...hostA }, { type: 'ok', seen: { ...seenA, labels: { chaos: '8' } } }, 1_011_000)
    },
  },
  {
    name: 'a hub answers INTERNAL',
    rule: 'D1',
    mutate: (run) =>
      calls(run, { op: 'get', ...hostA }, { type: 'info', code: 'Internal', reason: 'INTERNAL', message: 'a defect' }),
  },
  {
    name: 'a hub ends by itself',
    rule: 'D2',
    mutate: (run) => run.processes.push({ at: 1_005_000, type: 'exit', name: 'hub-2', pid: 12, how: '1' }),
  },
  {
    name: 'a provider ends by itself with code 0',
    rule: 'D2',
    mutate: (run) => run.processes.push({ at: 1_005_000, type: 'exit', name: 'cloud-a-1', pid: 12, how: '0' }),
  },
  {
    name: 'a machine is rebooted once more, and nothing was in doubt',
    rule: 'L3',
    mutate: (run) => {
      run.faults = []
      happens(run, 'cloud-a', { atMs: 1_004_000, fact: 'server.powered', id: 'srv-a', wish: 'reboot', call: 'power' })
    },
  },
  {
    name: 'a machine is rebooted more often than doubts allow',
    rule: 'L3',
    mutate: (run) => {
      for (const atMs of [1_004_000, 1_004_100, 1_004_200])
        happens(run, 'cloud-a', { atMs, fact: 'server.powered', id: 'srv-a', wish: 'reboot', call: 'power' })
    },
  },
  {
    name: 'a machine is rebooted that nobody asked to',
    rule: 'L3',
    mutate: (run) =>
      happens(run, 'cloud-b', { atMs: 1_004_000, fact: 'server.powered', id: 'srv-b', wish: 'reboot', call: 'power' }),
  },
  {
    name: 'a reboot is never done',
    rule: 'L3',
    mutate: (run) => Object.assign(listed(run, 'rest', 'machine', 'machine-a'), { rebootsDone: 0 }),
  },
]

const lifecycles: readonly Mutation[] = [
  ...(
    [
      ['host', 'host-a', 2, 'READY', 'a host is READY without a place'],
      ['host', 'host-a', 7, 'ORDERED', 'a host is ordered anew while it is released'],
      ['host', 'host-r', 7, 'READY', 'a host comes back from its release'],
      ['request', 'request-a', 2, 'PROVISIONED', 'a request is done before it is begun'],
      ['request', 'request-a', 5, 'PROVISIONING', 'a request comes back from its end'],
      ['machine', 'machine-r', 7, 'ACTIVE', 'a machine is in use without being provisioned'],
      ['machine', 'machine-r', 9, 'AVAILABLE', 'a machine is available without being cleaned'],
    ] as const
  ).map(([kind, uid, version, state, name]): Mutation => ({
    name,
    rule: 'S7',
    mutate: (run) => {
      for (const watcher of watchers) {
        const found = changesOf(run, `${watcher}-${kind}`).filter(
          ({ change }) => change.seen.uid === uid && change.seen.version === version,
        )
        for (const { change } of found) change.seen['state'] = state
      }
    },
  })),
  {
    name: 'a generation falls',
    rule: 'S7',
    mutate: (run) => void (changeOf(run, 'watcher-1-request', 'request-a', 4).change.seen['generation'] = 0),
  },
  {
    name: 'a count of reboots falls',
    rule: 'S7',
    mutate: (run) => void (changeOf(run, 'watcher-1-machine', 'machine-a', 3).change.seen['reboots'] = 0),
  },
]

const watches: readonly Mutation[] = [
  { name: 'a change is missing', rule: 'S14', mutate: (run) => drop(run, 'watcher-1-host', 'host-a', 3) },
  { name: 'the first change is missing', rule: 'S14', mutate: (run) => drop(run, 'watcher-1-host', 'host-a', 1) },
  { name: 'the last change is missing', rule: 'L6', mutate: (run) => drop(run, 'watcher-1-host', 'host-b', 8) },
  { name: 'a change is told twice', rule: 'S14', mutate: (run) => repeat(run, 'watcher-1-host', 'host-a', 3) },
  { name: 'a creation is told twice', rule: 'S14', mutate: (run) => repeat(run, 'watcher-1-request', 'request-b', 1) },
  { name: 'an end is told twice', rule: 'S14', mutate: (run) => repeat(run, 'watcher-2-host', 'host-r', 7) },
  {
    name: 'a change is told again much later',
    rule: 'S14',
    mutate: (run) => repeat(run, 'watcher-1-host', 'host-a', 2, 9),
  },
  {
    name: 'two changes of one object are told in the wrong order',
    rule: 'S14',
    mutate: (run) => swap(run, 'watcher-1-machine', ['machine-r', 2], ['machine-r', 3]),
  },
  {
    name: 'two changes of two objects are told in the wrong order',
    rule: 'S14',
    mutate: (run) => swap(run, 'watcher-1-host', ['host-a', 6], ['host-r', 5]),
  },
  {
    name: 'a cut loses a change',
    rule: 'S14',
    mutate: (run) => {
      const lines = linesOf(run, 'watcher-1-request')
      lines.splice(lines.findLastIndex((line) => line.type === 'open') + 2, 1)
    },
  },
  {
    name: 'a cut repeats a change',
    rule: 'S14',
    mutate: (run) => {
      const lines = linesOf(run, 'watcher-1-request')
      const cut = lines.findIndex((line) => line.type === 'end')
      lines.splice(cut + 3, 0, structuredClone(lines[cut - 1] as WatchLine))
    },
  },
  {
    name: 'what exists is told in the middle',
    rule: 'S14',
    mutate: (run) => void (changeOf(run, 'watcher-1-host', 'host-a', 4).change.change = 'EXISTING'),
  },
  {
    name: 'an update of what was never told',
    rule: 'S14',
    mutate: (run) => {
      for (const { line, change } of changesOf(run, 'watcher-2-host'))
        if (change.change === 'EXISTING' && change.seen.uid === 'host-a')
          (line.changes as unknown as Change[]).splice((line.changes as unknown as Change[]).indexOf(change), 1)
    },
  },
  {
    name: 'a watch begins with an older state than the list had',
    rule: 'S14',
    mutate: (run) => {
      for (const { change } of changesOf(run, 'watcher-2-host'))
        if (change.change === 'EXISTING') change.seen.version -= 1
    },
  },
  {
    name: 'one version is told with two contents',
    rule: 'S14',
    mutate: (run) => void (changeOf(run, 'watcher-2-host', 'host-r', 6).change.seen['digest'] = 'other'),
  },
  { name: 'an object is told that is not listed', rule: 'S14', mutate: (run) => unlist(run, 'machine', 'machine-b') },
  {
    name: 'an object is listed that was never told',
    rule: 'L6',
    mutate: (run) => {
      const lines = linesOf(run, 'watcher-2-machine')
      lines.splice(
        0,
        lines.length,
        ...lines.filter(
          (line) => line.type !== 'message' || !line.changes.some(({ seen }) => seen.uid === 'machine-b'),
        ),
      )
    },
  },
  {
    name: 'a watch never hears of the end',
    rule: 'L6',
    mutate: (run) => {
      const lines = linesOf(run, 'watcher-2-request')
      lines.splice(lines.findLastIndex((line) => line.type === 'open') + 1)
    },
  },
  {
    name: 'the last state that was told is not what is listed',
    rule: 'L6',
    mutate: (run) => void (changeOf(run, 'watcher-1-machine', 'machine-b', 2).change.seen['state'] = 'ACTIVE'),
  },
  {
    name: 'an event is told twice',
    rule: 'S14',
    mutate: (run) => repeat(run, 'watcher-1-event', 'events/ordered-b', 1),
  },
  {
    name: 'an event is told again after a cut',
    rule: 'S14',
    mutate: (run) => repeat(run, 'watcher-1-event', 'events/ordered-a', 1, 3),
  },
  {
    name: 'an event is missing in the middle',
    rule: 'S14',
    mutate: (run) => drop(run, 'watcher-1-event', 'events/ordered-b', 1),
  },
  {
    name: 'events are told in another order',
    rule: 'S14',
    mutate: (run) => swap(run, 'watcher-1-event', ['events/ordered-a', 1], ['events/ordered-r', 1]),
  },
]

export const mutations: readonly Mutation[] = [...money, ...rack, ...orders, ...sessions, ...lifecycles, ...watches]
