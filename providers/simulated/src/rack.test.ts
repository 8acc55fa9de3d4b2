import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { rackConfigSchema } from './config.js'
import { CloudError } from './errors.js'
import { cloudRules } from './cloud-state.js'
import { Rack } from './rack.js'
import { rackRules } from './rack-state.js'
import { readLines, readWorld } from './report.js'
import { hostOrder, openRack, rackConfig, StillClock, tempDir } from './testing/world.js'
import { World } from './world.js'

const { signal } = new AbortController()
const serial = 'SIM-0001'
const boot = { hostname: 'web-1', phoneHomeUrl: 'http://127.0.0.1:1/phone-home', token: 'secret-token-0123456789' }

void t.test('a host is given a new system on its machine, by another mark and not by the same', async (t) => {
  const { rack, clock, world } = openRack(tempDir(t))
  const order = hostOrder('a')
  await rack.provision('SIM-0001', order, signal)
  clock.nowMs += 1_000
  await rack.provision('SIM-0001', { ...order, mark: 1, image: 'debian-12' }, signal)
  t.match(await rack.getMachine('SIM-0001', signal), { host: { binding: 'hub/a', mark: 1, isInstalling: true } })
  clock.nowMs += 1_000
  await rack.provision('SIM-0001', { ...order, mark: 1, image: 'debian-12' }, signal)
  t.match(await rack.getMachine('SIM-0001', signal), { host: { mark: 1, isInstalling: false } }, 'once for each mark')
  await t.rejects(rack.provision('SIM-0001', hostOrder('b', { mark: 1 }), signal), { code: 'conflict' })
  t.match(readWorld(world.dir).machines, [{ binding: 'hub/a', bindings: [{ binding: 'hub/a' }] }])
})

void t.test('machines are made up or listed, and off', async (t) => {
  const { rack } = openRack(tempDir(t), { machines: 5, machinesPerRack: 2 })
  const machines = await rack.listMachines(signal)
  t.same(
    machines.map(({ serial, labels, model, power }) => [serial, labels['rack'], labels['slot'], model.model, power]),
    [
      ['SIM-0001', 'r01', '1', 'R1', 'off'],
      ['SIM-0002', 'r01', '2', 'R2', 'off'],
      ['SIM-0003', 'r02', '1', 'R1', 'off'],
      ['SIM-0004', 'r02', '2', 'R2', 'off'],
      ['SIM-0005', 'r03', '1', 'R1', 'off'],
    ],
  )
  t.equal(new Set(machines.map(({ address }) => address)).size, 5)
  const listed = openRack(tempDir(t), {
    machines: [{ serial: 'A', model: 'R2', labels: { gpu: 'yes' } }, { serial: 'B' }],
  })
  t.match(await listed.rack.listMachines(signal), [
    { serial: 'A', model: { model: 'R2' }, labels: { gpu: 'yes' } },
    { serial: 'B', model: { model: 'R1' }, labels: {} },
  ])
  t.equal(await listed.rack.getMachine('C', signal), undefined)
  await t.rejects(listed.rack.power('C', 'on', signal), { code: 'not-found' })
})

