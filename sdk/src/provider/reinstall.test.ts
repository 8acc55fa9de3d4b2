import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { Capability, FailureCode, MachineSpecSchema, Operation, PowerState, Presence } from '@slipway/proto/provider/v1'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { deferred, sleep } from '../internal/timing.js'
import type { CloudServer, TestCloud } from '../testing/cloud.js'
import type { TestItem } from '../testing/item.js'
import { released, settled, setUp, type Setup } from '../testing/provider.js'
import { until } from '../testing/until.js'
import { ProviderError } from './errors.js'
import type { DynamicDefinition } from './types.js'

type Definition = DynamicDefinition<unknown, unknown, unknown>

/** A wish for the next reinstall, with user-data that names it. */
function wishReinstall(item: TestItem): TestItem {
  const reinstalls = item.desired.reinstalls + 1n
  const { $typeName: _type, ...before } = create(MachineSpecSchema, item.desired.spec)
  const spec = create(MachineSpecSchema, { ...before, bootstrap: { userData: `system ${reinstalls}` } })
  return item.wish({ operation: Operation.REINSTALL, reinstalls, spec })
}

/** A machine that is provisioned, of a provider that can reinstall it. */
async function provisioned(
  test: Test,
  instead: (cloud: TestCloud) => Partial<Definition> = () => ({}),
): Promise<Setup & { readonly server: CloudServer }> {
  const setup = await setUp(test, (cloud) => ({
    reinstall: (context, machine, spec) => cloud.reinstall(context, machine, spec),
    effectTimeoutMs: 300,
    ...instead(cloud),
  }))
  setup.session.send(setup.item.claimed())
  await settled(setup.item)
  const [server] = setup.cloud.servers.values()
  if (server === undefined) throw new Error('nothing was made')
  return { ...setup, server }
}

void t.test('each wish for a reinstall happens once, and the machine stays', async (t) => {
  const { session, item, server } = await provisioned(t)
  t.ok(session.hello.capabilities.includes(Capability.REINSTALL))
  session.send(wishReinstall(item).claimed())
  await settled(item)
  t.same([server.reinstalls, server.userData], [[1], 'system 1'])
  t.match(item.observed, {
    externalId: server.id,
    presence: Presence.PRESENT,
    reinstallsDone: 1n,
    createInDoubt: false,
  })
  t.match(item.completions.at(-1), { operation: Operation.REINSTALL, operationGeneration: 2n })
  session.send(item.claimed())
  await settled(item)
  t.same(server.reinstalls, [1], 'claimed again, there is nothing left to be done')
  session.send(item.wish({ reboots: 1n }).claimed())
  await settled(item)
  t.same(server.reinstalls, [1], 'nor is there with another wish')
  t.equal(item.observed.rebootsDone, 1n)
  session.send(wishReinstall(item).claimed())
  await settled(item)
  t.same([server.reinstalls, server.userData], [[1, 2], 'system 2'])
  t.equal(item.observed.reinstallsDone, 2n)
})

void t.test('the intent is stored before the effect, and a lost answer is looked for', async (t) => {
  let lost = true
  const { session, item, server } = await provisioned(t, (cloud) => ({
    reinstall: async (context, machine, spec) => {
      await context.step('rebuild', {
        run: () => {
          cloud.rebuild(machine.externalId, machine.reinstall, spec.bootstrap.userData)
          if (lost) throw new ProviderError('TIMEOUT', 'no answer')
          return Promise.resolve(true)
        },
        find: () => Promise.resolve(server.reinstalls.includes(machine.reinstall) ? true : undefined),
      })
      return { externalId: machine.externalId }
    },
  }))
  session.send(wishReinstall(item).claimed())
  await released(item)
  t.equal(item.observed.createInDoubt, true, 'whether it happened is not known')
  t.match(item.failures, [{ code: FailureCode.TIMEOUT, step: 'rebuild' }])
  lost = false
  session.send(item.claimed())
  await settled(item)
  t.same(server.reinstalls, [1], 'it is found, and not done twice')
  t.equal(item.observed.createInDoubt, false)
})

