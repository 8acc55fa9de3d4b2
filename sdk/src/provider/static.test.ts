import {
  Capability,
  FailureCode,
  ItemKind,
  Operation,
  PowerState,
  Presence,
  ProviderKind,
} from '@slipway/proto/provider/v1'
import t, { type Test } from 'tap'
import type { TestGateway, TestSession } from '../testing/gateway.js'
import type { TestItem } from '../testing/item.js'
import { readySession, released, settled, startGateway, startProvider } from '../testing/provider.js'
import { until } from '../testing/until.js'
import { defineProvider } from './define.js'
import { ProviderError } from './errors.js'
import type { Claim, Power, StaticDefinition } from './types.js'

type Definition = StaticDefinition<unknown, unknown, unknown>

interface Rack {
  readonly calls: string[]
  power: Power
  readonly gateway: TestGateway
  readonly session: TestSession
}

const machine = {
  machineId: 'b5f0c7f4-0000-4000-8000-000000000000',
  externalId: 'rack-1-slot-4',
  providerData: { bmc: '192.0.2.4' },
}

/** A rack of one machine. */
async function startRack(test: Test, instead: (rack: Rack) => Partial<Definition> = () => ({})): Promise<Rack> {
  const gateway = await startGateway(test)
  const rack = { calls: [] as string[], power: 'off' as Power, gateway }
  const definition: Definition = {
    family: 'test-rack',
    kind: 'static',
    async *discover() {
      await Promise.resolve()
      yield {
        externalId: machine.externalId,
        power: rack.power,
        labels: { rack: 'b12' },
        providerData: machine.providerData,
      }
    },
    observe: () => Promise.resolve({ externalId: machine.externalId, power: rack.power }),
    power: (_context, target, wish) => {
      rack.calls.push(`${wish} ${target.externalId} by ${JSON.stringify(target.providerData['bmc'])}`)
      if (wish !== 'reboot') rack.power = wish
      return Promise.resolve()
    },
    provision: (_context, _machine, spec) => {
      rack.calls.push(`provision ${spec.name}`)
      rack.power = 'on'
      return Promise.resolve({ externalId: machine.externalId, power: 'on' })
    },
    clean: () => {
      rack.calls.push('clean')
      return Promise.resolve()
    },
    ...instead(rack as Rack),
  }
  await startProvider(test, gateway, defineProvider<unknown, unknown, unknown>(definition))
  return Object.assign(rack, { session: await readySession(gateway) })
}

function machineItem(rack: Rack, operation: Operation): TestItem {
  return rack.gateway.item(ItemKind.MACHINE).wish({ operation, machine })
}

void t.test('presents what a rack can do, and what is in it', async (t) => {
  const { session } = await startRack(t, () => ({ inspect: () => Promise.resolve({}) }))
  t.equal(session.hello.kind, ProviderKind.STATIC)
  t.same([...session.hello.capabilities].sort(), [Capability.POWER, Capability.INSPECT, Capability.LIST].sort())
  const inventory = await session.expect('inventory', ({ complete }) => complete)
  t.match(inventory.machines, [
    { externalId: 'rack-1-slot-4', power: PowerState.OFF, labels: { rack: 'b12' }, providerData: { bmc: '192.0.2.4' } },
  ])
})

void t.test('a host is provisioned on the allocated machine, and taken off it', async (t) => {
  const rack = await startRack(t)
  const item = rack.gateway.item().wish({ machine, power: PowerState.ON })
  rack.session.send(item.claimed())
  await settled(item)
  t.same(rack.calls, [`provision ${item.desired.spec?.name}`])
  t.match(item.observed, { presence: Presence.PRESENT, power: PowerState.ON, externalId: 'rack-1-slot-4' })
  rack.session.send(item.wish({ reboots: 1n }).claimed())
  await settled(item)
  t.equal(rack.calls.at(-1), 'reboot rack-1-slot-4 by "192.0.2.4"')
  rack.session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await settled(item)
  t.equal(rack.power, 'off', 'by default, taking the host off is power off')
  t.match(item.observed, { presence: Presence.ABSENT, power: PowerState.OFF })
  rack.session.send(item.claimed())
  await settled(item)
  t.equal(item.observed.presence, Presence.ABSENT, 'what was taken off stays off')
  t.equal(rack.calls.length, 3)
})

void t.test('a host is taken off a machine that is not in the rack any more', async (t) => {
  let isThere = true
  const rack = await startRack(t, (rack) => ({
    observe: () => Promise.resolve(isThere ? { externalId: machine.externalId, power: rack.power } : undefined),
    power: () => Promise.reject(new ProviderError('INTERNAL', 'there is no such machine')),
  }))
  const item = rack.gateway.item().wish({ machine })
  rack.session.send(item.claimed())
  await settled(item)
  isThere = false
  rack.session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await settled(item)
  t.equal(item.observed.presence, Presence.ABSENT, 'missing is success')
  t.same(item.failures, [])
})

void t.test('a host is given a new system on its machine', async (t) => {
  const rack = await startRack(t, (rack) => ({
    reinstall: (_context, { externalId, reinstall }, spec) => {
      rack.calls.push(`reinstall ${reinstall} of ${spec.name}`)
      return Promise.resolve({ externalId })
    },
  }))
  t.ok(rack.session.hello.capabilities.includes(Capability.REINSTALL))
  const item = rack.gateway.item().wish({ machine, power: PowerState.ON })
  rack.session.send(item.claimed())
  await settled(item)
  rack.session.send(item.wish({ operation: Operation.REINSTALL, reinstalls: 1n }).claimed())
  await settled(item)
  t.equal(rack.calls.at(-1), `reinstall 1 of ${item.desired.spec?.name}`)
  t.match(item.observed, { externalId: 'rack-1-slot-4', reinstallsDone: 1n, power: PowerState.ON })
})

