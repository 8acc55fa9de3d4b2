import t, { type Test } from 'tap'
import { bmcFailure } from '../../testing/bmc/failure.js'
import { SimulatedFleet } from '../../testing/bmc/fleet.js'
import { until } from '../../testing/bmc/until.js'
import type { PowerEvent, PowerSupervisor } from './driver.js'
import { createPowerSupervisor, type SupervisorOptions } from './supervisor.js'

const { signal } = new AbortController()

interface Scene {
  readonly fleet: SimulatedFleet
  readonly supervisor: PowerSupervisor
  readonly events: readonly PowerEvent[]
  readonly id: (index: number) => string
}

async function scene(
  t: Test,
  count: number,
  options: SupervisorOptions = {},
  network: Parameters<typeof SimulatedFleet.start>[1] = {},
): Promise<Scene> {
  const fleet = await SimulatedFleet.start(count, network)
  const supervisor = createPowerSupervisor({
    ...options,
    rules: { intervalMs: 50, firstBackOffMs: 50, ...options.rules },
    patience: { settleMs: 300, softOffMs: 300, maxPauseMs: 50, ...options.patience },
  })
  const events: PowerEvent[] = []
  supervisor.onEvent((event) => events.push(event))
  const id = (index: number): string => `machine-${index}`
  for (const [index, { settings, secret }] of fleet.members.entries())
    supervisor.add({ id: id(index), settings, secret })
  t.teardown(async () => {
    await supervisor.stop()
    await fleet.close()
  })
  return { fleet, supervisor, events, id }
}

void t.test('power is switched, and read back', async (t) => {
  const { fleet, supervisor, id } = await scene(t, 1)
  const { machine } = fleet.members[0]!.bmc
  machine.faults.powerDelayMs = 60
  await supervisor.switchPower(id(0), 'on', signal)
  t.equal(machine.power, 'on')
  t.equal(supervisor.view(id(0))?.power, 'on')
  await supervisor.setBootOnce(id(0), 'network', 'uefi', signal)
  await supervisor.switchPower(id(0), 'reboot', signal)
  t.same(machine.boots.at(-1), { device: 'network', uefi: true })
  await supervisor.switchPower(id(0), 'soft-off', signal)
  t.same(machine.asked, ['on', 'boot network', 'off', 'on', 'soft-off'])
  machine.switchByHand('on')
  machine.faults.ignoresButton = true
  await supervisor.switchPower(id(0), 'soft-off', signal)
  t.equal(machine.power, 'off', 'an operating system that does not listen loses its power')
  t.match(await supervisor.verify(id(0), signal), { vendor: 'Supermicro' })
})

void t.test('a BMC that accepts and does nothing is found out', async (t) => {
  const { fleet, supervisor, events, id } = await scene(t, 1)
  const { machine } = fleet.members[0]!.bmc
  machine.faults.ignoresPower = true
  t.match(await bmcFailure(supervisor.switchPower(id(0), 'on', signal)), { kind: 'ignored', message: /still off/ })
  t.match(supervisor.view(id(0)), { error: { kind: 'ignored', times: 1 }, power: 'unknown' })
  t.match(events, [{ kind: 'ignored', id: id(0), errorKind: 'ignored' }])
  machine.faults.ignoresPower = false
  await supervisor.switchPower(id(0), 'on', signal)
  t.equal(supervisor.view(id(0))?.error, undefined)
})

void t.test('wanted off and found on is corrected, and told', async (t) => {
  const { fleet, supervisor, events, id } = await scene(t, 3)
  for (const index of [0, 1, 2]) supervisor.setWanted(id(index), 'off')
  supervisor.start()
  await until('all to be read', () => supervisor.views().every(({ power }) => power === 'off'))
  const { machine } = fleet.members[1]!.bmc
  machine.switchByHand('on')
  await until('the correction', () => events.some(({ kind }) => kind === 'corrected'))
  t.equal(machine.power, 'off')
  t.match(
    events.map(({ kind, id: who }) => [kind, who]),
    [
      ['changed-outside', id(1)],
      ['corrected', id(1)],
    ],
  )
})

void t.test('who insists is left alone, until a person says', async (t) => {
  const { fleet, supervisor, events, id } = await scene(t, 1)
  const { machine } = fleet.members[0]!.bmc
  supervisor.setWanted(id(0), 'off')
  supervisor.start()
  for (let round = 1; round <= 3; round += 1) {
    await until('off', () => machine.power === 'off' && supervisor.view(id(0))?.power === 'off')
    machine.switchByHand('on')
    await until('a correction', () => events.filter(({ kind }) => kind === 'corrected').length === round)
  }
  machine.switchByHand('on')
  await until('the end of it', () => supervisor.view(id(0))?.contested === true)
  const asked = machine.asked.length
  const requests = fleet.members[0]!.bmc.requests
  await until('more readings', () => fleet.members[0]!.bmc.requests > requests + 5)
  t.equal(machine.asked.length, asked, 'nobody fights')
  supervisor.resume(id(0))
  await until('the correction', () => machine.power === 'off')
})