void t.test(
  'a wish that comes while one is under way takes its place, once the one before cannot land any more',
  async (t) => {
    const begun = deferred<void>()
    const { session, item, server } = await provisioned(t, (cloud) => ({
      reinstall: async (context, machine, spec) => {
        if (machine.reinstall > 1) return cloud.reinstall(context, machine, spec)
        await context.step('rebuild', {
          run: async () => {
            begun.resolve()
            // The call is lost on its way, and reaches the cloud a while later.
            setTimeout(() => cloud.rebuild(machine.externalId, 1, spec.bootstrap.userData), 150)
            await sleep(20)
            throw new ProviderError('TIMEOUT', 'no answer')
          },
          find: () => Promise.resolve(undefined),
        })
        return { externalId: machine.externalId }
      },
    }))
    session.send(wishReinstall(item).claimed())
    await begun.promise
    session.send(wishReinstall(item).changed())
    await settled(item)
    t.same(server.reinstalls, [1, 2], 'the newest is the last that happened')
    t.equal(server.userData, 'system 2')
    t.equal(item.observed.reinstallsDone, 2n, 'and makes the one before it moot')
  },
)

void t.test('a wish that another one overtook before it began is not carried out', async (t) => {
  const { session, item, server } = await provisioned(t)
  wishReinstall(item)
  session.send(wishReinstall(item).claimed())
  await settled(item)
  t.same(server.reinstalls, [2])
  t.equal(item.observed.reinstallsDone, 2n)
})

void t.test('a release in the middle of a reinstall is carried out', async (t) => {
  const begun = deferred<void>()
  const { cloud, session, item } = await provisioned(t, () => ({
    reinstall: async (context, machine) => {
      begun.resolve()
      await context.poll(() => Promise.resolve(undefined), {
        initialDelayMs: 5,
        what: 'an installation that never ends',
      })
      return { externalId: machine.externalId }
    },
  }))
  session.send(wishReinstall(item).claimed())
  await begun.promise
  session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).changed())
  await settled(item)
  t.equal(cloud.servers.size, 0)
  t.equal(item.observed.presence, Presence.ABSENT)
  t.equal(item.observed.reinstallsDone ?? 0n, 0n, 'and nobody says that it was done')
})

void t.test('what cannot be reinstalled is told', async (t) => {
  const { session, item, cloud } = await provisioned(t, () => ({
    validate: (_context, spec, reinstall) =>
      Promise.resolve(
        reinstall !== undefined && spec.bootstrap.userData === 'system 1'
          ? [{ field: 'spec.provider_data.image', description: `is nothing for ${reinstall.externalId}` }]
          : [],
      ),
  }))
  session.send(wishReinstall(item).claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.INVALID_SPEC, retryable: false, message: /is nothing for/ }])
  t.equal(cloud.count('rebuild'), 0, 'before anything is done')
  cloud.servers.clear()
  session.send(wishReinstall(item).claimed())
  await until('the loss to be told', () => item.observed.presence === Presence.ABSENT && item.failures.length === 2)
  t.match(item.failures.at(-1), { retryable: false, message: /is gone/ })
})

void t.test('a provider that cannot reinstall says so, and one that gives another machine is refused', async (t) => {
  const { session, item } = await setUp(t)
  session.send(item.claimed())
  await settled(item)
  t.notOk(session.hello.capabilities.includes(Capability.REINSTALL))
  session.send(wishReinstall(item).claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.INVALID_SPEC, retryable: false }])

  const other = await provisioned(t, () => ({ reinstall: () => Promise.resolve({ externalId: 'another' }) }))
  other.session.send(wishReinstall(other.item).claimed())
  await released(other.item)
  t.match(other.item.failures, [{ code: FailureCode.INTERNAL, message: /must keep it/ }])
  t.equal(other.item.observed.externalId, other.server.id)
})

void t.test('an order is asked about with the machine that it would reinstall', async (t) => {
  const seen: unknown[] = []
  const { session } = await setUp(t, () => ({
    validate: (_context, _spec, reinstall) => {
      seen.push(reinstall)
      return Promise.resolve([])
    },
  }))
  const spec = { name: '', ownershipKey: '', typeId: 'small' }
  const ask = async (validationId: string, reinstall?: object) => {
    session.send({ case: 'validate', value: { validationId, spec, deadline: durationFromMs(1_000), ...reinstall } })
    return session.expect('validated', (answer) => answer.validationId === validationId)
  }
  await ask('1')
  await ask('2', { reinstall: { externalId: 's-1', providerData: {} } })
  await ask('3', { reinstall: { externalId: 's-1', providerData: { gone: 'with an upgrade' } } })
  t.strictSame(seen, [undefined, { externalId: 's-1', data: {} }, { externalId: 's-1' }])
})

type Fault = 'lost-before' | 'lost-after' | 'lands-late' | 'refused' | 'claim-lost' | 'newer-wish'