void t.test('a provider that can take a host off does so', async (t) => {
  const rack = await startRack(t, (rack) => ({
    deprovision: () => {
      rack.calls.push('deprovision')
      return Promise.resolve()
    },
  }))
  const item = rack.gateway.item().wish({ machine })
  rack.session.send(item.claimed())
  await settled(item)
  rack.session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await settled(item)
  t.same(rack.calls.slice(1), ['deprovision', 'off rack-1-slot-4 by "192.0.2.4"'])
})

void t.test('with an installation in doubt, the host is taken off again once it cannot land any more', async (t) => {
  let installed = false
  const rack = await startRack(t, (rack) => ({
    effectTimeoutMs: 300,
    deprovision: () => {
      rack.calls.push('deprovision')
      installed = false
      return Promise.resolve()
    },
  }))
  const item = rack.gateway.item().wish({ machine })
  item.observed.createInDoubt = true
  rack.session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await until('the first time', () => rack.calls.length === 1)
  installed = true
  await settled(item)
  t.equal(rack.calls.filter((call) => call === 'deprovision').length, 2)
  t.equal(installed, false, 'the wipe that comes next finds nothing that lands behind it')
  t.match(item.observed, { presence: Presence.ABSENT, createInDoubt: false })
})

void t.test('a machine is verified, inspected and cleaned without a host', async (t) => {
  const rack = await startRack(t, (rack) => ({
    verify: () => {
      rack.calls.push('verify')
      return Promise.resolve()
    },
    inspect: async (context) => {
      await context.step('read', () => Promise.resolve(null))
      return { vendor: 'Acme', shape: { vcpus: 8, memoryMib: 32_768, diskGib: 960 }, details: { nics: [1, 2] } }
    },
    clean: () => {
      rack.calls.push('clean')
      rack.power = 'on'
      return Promise.resolve()
    },
  }))
  const item = machineItem(rack, Operation.VERIFY)
  rack.session.send(item.claimed())
  await settled(item)
  rack.session.send(item.wish({ operation: Operation.INSPECT }).claimed())
  await settled(item)
  t.match(item.observed.hardware, {
    vendor: 'Acme',
    shape: { vcpus: 8, memoryMib: 32_768n },
    details: { nics: [1, 2] },
  })
  rack.session.send(item.wish({ operation: Operation.CLEAN, power: PowerState.OFF }).claimed())
  await settled(item)
  t.same(rack.calls, ['verify', 'clean', 'off rack-1-slot-4 by "192.0.2.4"'])
  t.equal(item.observed.power, PowerState.OFF)
  t.same(
    item.completions.map(({ operation }) => operation),
    [Operation.VERIFY, Operation.INSPECT, Operation.CLEAN],
  )
  rack.session.send(item.wish({ operation: Operation.POWER, power: PowerState.ON }).claimed())
  await settled(item)
  t.equal(rack.power, 'on')
  rack.session.send(item.wish({ operation: Operation.UNSPECIFIED, power: PowerState.OFF }).claimed())
  await settled(item)
  t.equal(rack.power, 'off')
})

void t.test('functions that are not there count as done', async (t) => {
  const rack = await startRack(t)
  const item = machineItem(rack, Operation.VERIFY)
  // A new operation each time, as a hub begins it.
  rack.session.send(item.wish({ operation: Operation.INSPECT }).claimed())
  await settled(item)
  rack.session.send(item.wish({ operation: Operation.VERIFY }).claimed())
  await settled(item)
  t.same(rack.calls, [])
  t.equal(item.completions.length, 2)
})

void t.test('a wipe that fails is told and not called done', async (t) => {
  const rack = await startRack(t, () => ({
    clean: () => Promise.reject(new ProviderError('CONFLICT', 'disk sdb refuses')),
  }))
  const item = machineItem(rack, Operation.CLEAN)
  rack.session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ code: FailureCode.CONFLICT, message: 'disk sdb refuses', step: 'clean' }])
  t.same(item.completions, [])
})

void t.test('a machine that is not there any more is told', async (t) => {
  const rack = await startRack(t, () => ({ observe: () => Promise.resolve(undefined) }))
  const item = machineItem(rack, Operation.POWER)
  rack.session.send(item.claimed())
  await released(item)
  t.match(item.failures, [{ message: /not there any more/ }])
})

void t.test('work that somebody else carries out knows its claim, and asks for it again', async (t) => {
  const claims: Claim[] = []
  const left: number[] = []
  let go = (): void => undefined
  const waiting = new Promise<void>((resolve) => (go = resolve))
  const refused: unknown[] = []
  const rack = await startRack(t, () => ({
    clean: async ({ claim }) => {
      if (claim === undefined) throw new Error('work on an item has a claim')
      claims.push(claim)
      left.push(await claim.confirm())
      await waiting
      await claim.confirm().catch((thrown: unknown) => refused.push(thrown))
    },
  }))
  const item = machineItem(rack, Operation.CLEAN)
  rack.session.send(item.claimed())
  await until('the first answer', () => left.length === 1)
  t.match(claims, [
    {
      item: `machines/${item.id}`,
      operation: 'clean',
      generation: item.desired.operationGeneration,
      fence: item.fence,
    },
  ])
  t.equal(claims[0]?.mayAct(), true)
  t.ok((left[0] ?? 0) > 0, 'there is some time to begin')
  rack.session.send(item.revoked())
  await until('the end of the claim', () => claims[0]?.mayAct() === false)
  go()
  await until('the refusal', () => refused.length === 1)
  t.match(refused, [{ name: 'Stopped', why: 'revoked' }], 'a claim that is over confirms nothing')
})
