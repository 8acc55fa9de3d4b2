import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { root, Slipway, until } from '../tools/processes.js'

// The console of a machine, as its reader meets it: by the command line, over replicas, and over the end and return of a provider.

const simulated = 'providers/simulated/dist/src/main.js'
const quick = { createDuration: 100, bootDuration: 50, deleteDuration: 100, powerDuration: 50 }

interface Reader {
  readonly child: ChildProcess
  readonly text: () => string
  readonly notes: () => string
}

interface HostJson {
  readonly state: string
  readonly machine: string
}

/** A command line that goes on reading until its test ends. */
function read(t: Test, slipway: Slipway, ...args: readonly string[]): Reader {
  const child = spawn(process.execPath, [join(root, 'sdk/bin/slipway.js'), ...args], {
    cwd: root,
    env: { ...process.env, SLIPWAY_CONFIG: join(slipway.folder, 'cli.yaml'), NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [text, notes] = ['', '']
  child.stdout.on('data', (data: Buffer) => (text += data.toString()))
  child.stderr.on('data', (data: Buffer) => (notes += data.toString()))
  t.teardown(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const exit = once(child, 'exit')
    child.kill('SIGKILL')
    await exit
  })
  return { child, text: () => text, notes: () => notes }
}

async function machineOf(slipway: Slipway, host: string): Promise<string> {
  const { machine } = await until(`${host} to be READY`, async () => {
    const seen = await slipway.json<HostJson>('get', 'host', host)
    return seen.state === 'HOST_STATE_READY' ? seen : undefined
  })
  return machine.replace('machines/', '')
}

async function start(t: Test) {
  const slipway = await Slipway.start(t)
  await slipway.addProvider('cloud', 'simulated', 'dynamic', { config: quick })
  const world = ['--kind', 'dynamic', '--world', join(slipway.folder, 'world')]
  const provider = await slipway.startProvider('cloud', simulated, world)
  await slipway.apply({
    kind: 'MachineClass',
    name: 'machineClasses/small',
    shape: { vcpus: 2, memoryMib: '4096' },
    offerings: [{ family: 'simulated' }],
  })
  await slipway.ok('host', 'order', 'a', '--class', 'small', '--no-wait')
  return { slipway, provider, machine: await machineOf(slipway, 'a') }
}

t.setTimeout(400_000)

void t.test('a console is shown, followed, and ended', { timeout: 180_000 }, async (t) => {
  const { slipway, machine } = await start(t)
  const whole = await slipway.ok('machine', 'console', machine)
  t.match(whole, /created as [^]*booting/, 'all of it')
  t.equal(await slipway.ok('machine', 'console', machine, '--tail', '1'), whole.split('\n').at(-1), 'its last line')
  t.equal(await slipway.ok('machine', 'console', machine, '--tail', '0'), '')

  const reader = read(t, slipway, 'machine', 'console', machine, '--follow', '--tail', '1', '--raw')
  await until('the first line', () => reader.text().includes('\r\n'))
  await slipway.ok('machine', 'power', machine, 'reboot', '--wait')
  await until('the reboot on the console', () => reader.text().includes('comes up again'))
  reader.child.kill('SIGINT')
  const [code] = (await once(reader.child, 'exit')) as [number]
  t.equal(code, 130)
  t.equal((await slipway.cli('machine', 'console', 'no-such')).code, 3)
  t.equal((await slipway.cli('machine', 'console', machine, '--tail', 'x')).code, 2)
  t.equal((await slipway.cli('machine', 'console', machine, '-o', 'json')).code, 2)

  const follower = read(t, slipway, 'machine', 'console', machine, '--follow')
  await until('what there is', () => follower.text().includes('comes up again'))
  await slipway.ok('host', 'release', 'a', '--yes', '--wait')
  await until('the end of the console', () => follower.child.exitCode !== null)
  t.equal(follower.child.exitCode, 0, follower.notes())
  t.match(follower.text(), /it is being deleted/)
  t.match(await slipway.cli('machine', 'console', machine), { stderr: /CONSOLE_ABSENT/ })
})

void t.test('a console is read on another replica, over all that may go away', { timeout: 240_000 }, async (t) => {
  const { slipway, provider, machine } = await start(t)
  const second = await slipway.startReplica()
  if (second === undefined) return t.pass('the embedded database serves one hub')
  const reader = read(t, slipway, '--server', second.url, 'machine', 'console', machine, '--follow', '--raw')
  await until('the boot on the console', () => reader.text().includes('login:'), 30_000)
  t.notMatch(slipway.hub.output(), /login:/, 'nothing of it is logged')

  const reboots = () => reader.text().match(/comes up again/g)?.length ?? 0
  await slipway.ok('machine', 'power', machine, 'reboot', '--wait')
  await until('the first reboot', () => reboots() === 1)
  await provider.end('SIGKILL')
  await until('word of the interruption', () => reader.notes().includes('interrupted'))
  provider.start()
  await slipway.ok('machine', 'power', machine, 'reboot', '--wait')
  await until('the second reboot', () => reboots() === 2)
  await slipway.hub.end('SIGKILL')
  slipway.hub.start()
  await until('the hub', async () => (await fetch(`${slipway.url}/readyz`)).ok)
  await slipway.ok('machine', 'power', machine, 'reboot', '--wait')
  await until('the third reboot', () => reboots() === 3)

  const whole = await slipway.ok('machine', 'console', machine, '--raw')
  await until('the end of it', () => reader.text().trim().length >= whole.length)
  t.equal(reader.text().trim(), whole, 'each byte once, and in order')
  t.notMatch(reader.notes(), /can be had no more/, 'no gap')
})