void t.test('however the faults fall, the newest wish is the last that happens, and happens once', async (t) => {
  const fault = fc.constantFrom<Fault>('lost-before', 'lost-after', 'lands-late', 'refused', 'claim-lost', 'newer-wish')
  let planned: Fault[] = []
  const { cloud, gateway, session, item, server } = await provisioned(t, (cloud) => ({
    effectTimeoutMs: 60,
    reinstall: async (context, machine, spec) => {
      await context.step('rebuild', {
        run: async () => {
          const next = planned.shift()
          if (next === 'refused') throw new ProviderError('RATE_LIMITED', 'not now')
          if (next === 'lost-before') throw new ProviderError('UNAVAILABLE', 'no answer')
          if (next === 'claim-lost') session.send(item.revoked())
          if (next === 'newer-wish') session.send(wishReinstall(item).changed())
          if (next === 'lands-late' || next === 'claim-lost') await sleep(20)
          cloud.rebuild(machine.externalId, machine.reinstall, spec.bootstrap.userData)
          if (next === 'lost-after' || next === 'lands-late') throw new ProviderError('TIMEOUT', 'no answer')
          return machine.reinstall
        },
        find: () => Promise.resolve(server.reinstalls.includes(machine.reinstall) ? machine.reinstall : undefined),
        timeoutMs: 60,
      })
      return { externalId: machine.externalId, power: 'on' }
    },
  }))
  await fc.assert(
    fc.asyncProperty(fc.array(fault, { maxLength: 4 }), async (faults) => {
      planned = [...faults]
      wishReinstall(item)
      for (let round = 0; item.settledAt !== item.desired.generation; round += 1) {
        if (round > 20) return false
        const { fence } = item
        session.send(item.claimed())
        await until('the claim to end', () => item.outcome !== undefined || item.wasRevoked(fence + 1n))
      }
      const newest = Number(item.desired.reinstalls)
      const times = server.reinstalls.filter((which) => which === newest).length
      return server.reinstalls.at(-1) === newest && times === 1 && item.observed.reinstallsDone === BigInt(newest)
    }),
    { numRuns: 15 },
  )
  t.equal(cloud.servers.size, 1)
  t.equal(gateway.sessions.length, 1)
})

void t.test('a rescue system is a level: it is entered, entered anew after a reboot, and left', async (t) => {
  const entered: string[] = []
  const { session, item, cloud } = await provisioned(t, () => ({
    rescue: (_context, _externalId, wish) => {
      entered.push(wish.enabled ? `enter with ${[...wish.sshKeys, ...wish.sshPublicKeys].join(' ')}` : 'leave')
      return Promise.resolve()
    },
  }))
  t.ok(session.hello.capabilities.includes(Capability.RESCUE))
  session.send(item.wish({ rescue: { revision: 1n, sshKeys: ['ops'] } }).claimed())
  await settled(item)
  t.equal(item.observed.rescue, 1n)
  session.send(item.claimed())
  await settled(item)
  t.same(entered, ['enter with ops'], 'what is so already is not done again')
  session.send(item.wish({ rescue: { revision: 2n, sshKeys: [], sshPublicKeys: ['ssh-ed25519 AAAA'] } }).claimed())
  await settled(item)
  t.same(entered.splice(0), ['enter with ops', 'enter with ssh-ed25519 AAAA'], 'other keys are another wish')
  session.send(item.wish({ reboots: 1n }).claimed())
  await settled(item)
  t.same([cloud.count('reboot'), ...entered.splice(0)], [1, 'enter with ssh-ed25519 AAAA'])
  session.send(item.wish({ power: PowerState.OFF }).claimed())
  await settled(item)
  t.equal(item.observed.rescue, 0n, 'what is off runs nothing')
  session.send(item.wish({ power: PowerState.ON }).claimed())
  await settled(item)
  t.equal(item.observed.rescue, 2n, 'and runs it again once it is on')
  entered.length = 0
  const { rescue: _left, ...rest } = item.desired
  item.desired = rest
  session.send(item.wish({}).claimed())
  await settled(item)
  t.same([item.observed.rescue, ...entered], [0n, 'leave'])
})

void t.test('a reinstall ends the rescue system', async (t) => {
  const { session, item } = await provisioned(t, () => ({ rescue: () => Promise.resolve() }))
  session.send(item.wish({ rescue: { revision: 1n, sshKeys: ['ops'] } }).claimed())
  await settled(item)
  const { rescue: _left, ...rest } = item.desired
  item.desired = rest
  session.send(wishReinstall(item).claimed())
  await settled(item)
  t.match(item.observed, { rescue: 0n, reinstallsDone: 1n })
})