void t.test('a host comes and goes, the wipe is written down with whose data it removed', async (t) => {
  const { rack, clock, world } = openRack(tempDir(t))
  const view = () => rack.getMachine(serial, signal)
  await rack.wipe(serial, signal)
  t.match(await view(), { power: 'on', wipe: { outcome: 'running' } })
  await rack.wipe(serial, signal)
  clock.nowMs += 1_000
  t.match(await view(), { power: 'off', wipe: { outcome: 'wiped' } })

  await rack.provision(serial, hostOrder('a'), signal)
  t.match(await view(), { power: 'on', host: { binding: 'hub/a', isInstalling: true } })
  clock.nowMs += 1_000
  t.match(await view(), { power: 'on', host: { binding: 'hub/a', isInstalling: false } })
  await rack.provision(serial, hostOrder('a'), signal)
  t.match(await view(), { host: { isInstalling: false } }, 'asked again, it is not installed again')

  await rack.power(serial, 'reboot', signal)
  t.match(await view(), { power: 'on', isPowerSwitching: true })
  await rack.power(serial, 'off', signal)
  clock.nowMs += 1_000
  t.match(await view(), { power: 'off', isPowerSwitching: false })
  await rack.release(serial, 'hub/a', signal)
  await rack.release(serial, 'hub/a', signal)
  t.equal((await view())?.host, undefined)
  t.match(readWorld(world.dir).machines, [{ soiledBy: 'hub/a' }])
  await rack.wipe(serial, signal)
  clock.nowMs += 1_000
  await view()

  const report = readWorld(world.dir)
  t.match(report, {
    kind: 'rack',
    totals: { creates: 1, deletes: 1, live: 0, maxLiveByOwner: 1, wipes: 2 },
    violations: [],
    owners: [{ ownershipKey: 'hub/a', creates: 1, live: 0, maxLive: 1 }],
  })
  t.equal(report.machines[0]?.soiledBy, undefined)
  t.same(
    report.machines[0]?.wipes.map(({ binding }) => binding),
    [undefined, 'hub/a'],
  )
})

void t.test('what must never be asked is refused, and remembered', async (t) => {
  const { rack, clock, world } = openRack(tempDir(t))
  await rack.provision(serial, hostOrder('a'), signal)
  await t.rejects(rack.provision(serial, hostOrder('b'), signal), { code: 'conflict' })
  await t.rejects(rack.wipe(serial, signal), { code: 'conflict' })
  await t.rejects(rack.release(serial, 'hub/b', signal), { code: 'conflict' })
  await rack.release(serial, undefined, signal)
  await t.rejects(rack.provision(serial, hostOrder('b'), signal), { code: 'conflict' })
  await rack.wipe(serial, signal)
  await t.rejects(rack.provision(serial, hostOrder('b'), signal), { code: 'conflict' }, 'not while it is wiped')
  clock.nowMs += 1_000
  await rack.provision(serial, hostOrder('b'), signal)
  t.match(readWorld(world.dir).violations, [
    { what: 'provision-bound', binding: 'hub/b', heldBy: 'hub/a', serial },
    { what: 'wipe-bound', heldBy: 'hub/a' },
    { what: 'release-foreign', binding: 'hub/b', heldBy: 'hub/a' },
    { what: 'provision-unwiped', binding: 'hub/b', heldBy: 'hub/a' },
  ])
  t.equal(readWorld(world.dir).violations.length, 4)
})

void t.test('wipes fail, stick and are interrupted; the data stays until one goes well', async (t) => {
  const { rack, clock, world, config } = openRack(tempDir(t), { simulate: { 'SIM-0002': 'wipe-fail' } })
  const outcome = async (serial: string) => (await rack.getMachine(serial, signal))?.wipe?.outcome
  for (const serial of ['SIM-0001', 'SIM-0002', 'SIM-0003']) {
    await rack.provision(serial, hostOrder(serial), signal)
    await rack.release(serial, undefined, signal)
  }
  await rack.wipe('SIM-0001', signal)
  await rack.power('SIM-0001', 'off', signal)
  clock.nowMs += 5_000
  t.equal(await outcome('SIM-0001'), 'interrupted')
  await rack.wipe('SIM-0002', signal)
  clock.nowMs += 1_000
  t.equal(await outcome('SIM-0002'), 'failed')
  const sticky = new Rack(
    world,
    { ...config, faults: { ...config.faults, stuckActionRate: 1 } },
    { apiToken: undefined },
  )
  await sticky.wipe('SIM-0003', signal)
  clock.nowMs += 1_000_000
  t.equal(await outcome('SIM-0003'), 'running')
  t.same(
    readWorld(world.dir).machines.map(({ soiledBy }) => soiledBy),
    ['hub/SIM-0001', 'hub/SIM-0002', 'hub/SIM-0003'],
  )
  await rack.wipe('SIM-0001', signal)
  await sticky.wipe('SIM-0003', signal)
  clock.nowMs += 1_000
  t.equal(await outcome('SIM-0001'), 'wiped')
  t.equal(await outcome('SIM-0003'), 'wiped')
})