void t.test('who watches is asked before a correction, and one that is not allowed does not happen', async (t) => {
  let asked = 0
  let allowed = false
  const mayCorrect = async (): Promise<boolean> => {
    asked += 1
    return allowed
  }
  const { fleet, supervisor, id } = await scene(t, 1, { mayCorrect })
  const { machine } = fleet.members[0]!.bmc
  machine.switchByHand('on')
  supervisor.setWanted(id(0), 'off')
  supervisor.start()
  await until('some questions', () => asked >= 3)
  t.equal(machine.power, 'on')
  allowed = true
  await until('the correction', () => machine.power === 'off')
})

void t.test('corrections have a cap in each pass', async (t) => {
  const { fleet, supervisor, events, id } = await scene(t, 12, {
    rules: { intervalMs: 120_000, correctionsPerPass: 4 },
  })
  for (const [index, { bmc }] of fleet.members.entries()) {
    bmc.machine.switchByHand('on')
    supervisor.setWanted(id(index), 'off')
  }
  const count = (kind: string): number => events.filter((event) => event.kind === kind).length
  supervisor.start()
  await until('all to be judged', () => count('corrected') + count('correction-delayed') === 12)
  t.same([count('corrected'), count('correction-delayed')], [4, 8])
  t.equal(fleet.members.filter(({ bmc }) => bmc.machine.power === 'off').length, 4)
})

void t.test('a hundred BMCs with lost packets, dead ones and refused logins; none delays another', async (t) => {
  const { fleet, supervisor, events, id } = await scene(
    t,
    100,
    { rules: { intervalMs: 300 }, concurrency: 32 },
    { loss: 0.05, seed: 11, settings: { timeoutMs: 150, tries: 8 } },
  )
  const dead = [3, 33, 93]
  for (const index of dead) fleet.members[index]!.bmc.silent = true
  const wrong = fleet.members[50]!
  supervisor.add({ id: id(50), settings: wrong.settings, secret: { ...wrong.secret, password: 'not-this' } })
  const well = fleet.members.flatMap((_, index) => (dead.includes(index) || index === 50 ? [] : [id(index)]))
  supervisor.start()
  await Promise.all(well.map((one) => supervisor.switchPower(one, 'on', signal)))
  await until('all to have been read', () => well.every((one) => supervisor.view(one)?.power === 'on'))
  t.equal(fleet.members.filter(({ bmc }) => bmc.machine.power === 'on').length, 96)
  await until('the dead to be known', () =>
    dead.every((index) => supervisor.view(id(index))?.error?.kind === 'unreachable'),
  )
  await until('the wrong login to be known', () => supervisor.view(id(50))?.error?.kind === 'wrong-password')
  t.notMatch(JSON.stringify(supervisor.views()) + JSON.stringify(events), 'not-this')
  fleet.members[3]!.bmc.silent = false
  await until('the first of the dead to be back', () => supervisor.view(id(3))?.power === 'off')
  t.ok(events.some(({ kind, id: who }) => kind === 'recovered' && who === id(3)))
  supervisor.add({ id: id(50), settings: wrong.settings, secret: wrong.secret })
  await until('the corrected login to work', () => supervisor.view(id(50))?.power === 'off')
  t.ok(fleet.network.lost > 50, `${fleet.network.lost} packets were lost`)
})

void t.test('one BMC is never asked two things at once', async (t) => {
  const { fleet, supervisor, id } = await scene(t, 2)
  supervisor.start()
  let inside = 0
  let most = 0
  const work = Array.from({ length: 20 }, () =>
    supervisor.withDriver(id(0), signal, async (driver, both) => {
      inside += 1
      most = Math.max(most, inside)
      await driver.readPower(both)
      inside -= 1
    }),
  )
  await Promise.all(work)
  t.equal(most, 1)
  t.equal(fleet.members[0]!.bmc.sessions.open, 1)
})

void t.test('removing and stopping log out and end what is under way', async (t) => {
  const { fleet, supervisor, id } = await scene(t, 2)
  supervisor.start()
  await until('both to be read', () => supervisor.views().every(({ power }) => power === 'off'))
  await supervisor.remove(id(0))
  t.equal(fleet.members[0]!.bmc.sessions.open, 0)
  t.same(supervisor.ids(), [id(1)])
  t.throws(() => supervisor.setWanted(id(0), 'on'), { code: 'INVALID_SPEC' })
  fleet.members[1]!.bmc.silent = true
  const waiting = bmcFailure(supervisor.switchPower(id(1), 'on', signal))
  await supervisor.stop()
  t.match(await waiting, { message: /stopped/ })
})
