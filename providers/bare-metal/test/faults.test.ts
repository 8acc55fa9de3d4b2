import { rmSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { machineSpec, TestItem } from '../testing/item.js'
import { machineEntry, Scene, targetOf, until } from '../testing/scene.js'
import type { SimMachine, SimMachineOptions } from '../testing/sim-machine.js'

/** A machine whose wipes and installations take until they are let go. */
function gated(
  scene: Scene,
  id: string,
  options: Partial<SimMachineOptions> = {},
): { readonly machine: SimMachine; readonly letGo: () => void } {
  let ms = 60_000
  const machine = scene.machine(id, { wipeMs: () => ms, installMs: () => ms, ...options })
  // What is under way is cut short by looking anew every moment.
  const slow = machine.wipe.bind(machine)
  machine.wipe = async (authority, signal) => {
    while (ms > 20) {
      await new Promise((resolve) => setTimeout(resolve, 10))
      signal.throwIfAborted()
    }
    return slow(authority, signal)
  }
  const install = machine.install.bind(machine)
  machine.install = async (order, signal) => {
    machine.log(`begins to install for ${order.authority.item}`)
    while (ms > 20) {
      await new Promise((resolve) => setTimeout(resolve, 10))
      signal.throwIfAborted()
    }
    return install(order, signal)
  }
  return { machine, letGo: () => (ms = 20) }
}

const count = (machine: SimMachine, event: string): number =>
  machine.events.filter((each) => each.startsWith(event)).length

async function startScene(t: Test, id: string, options: Partial<SimMachineOptions> = {}) {
  const scene = new Scene(t)
  const { machine, letGo } = gated(scene, id, options)
  const overrides = { machines: [machineEntry(machine)] }
  return { scene, machine, letGo, overrides, provider: await scene.start(overrides) }
}

void t.test('a wipe outlives the provider: whoever comes after waits for the same one', async (t) => {
  const { scene, machine, letGo, overrides, provider } = await startScene(t, 'm1')
  machine.soiledBy = 'somebody'
  const item = new TestItem('machines', 'clean').begin('clean')
  const target = targetOf(item, 'm1')
  const first = provider.claim(item)
  const dead = provider.definition.clean(first.context(), target).catch((error: unknown) => error)
  await until('the wipe to be under way', () => provider.site.desk.status('m1')?.orderId !== undefined)
  // A process that was killed says nothing more: what it would have stored is refused, and it answers nobody.
  await provider.close()
  item.fence += 1n
  first.end('revoked')
  await dead
  const successor = await scene.start(overrides)
  const cleaning = successor.definition.clean(successor.claim(item).context(), target)
  await until('the agent to be heard by the successor', () => successor.site.desk.status('m1') !== undefined)
  letGo()
  await cleaning
  t.match(machine, { soiledBy: undefined, power: 'off', violations: [] })
  t.equal(machine.events.filter((event) => event === 'agent').length, 1, 'one agent')
  t.equal(count(machine, 'wiped'), 1, 'one wipe')
})

void t.test('a successor that knows nothing boots the agent anew, and wipes anew', async (t) => {
  const { scene, machine, letGo, overrides, provider } = await startScene(t, 'm1')
  machine.soiledBy = 'somebody'
  const item = new TestItem('machines', 'clean').begin('clean')
  const target = targetOf(item, 'm1')
  const first = provider.claim(item)
  const dead = provider.definition.clean(first.context(), target).catch((error: unknown) => error)
  await until('the wipe to be under way', () => provider.site.desk.status('m1')?.orderId !== undefined)
  await provider.close()
  item.fence += 1n
  first.end('revoked')
  await dead
  rmSync(join(scene.folder, 'state'), { recursive: true })
  letGo()
  const successor = await scene.start(overrides)
  await successor.definition.clean(successor.claim(item).context(), target)
  t.match(machine, { soiledBy: undefined, power: 'off', violations: [] })
})

void t.test('a process that stood still past its lease wipes nothing that has a host by now', async (t) => {
  const { scene, machine, letGo, provider, overrides } = await startScene(t, 'm1')
  letGo()
  const item = new TestItem('machines', 'clean').begin('clean')
  const target = targetOf(item, 'm1')
  const stale = provider.claim(item)
  // It believes that all is well: its own clock stood still with it.
  stale.paused = true
  provider.power.before = (what) => {
    // The hub gives the item to somebody else in the very moment in which the agent is started.
    if (what.startsWith('on')) item.fence += 1n
  }
  const outcome = await provider.definition.clean(stale.context(), target).then(
    () => 'done',
    (error: Error) => error.name,
  )
  t.equal(outcome, 'Stopped')
  t.equal(count(machine, 'wipe for'), 0, 'the agent asked, and nobody let it begin')
  provider.power.before = () => undefined
  const calls = provider.power.calls.length
  const late = provider.claim(item)
  item.fence += 1n
  late.paused = true
  await t.rejects(provider.definition.power(late.context(), target, 'off'), { name: 'Stopped' })
  t.equal(provider.power.calls.length, calls, 'nor is its power switched')
  await provider.close()
  const successor = await scene.start(overrides)
  const request = new TestItem('machineRequests', 'provision')
  await successor.definition.provision(successor.claim(request).context(), target, machineSpec(request))
  await until('the host to run', () => machine.running === request.key)
  t.same(machine.violations, [])
})

void t.test('an installation that is not wanted any more is broken off', async (t) => {
  const { machine, letGo, provider } = await startScene(t, 'm1')
  const request = new TestItem('machineRequests', 'provision')
  const target = targetOf(request, 'm1')
  const held = provider.claim(request)
  const installing = provider.definition
    .provision(held.context(), target, machineSpec(request))
    .catch((error: Error) => error)
  await until('the installation to begin', () => count(machine, 'begins to install') === 1)
  held.end('changed')
  t.match(await installing, { name: 'Stopped', why: 'changed' })
  await until('the agent to have dropped it', () => machine.results.size > 0 || count(machine, '/agent') > 0)
  letGo()
  t.equal(machine.installed, undefined)
  t.equal(machine.soiledBy, undefined)
})

void t.test('a wipe that failed is said, and not repeated by itself', async (t) => {
  const { machine, letGo, provider } = await startScene(t, 'm1', { wipeFails: () => true })
  letGo()
  machine.soiledBy = 'somebody'
  const item = new TestItem('machines', 'clean')
  await t.rejects(provider.operate(item, 'clean', targetOf(item, 'm1')), {
    retryable: false,
    externalCode: 'wipe-failed',
    message: /data may be left on its disks: sda refuses: sda \(serial SN-m1\)/,
  })
  t.match(machine, { power: 'off', soiledBy: 'somebody' })
  t.equal(count(machine, 'wipe for'), 1)
  t.match(item.last.attributes, { wipe: { outcome: 'failed', disks: [{ name: 'sda', wiped: false }] } })
})

void t.test('a machine whose agent never speaks is started so many times, and given up with a reason', async (t) => {
  const scene = new Scene(t)
  const machine = scene.machine('mute', { endpoints: () => [] })
  const provider = await scene.start({
    machines: [machineEntry(machine)],
    timeouts: { bootMs: 1_000, bootTries: 2, silenceMs: 1_000 },
  })
  const item = new TestItem('machines', 'clean')
  await t.rejects(provider.operate(item, 'clean', targetOf(item, 'mute')), {
    code: 'TIMEOUT',
    message: /started 2 times/,
  })
})

void t.test('a card that moved into another machine does not take its orders along', async (t) => {
  const scene = new Scene(t)
  const machine = scene.machine('old')
  const provider = await scene.start({
    machines: [machineEntry(machine, { serial: 'SN-another' })],
    timeouts: { bootMs: 1_500, bootTries: 1, silenceMs: 1_000 },
  })
  machine.soiledBy = 'its owner'
  const item = new TestItem('machines', 'clean')
  await t.rejects(provider.operate(item, 'clean', targetOf(item, 'old')), { code: 'TIMEOUT' })
  t.match(machine, { soiledBy: 'its owner' })
  t.match(provider.site.boot.rogues.recent, [{ kind: 'identity-mismatch', message: /SN-another/ }])
})
