import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { MachineState, HostState, type Machine } from '@slipway/proto/hub/v1'
import { ProviderKind } from '@slipway/proto/provider/v1'
import { withHub } from '@slipway/hub/testing'
import { defineProvider, type Context, type DiscoveredMachine, type StaticDefinition } from '@slipway/sdk'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import pino from 'pino'
import t, { type Test } from 'tap'

// The life of static machines over the client API of a whole hub, with a provider of the SDK that a test holds in its hand.

interface RackMachine {
  readonly id: string
  power: 'on' | 'off'
  inUse: boolean
  rule: string
  hardware: DiscoveredMachine['hardware']
  /** A wipe goes on by itself until the test says that it is done. */
  wipe: 'none' | 'running' | 'done'
}

type Definition = StaticDefinition<unknown, unknown, unknown>

const shape = { vcpus: 4, memoryMib: 8192, diskGib: 100, diskClass: 'ssd', architecture: 'amd64' }

class TestRack {
  readonly machines = new Map<string, RackMachine>()
  /** Everything that was done to machines. */
  readonly calls: string[] = []
  context: Context<unknown, unknown> | undefined

  add(id: string, over: Partial<RackMachine> = {}): RackMachine {
    const hardware = { serial: `S-${id}`, shape }
    const machine: RackMachine = { id, power: 'off', inUse: false, rule: '', hardware, wipe: 'none', ...over }
    this.machines.set(id, machine)
    return machine
  }

  get(id: string): RackMachine {
    const machine = this.machines.get(id)
    if (machine === undefined) throw new Error(`there is no ${id}`)
    return machine
  }

  definition(capacity: number, clean: (rack: TestRack) => Definition['clean'] = waitingClean): Definition {
    const discover = (context: Context<unknown, unknown>) => {
      this.context = context
      return [...this.machines.values()].map(({ id, power, inUse, rule, hardware }) => ({
        externalId: id,
        power,
        inUse,
        acceptedByRule: rule,
        ...(hardware !== undefined && { hardware }),
      }))
    }
    return {
      family: 'test-rack',
      kind: 'static',
      capacity,
      listIntervalMs: 200,
      async *discover(context) {
        await Promise.resolve()
        yield* discover(context)
      },
      observe: (_context, { externalId }) => Promise.resolve({ externalId, power: this.get(externalId).power }),
      power: (_context, { externalId }, wish) => {
        this.calls.push(`power ${wish} ${externalId}`)
        if (wish !== 'reboot') this.get(externalId).power = wish
        return Promise.resolve()
      },
      provision: (_context, { externalId }) => {
        this.calls.push(`provision ${externalId}`)
        this.get(externalId).power = 'on'
        return Promise.resolve({ externalId, power: 'on' })
      },
      clean: clean(this),
    }
  }
}

/** A wipe that runs on the machine itself. */
function waitingClean(rack: TestRack): Definition['clean'] {
  return async (context, { externalId }) => {
    await context.step('start', () => {
      rack.calls.push(`wipe ${externalId}`)
      rack.get(externalId).wipe = 'running'
      return Promise.resolve(true)
    })
    if (rack.get(externalId).wipe !== 'done')
      await context.wait({ timeoutMs: 600_000, lookAfterMs: 600_000, message: 'the wipe' })
    rack.get(externalId).power = 'off'
  }
}

const cleanAtOnce = (rack: TestRack): Definition['clean'] => {
  return (_context, { externalId }) => {
    rack.calls.push(`wipe ${externalId}`)
    return Promise.resolve()
  }
}

interface Scene {
  readonly client: SlipwayClient
  readonly rack: (
    name: string,
    options?: { readonly accept?: boolean; readonly capacity?: number; readonly clean?: typeof waitingClean },
  ) => Promise<TestRack>
  readonly machine: (externalId: string, provider?: string) => Promise<Machine>
  readonly until: (externalId: string, state: MachineState) => Promise<Machine>
}

async function start(test: Test): Promise<Scene> {
  const { hub, token } = await withHub(test)
  const client = createSlipwayClient({ baseUrl: hub.apiUrl, token })
  const folder = mkdtempSync(join(tmpdir(), 'slipway-life-'))
  test.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const machine: Scene['machine'] = async (externalId, provider) =>
    eventually(`machine ${externalId}`, async () => {
      const { machines } = await client.machines.listMachines({})
      return machines.find(
        (found) => found.externalId === externalId && (provider === undefined || found.provider === provider),
      )
    })
  return {
    client,
    machine,
    until: (externalId, state) =>
      eventually(`${externalId} to be ${MachineState[state]}`, async () => {
        const found = await machine(externalId)
        return found.state === state ? found : undefined
      }),
    rack: async (name, { accept = false, capacity = 4, clean } = {}) => {
      const rack = new TestRack()
      await client.providers.createProvider({
        providerId: name,
        provider: { family: 'test-rack', kind: ProviderKind.STATIC, autoAcceptMachines: accept },
      })
      const { joinToken } = await client.providers.createJoinToken({ provider: `providers/${name}` })
      const stop = new AbortController()
      const running = defineProvider<unknown, unknown, unknown>(rack.definition(capacity, clean)).run({
        gateway: hub.gatewayAddress,
        joinToken,
        stateDir: join(folder, name),
        instanceName: name,
        signal: stop.signal,
        log: pino({ level: 'silent' }),
      })
      test.teardown(async () => {
        stop.abort()
        await running
      })
      return rack
    },
  }
}

