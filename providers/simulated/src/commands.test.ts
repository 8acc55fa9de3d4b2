import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { runCommand } from './commands.js'
import { readWorld, type WorldReport } from './report.js'
import { hostOrder, openCloud, openRack, serverOrder, tempDir } from './testing/world.js'

const program = fileURLToPath(new URL('./main.js', import.meta.url))
const { signal } = new AbortController()

interface Ended {
  readonly code: number
  readonly out: string
  readonly err: string
}

async function call(args: readonly string[], env: Record<string, string> = {}): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { env: { PATH: process.env['PATH'], ...env }, timeout: 20_000 }
    execFile(process.execPath, [program, ...args], options, (error, out, err) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : error === null ? 0 : -1, out, err })
    })
  })
}

void t.test('ledger prints what a cloud has seen', async (t) => {
  const dir = tempDir(t)
  const { cloud, clock, world } = openCloud(dir, { seed: 1, quotaServers: 2, idempotency: 'none' })
  const id = await cloud.createServer(serverOrder('a'), signal)
  await cloud.createServer(serverOrder('a'), signal)
  await t.rejects(cloud.createServer(serverOrder('b'), signal))
  clock.nowMs += 1_000
  await cloud.deleteServer(id, signal)
  clock.nowMs += 1_000
  await cloud.createServer(serverOrder('b', { simulate: 'stuck' }), signal)
  world.close()

  const { code, out } = await call(['ledger', '--world', dir, '--json'])
  t.equal(code, 0)
  const report = JSON.parse(out) as WorldReport
  t.match(report, {
    kind: 'cloud',
    lines: 6,
    leftovers: { torn: 0, lost: 0 },
    calls: { create: 4, delete: 1 },
    refusals: { 'over-quota': 1 },
    totals: { creates: 3, deletes: 1, live: 2, maxLive: 2, maxLiveByOwner: 2 },
    owners: [
      { ownershipKey: 'hub/a', creates: 2, live: 1, maxLive: 2 },
      { ownershipKey: 'hub/b', creates: 1, live: 1, maxLive: 1 },
    ],
    servers: [{ status: 'gone' }, { status: 'running', isLive: true }, { status: 'creating' }],
    violations: [],
  })
  t.same(report, JSON.parse(JSON.stringify(readWorld(dir))), 'the same as by the library')

  const text = await call(['ledger'], { SLIPWAY_SIMULATED_WORLD: dir })
  t.equal(text.code, 0)
  t.match(text.out, /created 3, deleted 1, vanished 0, phoned home 0, wiped 0/)
  t.match(text.out, /live now 2, at most 2, at most 2 of one owner/)
  t.match(text.out, /refused: over-quota 1/)
})

void t.test('ledger prints what a rack has seen', async (t) => {
  const dir = tempDir(t)
  const { rack, world } = openRack(dir)
  await rack.provision('SIM-0001', hostOrder('a'), signal)
  await t.rejects(rack.wipe('SIM-0001', signal))
  world.close()
  const printed: string[] = []
  t.equal(await runCommand(['ledger', '--world', dir], (text) => printed.push(text)), 0)
  t.match(printed.join(), /machine SIM-0001 {2}power on {2}hub\/a {2}data of hub\/a {2}wiped 0 times/)
  t.match(printed.join(), /VIOLATION in line \d+: wipe-bound/)
  t.equal(await runCommand(['vanish', 'SIM-0001', '--world', dir], () => undefined), 0)
  t.match(readWorld(dir).machines, [{ serial: 'SIM-0001', isThere: false }])
})

void t.test('plant and vanish act behind the back of every provider', async (t) => {
  const dir = tempDir(t)
  const planted = ['plant', '--world', dir, '--name', 'stray', '--ownership-key', 'hub/gone']
  const { code, out } = await call(planted)
  t.equal(code, 0)
  t.match(readWorld(dir).servers, [{ id: out.trim(), name: 'stray', ownershipKey: 'hub/gone', isLive: true }])
  t.equal(await runCommand([...planted, '--type', 'none'], () => undefined), 1)
  t.equal(await runCommand([...planted, '--count', '0'], () => undefined), 2)
  t.equal(await runCommand(['vanish', 'stray', '--world', dir], () => undefined), 0)
  t.match(readWorld(dir), { totals: { live: 0, vanished: 1 }, servers: [{ status: 'vanished' }] })
  const again = await call(['vanish', 'stray', '--world', dir])
  t.equal(again.code, 1)
  t.match(again.err, /has no server stray that lives/)
  const lines: string[] = []
  t.equal(await runCommand([...planted, '--count', '3'], (text) => lines.push(text)), 0)
  const live = readWorld(dir).servers.filter(({ isLive }) => isLive)
  t.same(
    live.map(({ name }) => name),
    ['stray-1', 'stray-2', 'stray-3'],
  )
  t.equal(lines.join(), live.map(({ id }) => id).join('\n'))
})

void t.test('wrong calls say what is wrong, and end with 2; a missing world with 1', async (t) => {
  const [dir, cloudDir] = [tempDir(t), tempDir(t)]
  openCloud(cloudDir).world.close()
  const calls = await Promise.all([
    call(['ledger']),
    call(['ledger', '--world', dir]),
    call(['--kind', 'magic']),
    call(['--api-budget', '0/1']),
    call(['--world', dir]),
    call(['--help']),
    call(['--kind', 'static', '--world', cloudDir, '--gateway', '127.0.0.1:1', '--state-dir', dir]),
  ])
  t.same(
    calls.map(({ code }) => code),
    [2, 1, 2, 2, 2, 0, 1],
  )
  const [noFlag, noWorld, kind, budget, gateway, help, otherKind] = calls
  t.match(noFlag?.err, /--world <folder>/)
  t.match(noWorld?.err, /holds no simulated world/)
  t.match(kind?.err, /dynamic, static/)
  t.match(budget?.err, /as 100\/60000/)
  t.match(gateway?.err, /--gateway/)
  t.match(help?.out, /--listing-lag-ms[^]*--join-token-file/, 'its own flags, and those of the SDK')
  t.match(otherKind?.err, /holds a simulated cloud, not a rack; choose another folder\n$/, 'without a stack trace')
})