void t.test('installations fail, stick, and are lost with their power; asked again, they start anew', async (t) => {
  const { rack, clock } = openRack(tempDir(t), { simulate: { 'web-9': 'fail' } })
  const host = async (serial: string) => (await rack.getMachine(serial, signal))?.host
  await rack.provision('SIM-0001', hostOrder('a', { boot: { ...boot, hostname: 'web-9' } }), signal)
  clock.nowMs += 1_000
  t.match(await host('SIM-0001'), { failure: /image could not be written/ })
  await rack.provision('SIM-0001', hostOrder('a'), signal)
  clock.nowMs += 1_000
  t.match(await host('SIM-0001'), { isInstalling: false, failure: undefined })

  const stuck = hostOrder('b', { simulate: 'stuck' })
  await rack.provision('SIM-0002', stuck, signal)
  clock.nowMs += 1_000_000
  t.match(await host('SIM-0002'), { isInstalling: true, installsForMs: 1_000_000 })
  await rack.provision('SIM-0002', stuck, signal)
  clock.nowMs += 1_000
  t.match(await host('SIM-0002'), { isInstalling: false })

  await rack.provision('SIM-0003', hostOrder('c'), signal)
  await rack.power('SIM-0003', 'off', signal)
  clock.nowMs += 5_000
  t.match(await host('SIM-0003'), { isInstalling: true })
  await rack.provision('SIM-0003', hostOrder('c'), signal)
  clock.nowMs += 1_000
  t.match(await host('SIM-0003'), { isInstalling: false })
  await t.rejects(rack.provision('SIM-0004', hostOrder('d', { image: 'os2' }), signal), { code: 'invalid' })
})

void t.test('answers are lost, machines do not answer, logins are refused', async (t) => {
  const { rack, world } = openRack(tempDir(t), { simulate: { 'SIM-0002': 'verify-fail', 'SIM-0003': 'unavailable' } })
  await t.rejects(rack.provision(serial, hostOrder('a', { simulate: 'lost-answer' }), signal), { code: 'timeout' })
  t.equal((await rack.getMachine(serial, signal))?.host?.binding, 'hub/a')
  t.same(
    [await rack.verify(serial, signal), await rack.verify('SIM-0002', signal), await rack.verify('none', signal)],
    [true, false, false],
  )
  await t.rejects(rack.power('SIM-0003', 'on', signal), { code: 'unavailable' })
  await rack.power('SIM-0003', 'on', signal)
  t.match(await rack.inspect(serial, signal), { model: { model: 'R1', vcpus: 16 } })
  t.equal(await rack.inspect('none', signal), undefined)
  const refused = new Rack(world, rackConfig(), { apiToken: 'invalid' })
  await t.rejects(refused.ping(signal), CloudError)
})

void t.test('a token lies apart, and goes with its host', async (t) => {
  const dir = tempDir(t)
  const { rack, clock } = openRack(dir)
  const files = () => readdirSync(join(dir, 'secrets')).length
  await rack.provision(serial, hostOrder('a', { boot, simulate: 'stuck' }), signal)
  t.equal(files(), 1)
  clock.nowMs += 1_000
  await rack.provision(serial, hostOrder('a', { boot }), signal)
  t.equal(files(), 1, 'an installation that starts anew has its own')
  await rack.provision(serial, hostOrder('a', { boot }), signal)
  t.equal(files(), 1)
  t.notMatch(readFileSync(join(dir, 'ledger.jsonl'), 'utf8'), boot.token)
  await rack.release(serial, 'hub/a', signal)
  t.equal(files(), 0)
})