async function eventually<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const deadline = performance.now() + 180_000
  for (;;) {
    const found = await look()
    if (found !== undefined) return found
    if (performance.now() > deadline) throw new Error(`in vain waited for ${what}`)
    await sleep(50)
  }
}

async function refusal(call: Promise<unknown>): Promise<SlipwayError> {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

void t.test('machines that work by themselves hold no claim, and call back', async (t) => {
  const { rack: startRack, until } = await start(t)
  const rack = await startRack('r1', { accept: true, capacity: 1 })
  for (const id of ['a', 'b', 'c']) rack.add(id)
  for (const id of ['a', 'b', 'c']) {
    const { waiting } = await until(id, MachineState.CLEAN_WAIT)
    t.match(waiting, { message: 'the wipe' }, 'three wipes go on side by side where one item may be held')
  }
  rack.get('b').wipe = 'done'
  rack.context?.calledBack('b')
  t.equal((await until('b', MachineState.AVAILABLE)).waiting, undefined)
  rack.context?.calledBack('a')
  await until('a', MachineState.CLEAN_WAIT)
  t.strictSame(rack.calls.filter((call) => call.startsWith('wipe')).sort(), ['wipe a', 'wipe b', 'wipe c'], 'each once')
  rack.get('a').wipe = 'done'
  // A machine says it until somebody listens.
  const word = setInterval(() => rack.context?.calledBack('a'), 100)
  await until('a', MachineState.AVAILABLE).finally(() => clearInterval(word))
})

void t.test('a machine that a person holds is left alone, and goes on where it was', async (t) => {
  const { client, rack: startRack, machine, until } = await start(t)
  let begun = 0
  let stopped = 0
  const rack = await startRack('r1', {
    accept: true,
    clean:
      (rack) =>
      async (context, { externalId }) => {
        begun += 1
        await context
          .poll(() => Promise.resolve(rack.get(externalId).wipe === 'done' ? true : undefined), { maxDelayMs: 100 })
          .catch((error: unknown) => {
            stopped += 1
            throw error
          })
      },
  })
  rack.add('a')
  const { name } = await until('a', MachineState.CLEANING)
  await eventually('the wipe to begin', () => Promise.resolve(begun === 1 || undefined))
  t.match(await refusal(client.machines.holdMachine({ name, reason: '' })), { reason: 'INVALID_FIELD' })
  const held = await client.machines.holdMachine({ name, reason: 'a disk is changed' })
  t.match(held.machine, { hold: { reason: 'a disk is changed', bySystem: false, by: /^token\// } })
  await eventually('the wipe to stop', () => Promise.resolve(stopped === 1 || undefined))
  rack.get('a').wipe = 'done'
  await client.machines.setMachineMaintenance({ name, enabled: true, reason: 'two at work' })
  await client.machines.unholdMachine({ name })
  for (let round = 0; round < 10; round++) {
    rack.context?.calledBack('a')
    await sleep(50)
  }
  t.match(await machine('a'), { state: MachineState.CLEANING, maintenance: true, hold: undefined })
  t.equal(begun, 1, 'nothing is begun while either is on')
  await client.machines.setMachineMaintenance({ name, enabled: false })
  t.match(await until('a', MachineState.AVAILABLE), { maintenance: false, maintenanceDetails: undefined })
  const { events } = await client.events.listEvents({ filter: { subject: name } })
  const reasons = events.map(({ reason }) => reason)
  for (const reason of ['MachineHeld', 'MachineUnheld', 'MachineMaintenanceBegun', 'MachineMaintenanceEnded'])
    t.ok(reasons.includes(reason), reason)
})

void t.test('a machine that waits for its next host is off, but for one that is left alone', async (t) => {
  const { client, rack: startRack, until } = await start(t)
  const rack = await startRack('r1', { accept: true, clean: cleanAtOnce })
  rack.add('a')
  const { name } = await until('a', MachineState.AVAILABLE)
  await client.machines.setMachineMaintenance({ name, enabled: true, reason: 'a person switches it on' })
  rack.get('a').power = 'on'
  rack.calls.length = 0
  for (let round = 0; round < 10; round++) {
    rack.context?.calledBack('a')
    await sleep(50)
  }
  t.strictSame(rack.calls, [])
  await client.machines.setMachineMaintenance({ name, enabled: false })
  await eventually('it to be off', () => Promise.resolve(rack.get('a').power === 'off' || undefined))
  rack.get('a').power = 'on'
  const word = setInterval(() => rack.context?.calledBack('a'), 100)
  await eventually('it to be off again', () => Promise.resolve(rack.get('a').power === 'off' || undefined)).finally(
    () => clearInterval(word),
  )
  t.strictSame(rack.calls, ['power off a', 'power off a'])
})

void t.test('a server in use becomes a host untouched, and is let go of by two hands alone', async (t) => {
  const { client, rack: startRack, until, machine } = await start(t)
  const rack = await startRack('r1', { accept: true, clean: cleanAtOnce })
  rack.add('a', { inUse: true, power: 'on' })
  const { name, inUse } = await until('a', MachineState.DISCOVERED)
  t.ok(inUse)
  t.match(await refusal(client.machines.acceptMachine({ name })), { reason: 'MACHINE_IN_USE' })
  const order = { name, parent: 'workspaces/default', hostId: 'web-1', hostname: 'web-1.example.org' }
  const { host } = await client.machines.adoptMachine(order)
  t.match(await client.machines.adoptMachine(order), { host: { uid: host?.uid } }, 'the same again is the same host')
  t.match(await refusal(client.machines.adoptMachine({ ...order, hostId: 'web-2' })), {
    reason: 'MACHINE_STATE_FORBIDS',
  })
  const full = 'workspaces/default/hosts/web-1'
  const ready = await eventually('the host to be READY', async () => {
    const { host } = await client.hosts.getHost({ name: full })
    return host?.state === HostState.READY ? host : undefined
  })
  t.match(ready, { hostname: 'web-1.example.org', protected: true, machine: name })
  t.match(await machine('a'), { state: MachineState.ACTIVE, protected: true, host: full })
  t.strictSame(rack.calls, [], 'nothing was done to it')

  t.match(await refusal(client.hosts.deleteHost({ name: full })), { reason: 'HOST_PROTECTED' })
  await client.hosts.updateHost({ host: { name: full, protected: false }, updateMask: { paths: ['protected'] } })
  t.match(await refusal(client.hosts.deleteHost({ name: full })), { reason: 'MACHINE_PROTECTED' })
  t.strictSame(rack.calls, [])
  await client.machines.updateMachine({ machine: { name, protected: false }, updateMask: { paths: ['protected'] } })
  await client.hosts.deleteHost({ name: full })
  await until('a', MachineState.AVAILABLE)
  t.strictSame(rack.calls, ['power off a', 'wipe a'], 'an ordinary release')
})

void t.test('a host that is let go of before it was adopted costs the machine nothing', async (t) => {
  const { client, rack: startRack, until } = await start(t)
  const rack = await startRack('r1', { clean: cleanAtOnce })
  rack.add('a', { inUse: true, power: 'on' })
  const { name } = await until('a', MachineState.DISCOVERED)
  await client.machines.holdMachine({ name, reason: 'so that nobody looks at it' })
  await client.machines.adoptMachine({ name, parent: 'workspaces/default', hostId: 'web-1' })
  const full = 'workspaces/default/hosts/web-1'
  await client.hosts.updateHost({ host: { name: full, protected: false }, updateMask: { paths: ['protected'] } })
  await client.machines.updateMachine({ machine: { name, protected: false }, updateMask: { paths: ['protected'] } })
  await client.hosts.deleteHost({ name: full })
  t.match(await until('a', MachineState.DISCOVERED), { host: '', machineRequest: '' })
  t.strictSame(rack.calls, [])
})

void t.test('a machine goes under another provider with its host, untouched', async (t) => {
  const { client, rack: startRack, until } = await start(t)
  const [one, other] = [await startRack('r1', { clean: cleanAtOnce }), await startRack('r2', { clean: cleanAtOnce })]
  one.add('a', { inUse: true, power: 'on', hardware: { serial: 'X1', shape } })
  const { name } = await until('a', MachineState.DISCOVERED)
  t.match(await refusal(client.machines.moveMachine({ name, provider: 'providers/r2' })), {
    reason: 'MACHINE_STATE_FORBIDS',
  })
  await client.machines.adoptMachine({ name, parent: 'workspaces/default', hostId: 'web-1' })
  await until('a', MachineState.ACTIVE)
  const move = () => client.machines.moveMachine({ name, provider: 'providers/r2' })
  t.match(await refusal(move()), { reason: 'MACHINE_NOT_SEEN' })
  t.match(await refusal(client.machines.moveMachine({ name, provider: 'providers/none' })), {
    reason: 'PROVIDER_NOT_FOUND',
  })
  other.add('b', { power: 'on', hardware: { serial: 'X1', shape } })
  await until('b', MachineState.DISCOVERED)
  await eventually('nobody to be at work on it', () =>
    move().then(
      () => true,
      () => undefined,
    ),
  )
  t.match(await move(), { machine: { name } }, 'again changes nothing')
  t.match(await until('b', MachineState.ACTIVE), {
    name,
    provider: 'providers/r2',
    host: 'workspaces/default/hosts/web-1',
  })
  await eventually('the host to know', async () => {
    const { host } = await client.hosts.getHost({ name: 'workspaces/default/hosts/web-1' })
    return host?.provider === 'providers/r2' && host.state === HostState.READY ? host : undefined
  })
  t.strictSame([...one.calls, ...other.calls], [], 'neither provider did anything')
  t.match(await refusal(client.machines.setMachinePower({ name, action: 3 })), { reason: 'MACHINE_PROTECTED' })
  await client.machines.updateMachine({ machine: { name, protected: false }, updateMask: { paths: ['protected'] } })
  await client.machines.setMachinePower({ name, action: 3 })
  await eventually('the new provider to serve it', () => Promise.resolve(other.calls.length > 0 || undefined))
  t.strictSame([one.calls, other.calls], [[], ['power reboot b']])
})

void t.test('a rule accepts what is known, and nothing else', async (t) => {
  const { client, rack: startRack, until, machine } = await start(t)
  const rack = await startRack('r1', { clean: cleanAtOnce })
  rack.add('known', { rule: 'blades' })
  const half = rack.add('half', { rule: 'blades', hardware: { shape } })
  rack.add('used', { rule: 'blades', inUse: true })
  rack.add('stranger')
  const accepted = await until('known', MachineState.AVAILABLE)
  const { events } = await client.events.listEvents({
    filter: { subject: accepted.name, reasons: ['MachineAccepted'] },
  })
  t.match(events, [{ message: /rule blades/ }])
  for (const id of ['half', 'used', 'stranger']) t.equal((await machine(id)).state, MachineState.DISCOVERED, id)
  half.hardware = { shape, uuid: '00000000-0000-4000-8000-0000000000aa' }
  await until('half', MachineState.AVAILABLE)
  for (const id of ['used', 'stranger']) t.equal((await machine(id)).state, MachineState.DISCOVERED, id)
})

void t.test(
  'what a provider tells is shown once, counted, and leads to maintenance that it can end itself',
  async (t) => {
    const { client, rack: startRack, until } = await start(t)
    const rack = await startRack('r1', { accept: true, clean: cleanAtOnce })
    rack.add('a')
    const { name } = await until('a', MachineState.AVAILABLE)
    for (let round = 0; round < 50; round++)
      rack.context?.event({
        reason: 'RogueReplayedToken',
        message: '52:54:00:00:00:01: used before',
        severity: 'warning',
      })
    const about = async (subject: string) =>
      (await client.events.listEvents({ filter: { subject, reasons: ['ProviderReported'] } })).events
    const [rogue] = await eventually('the event', async () => {
      const found = (await about('providers/r1')).filter(({ subject }) => subject === 'providers/r1')
      return found[0]?.count === 50n ? found : undefined
    })
    t.match(rogue, { message: 'RogueReplayedToken: 52:54:00:00:00:01: used before', actor: 'providers/r1' })
    rack.context?.event({
      reason: 'RogueReplayedToken',
      message: '52:54:00:00:00:01: used before',
      severity: 'warning',
    })
    await eventually('it to be counted', async () =>
      (await about('providers/r1'))[0]?.count === 51n ? true : undefined,
    )
    rack.context?.event({ externalId: 'nobody', reason: 'PowerContested', message: 'x', maintenance: 'begin' })

    const power = { externalId: 'a', reason: 'PowerContested', message: 'somebody switches it on' }
    const maintained = (wanted: boolean) =>
      eventually(`maintenance to be ${wanted}`, async () => {
        const { machine } = await client.machines.getMachine({ name })
        return machine?.maintenance === wanted ? machine : undefined
      })
    rack.context?.event({ ...power, maintenance: 'begin' })
    t.match(await maintained(true), {
      maintenanceDetails: { bySystem: true, by: 'providers/r1', reason: /PowerContested/ },
    })
    rack.context?.event({ ...power, maintenance: 'end' })
    await maintained(false)
    await client.machines.setMachineMaintenance({ name, enabled: true, reason: 'mine' })
    rack.context?.event({ ...power, message: 'over', maintenance: 'end' })
    await eventually('that to be told', async () =>
      (await about(name)).some(({ message }) => message.endsWith('over')) ? true : undefined,
    )
    t.match(await maintained(true), { maintenanceDetails: { bySystem: false, reason: 'mine' } }, 'a person’s stays')
  },
)