void t.test('a folder is one kind of world', (t) => {
  const dir = tempDir(t)
  openRack(dir).world.close()
  t.throws(() => new World(dir, cloudRules), /holds a simulated rack, not a cloud; choose another folder/)
  t.end()
})

void t.test('a configuration that makes no sense is refused by field', (t) => {
  const issues = (machines: unknown) =>
    rackConfigSchema.safeParse({ machines }).error?.issues.map(({ path }) => path.join('.')) ?? []
  t.same(issues([{ serial: 'A' }, { serial: 'A' }]), ['machines.1.serial'])
  t.same(issues([{ serial: 'A', model: 'Z' }]), ['machines.0.model'])
  t.end()
})

void t.test(
  'whatever is asked, in whichever order: one host at a time, a wipe between two, all of it in the ledger',
  async (t) => {
    const machine = fc.constantFrom('SIM-0001', 'SIM-0002')
    const host = fc.constantFrom('a', 'b', 'c')
    const step = fc.oneof(
      fc.record({ kind: fc.constant('provision' as const), machine, host }),
      fc.record({ kind: fc.constant('release' as const), machine, host }),
      fc.record({ kind: fc.constant('wipe' as const), machine }),
      fc.record({
        kind: fc.constant('power' as const),
        machine,
        wish: fc.constantFrom('on' as const, 'off' as const, 'reboot' as const),
      }),
      fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(1, 500, 2_000) }),
      fc.record({ kind: fc.constant('restart' as const) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 50 }), fc.nat(1_000), async (steps, seed) => {
        const dir = tempDir(t)
        const clock = new StillClock()
        const faults = {
          lostAnswerRate: 0.1,
          timeoutBeforeRate: 0.1,
          wipeFailRate: 0.2,
          stuckActionRate: 0.1,
          installFailRate: 0.1,
        }
        const config = rackConfig({ seed, machines: 2, faults })
        let world = new World(dir, rackRules, { clock: clock.read })
        for (const step of steps) {
          const rack = new Rack(world, config, { apiToken: undefined })
          if (step.kind === 'wait') clock.nowMs += step.ms
          else if (step.kind === 'restart') {
            world.close()
            world = new World(dir, rackRules, { clock: clock.read })
          } else await run(rack, step).catch(knownOnly)
        }
        world.close()
        return holdsForRack(dir)
      }),
      { numRuns: 150 },
    )
    t.pass()

    async function run(
      rack: Rack,
      step: { kind: string; machine: string; host?: string; wish?: 'on' | 'off' | 'reboot' },
    ) {
      if (step.kind === 'provision') await rack.provision(step.machine, hostOrder(step.host ?? ''), signal)
      else if (step.kind === 'release') await rack.release(step.machine, `hub/${step.host ?? ''}`, signal)
      else if (step.kind === 'wipe') await rack.wipe(step.machine, signal)
      else await rack.power(step.machine, step.wish ?? 'on', signal)
    }
  },
)

/** Reads the lines alone, with rules of its own. */
function holdsForRack(dir: string): boolean {
  const bound = new Map<string, string>()
  const soiled = new Map<string, string>()
  for (const line of readLines(dir)) {
    if (line.fact === 'machine.provisioned') {
      const before = bound.get(line.serial)
      if (before !== undefined && before !== line.binding) return false
      if (before === undefined && soiled.has(line.serial)) return false
      bound.set(line.serial, line.binding)
      soiled.set(line.serial, line.binding)
    } else if (line.fact === 'machine.released') {
      if (bound.get(line.serial) !== line.binding) return false
      bound.delete(line.serial)
    } else if (line.fact === 'machine.wiped') {
      if (bound.has(line.serial) || soiled.get(line.serial) !== line.binding) return false
      soiled.delete(line.serial)
    }
  }
  const { machines } = readWorld(dir)
  return machines.every(
    ({ serial, binding, soiledBy }) => bound.get(serial) === binding && soiled.get(serial) === soiledBy,
  )
}

function knownOnly(error: unknown): void {
  if (!(error instanceof CloudError)) throw error
}
