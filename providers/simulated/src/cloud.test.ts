import { readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Cloud, type ServerView } from './cloud.js'
import { cloudRules } from './cloud-state.js'
import { cloudConfigSchema } from './config.js'
import { CloudError } from './errors.js'
import { diceFor } from './dice.js'
import { readWorld } from './report.js'
import { cloudConfig, openCloud, serverOrder, tempDir } from './testing/world.js'
import { World } from './world.js'

const { signal } = new AbortController()
const boot = { hostname: 'web-1', phoneHomeUrl: 'http://127.0.0.1:1/phone-home', token: 'secret-token-0123456789' }

async function all(cloud: Cloud, filter = {}): Promise<ServerView[]> {
  const servers: ServerView[] = []
  for await (const server of cloud.listServers(filter, signal)) servers.push(server)
  return servers
}

void t.test('a server is created, runs, is switched and is gone', async (t) => {
  const { cloud, clock, world } = openCloud(tempDir(t))
  const id = await cloud.createServer(serverOrder('a', { labels: { host: 'h' } }), signal)
  t.match(await cloud.getServer(id, signal), {
    id,
    name: 'a',
    ownershipKey: 'hub/a',
    status: 'creating',
    power: undefined,
    addresses: [],
    labels: { host: 'h' },
    action: { kind: 'create', isRunning: true },
  })
  await t.rejects(cloud.powerServer(id, 'off', signal), { code: 'conflict' }, 'not while it is created')
  clock.nowMs += 1_000
  t.match(await cloud.getServer(id, signal), { status: 'running', power: 'on', action: { isRunning: false } })
  t.equal((await cloud.getServer(id, signal))?.addresses.length, 2)

  await cloud.powerServer(id, 'off', signal)
  t.match(await cloud.getServer(id, signal), { power: 'on', action: { kind: 'power', isRunning: true } })
  clock.nowMs += 1_000
  t.match(await cloud.getServer(id, signal), { status: 'off', power: 'off' })
  await cloud.powerServer(id, 'on', signal)
  clock.nowMs += 1_000
  t.match(await cloud.getServer(id, signal), { status: 'running', power: 'on' })
  await cloud.powerServer(id, 'reboot', signal)
  t.match(await cloud.getServer(id, signal), { power: 'on', action: { isRunning: true } })

  await cloud.deleteServer(id, signal)
  t.match(await cloud.getServer(id, signal), { status: 'deleting', action: { kind: 'delete', isRunning: true } })
  clock.nowMs += 1_000
  t.equal(await cloud.getServer(id, signal), undefined)
  await cloud.deleteServer(id, signal)
  await t.rejects(cloud.powerServer(id, 'on', signal), { code: 'not-found' })
  t.equal(world.ledger.state.live.size, 0, 'forgotten as live, kept as history')
  t.equal(world.ledger.state.servers.size, 1)
})

void t.test('a server is given a new system, and stays', async (t) => {
  const { cloud, clock, world } = openCloud(tempDir(t))
  const id = await cloud.createServer(serverOrder('a', { boot }), signal)
  await t.rejects(cloud.reinstallServer(id, { mark: 1, image: 'debian-12' }, signal), { code: 'conflict' }, 'not yet')
  clock.nowMs += 1_000
  const addresses = (await cloud.getServer(id, signal))?.addresses
  await t.rejects(cloud.reinstallServer(id, { mark: 1, image: 'plan9' }, signal), { code: 'invalid' })
  await cloud.reinstallServer(
    id,
    { mark: 1, image: 'debian-12', boot: { ...boot, token: 'another-token-012345' } },
    signal,
  )
  t.match(await cloud.getServer(id, signal), {
    status: 'reinstalling',
    mark: 1,
    action: { kind: 'reinstall', isRunning: true },
  })
  await t.rejects(
    cloud.reinstallServer(id, { mark: 2, image: 'debian-12' }, signal),
    { code: 'conflict' },
    'one at a time',
  )
  clock.nowMs += 1_000
  t.match(await cloud.getServer(id, signal), { id, status: 'running', power: 'on', image: 'debian-12', addresses })
  const [pending, ...others] = cloudRules.pendingBoots(world.settled(), clock.nowMs)
  t.equal(others.length, 0, 'the boot of the system that is not there any more is not awaited')
  t.equal(world.readSecret(pending?.plan.bootId ?? ''), 'another-token-012345')

  await cloud.reinstallServer(id, { mark: 2, image: 'debian-13', simulate: 'fail' }, signal)
  clock.nowMs += 1_000
  t.match(await cloud.getServer(id, signal), {
    status: 'failed',
    action: { failure: 'the image could not be written' },
  })
  await cloud.reinstallServer(id, { mark: 2, image: 'debian-13', simulate: 'fail' }, signal)
  clock.nowMs += 1_000
  t.match(await cloud.getServer(id, signal), { status: 'running', mark: 2 }, 'what failed once can be done again')
  t.match(readWorld(world.dir).servers, [{ reinstalls: 3, mark: 2, ownershipKey: 'hub/a' }])
})

void t.test('a rescue system lasts until the server starts anew', async (t) => {
  const { cloud, clock, world } = openCloud(tempDir(t))
  const id = await cloud.createServer(serverOrder('a'), signal)
  clock.nowMs += 1_000
  const rescue = () => readWorld(world.dir).servers[0]?.rescue
  await cloud.rescueServer(id, ['ops'], signal)
  t.match(await cloud.getServer(id, signal), { action: { kind: 'power', isRunning: true } }, 'it is restarted')
  t.equal(rescue(), true)
  clock.nowMs += 1_000
  await cloud.powerServer(id, 'reboot', signal)
  t.equal(rescue(), false)
  clock.nowMs += 1_000
  await cloud.rescueServer(id, ['ops'], signal)
  clock.nowMs += 1_000
  await cloud.rescueServer(id, undefined, signal)
  t.equal(rescue(), false)
})

void t.test('what can be had follows from capacity, quota and types', async (t) => {
  const { cloud, clock } = openCloud(tempDir(t), {
    types: [
      { id: 'sim-small', vcpus: 1, memoryMib: 1, diskGib: 1 },
      { id: 'east-only', vcpus: 1, memoryMib: 1, diskGib: 1, locations: ['sim-east'] },
    ],
    capacity: [
      { type: 'sim-small', location: 'sim-east', servers: 1 },
      { location: 'sim-west', servers: 2 },
    ],
    quotaServers: 2,
  })
  const remaining = async () =>
    Object.fromEntries(
      (await cloud.listTypes(signal)).map(({ type, location, remaining }) => [`${type.id} ${location}`, remaining]),
    )
  t.same(await remaining(), { 'sim-small sim-east': 1, 'sim-small sim-west': 2, 'east-only sim-east': 2 })
  const first = await cloud.createServer(serverOrder('a'), signal)
  t.same(await remaining(), { 'sim-small sim-east': 0, 'sim-small sim-west': 1, 'east-only sim-east': 1 })
  await t.rejects(cloud.createServer(serverOrder('b'), signal), { code: 'out-of-capacity' })
  await cloud.createServer(serverOrder('b', { location: 'sim-west' }), signal)
  await t.rejects(cloud.createServer(serverOrder('c', { location: 'sim-west' }), signal), { code: 'over-quota' })
  await cloud.deleteServer(first, signal)
  await t.rejects(cloud.createServer(serverOrder('c'), signal), { code: 'out-of-capacity' }, 'until it is really gone')
  clock.nowMs += 1_000
  await cloud.createServer(serverOrder('c'), signal)
  for (const wrong of [
    { type: 'none' },
    { location: 'moon' },
    { type: 'east-only', location: 'sim-west' },
    { image: 'os2' },
  ])
    await t.rejects(cloud.createServer(serverOrder('d', wrong), signal), { code: 'invalid' })
})

void t.test('a create that is sent twice: by name, by token, and without protection', async (t) => {
  const byName = openCloud(tempDir(t))
  const first = await byName.cloud.createServer(serverOrder('a'), signal)
  await t.rejects(byName.cloud.createServer(serverOrder('a', { ownershipKey: 'other/x' }), signal), {
    code: 'name-taken',
  })
  await byName.cloud.deleteServer(first, signal)
  byName.clock.nowMs += 1_000
  t.not(
    await byName.cloud.createServer(serverOrder('a'), signal),
    first,
    'a name is free again once its server is gone',
  )

  const byToken = openCloud(tempDir(t), { idempotency: 'token' })
  const token = await byToken.cloud.createServer(serverOrder('a'), signal)
  t.equal(await byToken.cloud.createServer(serverOrder('a'), signal), token)
  t.not(await byToken.cloud.createServer(serverOrder('a', { ownershipKey: 'hub/b' }), signal), token)

  const none = openCloud(tempDir(t), { idempotency: 'none' })
  const one = await none.cloud.createServer(serverOrder('a'), signal)
  t.not(await none.cloud.createServer(serverOrder('a'), signal), one)
  t.equal(readWorld(none.world.dir).totals.maxLiveByOwner, 2)
})

void t.test('a listing has pages, filters and a lag', async (t) => {
  const { cloud, clock } = openCloud(tempDir(t), { pageSize: 2, listingLagMs: 5_000 })
  for (const name of ['a', 'b', 'c', 'd', 'e']) await cloud.createServer(serverOrder(name), signal)
  t.same(await all(cloud), [])
  clock.nowMs += 5_000
  const pages: string[] = []
  for await (const { name, id } of cloud.listServers({}, signal)) {
    pages.push(name)
    // What goes while the pages are read makes the reader miss nothing else.
    if (name === 'b') await cloud.deleteServer(id, signal)
    if (name === 'b') clock.nowMs += 1_000
  }
  t.same(pages, ['a', 'b', 'c', 'd', 'e'])
  t.same(
    (await all(cloud, { name: 'c' })).map(({ name }) => name),
    ['c'],
  )
  t.same(
    (await all(cloud, { ownershipKey: 'hub/d' })).map(({ name }) => name),
    ['d'],
  )
  t.same(await all(cloud, { name: 'b' }), [])
})

void t.test('faults that are ordered strike once, at the time they are for', async (t) => {
  const { cloud, clock } = openCloud(tempDir(t), { simulate: { named: 'quota', 'by-host': 'fail' } })
  await t.rejects(cloud.createServer(serverOrder('a', { simulate: 'capacity' }), signal), { code: 'out-of-capacity' })
  await t.rejects(cloud.createServer(serverOrder('named'), signal), { code: 'over-quota' })

  const lost = serverOrder('lost', { simulate: 'lost-answer' })
  await t.rejects(cloud.createServer(lost, signal), { code: 'timeout' })
  const [found] = await all(cloud, { ownershipKey: 'hub/lost' })
  t.equal(found?.name, 'lost', 'it was done all the same')
  await t.rejects(cloud.createServer(lost, signal), { code: 'name-taken' })
  clock.nowMs += 1_000
  await t.rejects(cloud.deleteServer(found?.id ?? '', signal), { code: 'timeout' })
  t.equal((await cloud.getServer(found?.id ?? '', signal))?.status, 'deleting')

  const before = serverOrder('before', { simulate: 'timeout-before' })
  await t.rejects(cloud.createServer(before, signal), { code: 'timeout' })
  t.same(await all(cloud, { name: 'before' }), [])
  await cloud.createServer(before, signal)

  const down = serverOrder('down', { simulate: 'unavailable' })
  await t.rejects(cloud.createServer(down, signal), { code: 'unavailable' })
  await cloud.createServer(down, signal)

  const failing = await cloud.createServer(serverOrder('x', { boot: { ...boot, hostname: 'by-host' } }), signal)
  clock.nowMs += 1_000
  t.match(await cloud.getServer(failing, signal), {
    status: 'failed',
    power: 'off',
    action: { failure: /could not be started/ },
  })
})

void t.test('stuck work ends only where it is asked for again', async (t) => {
  const { cloud, clock } = openCloud(tempDir(t))
  const stuck = await cloud.createServer(serverOrder('a', { simulate: 'stuck' }), signal)
  clock.nowMs += 1_000_000
  t.match(await cloud.getServer(stuck, signal), {
    status: 'creating',
    action: { isRunning: true, runsForMs: 1_000_000 },
  })
  await cloud.retryCreation(stuck, signal)
  clock.nowMs += 1_000
  t.match(await cloud.getServer(stuck, signal), { status: 'running' })
  await cloud.retryCreation(stuck, signal)
  t.match(await cloud.getServer(stuck, signal), { status: 'running' }, 'what runs is not started again')

  const forever = await cloud.createServer(serverOrder('b', { simulate: 'stuck-forever' }), signal)
  await cloud.retryCreation(forever, signal)
  clock.nowMs += 1_000_000
  t.match(await cloud.getServer(forever, signal), { status: 'creating' })
  await cloud.deleteServer(forever, signal)
  clock.nowMs += 1_000
  t.equal(await cloud.getServer(forever, signal), undefined, 'it can be deleted')

  const sticky = await cloud.createServer(serverOrder('c', { simulate: 'stuck-delete' }), signal)
  await cloud.deleteServer(sticky, signal)
  clock.nowMs += 1_000_000
  t.match(await cloud.getServer(sticky, signal), { status: 'deleting' })
  await cloud.deleteServer(sticky, signal)
  clock.nowMs += 1_000
  t.equal(await cloud.getServer(sticky, signal), undefined)
})

void t.test('servers vanish by themselves, and it is written down', async (t) => {
  const { cloud, clock, world } = openCloud(tempDir(t), { faults: { vanishAfterMs: 60_000 } })
  const ids = [
    await cloud.createServer(serverOrder('a', { simulate: 'vanish', vanishAfterMs: 500 }), signal),
    await cloud.createServer(serverOrder('b', { simulate: 'vanish' }), signal),
    await cloud.createServer(serverOrder('c'), signal),
  ]
  clock.nowMs += 1_499
  t.equal((await all(cloud)).length, 3)
  clock.nowMs += 1
  t.same(
    (await all(cloud)).map(({ name }) => name),
    ['b', 'c'],
  )
  t.equal(await cloud.getServer(ids[0] ?? '', signal), undefined)
  clock.nowMs += 60_000
  t.same(
    (await all(cloud)).map(({ name }) => name),
    ['c'],
  )
  const report = readWorld(world.dir)
  t.same(
    report.servers.map(({ status }) => status),
    ['vanished', 'vanished', 'running'],
  )
  t.match(report.totals, { creates: 3, deletes: 0, vanished: 2, live: 1, maxLive: 3, maxLiveByOwner: 1 })
})

void t.test(
  'credentials, outages and the rate limit hold for every call, and for all processes together',
  async (t) => {
    const dir = tempDir(t)
    const { clock, world } = openCloud(dir)
    const limited = cloudConfig({ rateLimit: { limit: 3, windowMs: 1_000 } })
    const [one, two] = [
      new Cloud(world, limited, { apiToken: 'good' }),
      new Cloud(world, limited, { apiToken: 'good' }),
    ]
    await one.listTypes(signal)
    await two.createServer(serverOrder('a'), signal)
    await one.getServer('x', signal)
    clock.nowMs += 400
    await t.rejects(two.getServer('x', signal), { code: 'rate-limited', retryAfterMs: 600 })
    await t.rejects(one.createServer(serverOrder('b'), signal), { code: 'rate-limited' })
    clock.nowMs += 600
    await one.createServer(serverOrder('b'), signal)

    const refused = new Cloud(world, cloudConfig(), { apiToken: 'invalid-token' })
    await t.rejects(refused.listTypes(signal), { code: 'unauthorized' })
    await t.rejects(refused.deleteServer('x', signal), { code: 'unauthorized' })
    const down = new Cloud(world, cloudConfig({ faults: { unavailableRate: 1 } }), { apiToken: 'good' })
    await t.rejects(all(down), { code: 'unavailable' })
    const closed = new Cloud(world, cloudConfig({ faults: { refuseCredentials: true } }), { apiToken: 'good' })
    await t.rejects(closed.createServer(serverOrder('c'), signal), CloudError)
    t.match(readWorld(dir).refusals, { 'rate-limited': 1, unauthorized: 2 })
    t.match(readWorld(dir).calls, { create: 4, delete: 1 })
  },
)

void t.test('an aborted call ends at once with its reason', async (t) => {
  const { world } = openCloud(tempDir(t))
  const slow = cloudConfig({ latency: { create: 60_000, get: 60_000 } })
  const cloud = new Cloud(world, slow, { apiToken: undefined })
  const controller = new AbortController()
  const reason = new Error('no longer wanted')
  const pending = cloud.createServer(serverOrder('a', { boot }), controller.signal)
  controller.abort(reason)
  await t.rejects(pending, reason)
  await t.rejects(cloud.getServer('x', controller.signal), reason)
  t.equal(readWorld(world.dir).totals.creates, 0)
  t.same(readdirSync(join(world.dir, 'secrets')), [], 'its token is not left behind')
})

void t.test('a token is never in the ledger, lies in a file of its own, and goes with its server', async (t) => {
  const dir = tempDir(t)
  const { cloud, clock, world } = openCloud(dir)
  const secrets = join(dir, 'secrets')
  const id = await cloud.createServer(serverOrder('a', { boot }), signal)
  const silent = serverOrder('b', { boot, simulate: 'no-phone-home' })
  await cloud.createServer(silent, signal)
  const [file = '', ...others] = readdirSync(secrets)
  t.same(others, [], 'one that will not phone home keeps no token')
  t.equal(statSync(join(secrets, file)).mode & 0o777, 0o600)
  t.equal(statSync(secrets).mode & 0o777, 0o700)
  t.equal(readFileSync(join(secrets, file), 'utf8'), boot.token)
  t.notMatch(readFileSync(join(dir, 'ledger.jsonl'), 'utf8'), boot.token)
  await cloud.deleteServer(id, signal)
  t.same(readdirSync(secrets), [])

  // A process that died between keeping a token and creating its server leaves a file, which the next one removes in time.
  writeFileSync(join(secrets, 'boot-young'), 'x')
  writeFileSync(join(secrets, 'boot-old'), 'x')
  utimesSync(join(secrets, 'boot-old'), 1, 1)
  new World(dir, cloudRules, { clock: clock.read }).close()
  t.same(readdirSync(secrets), ['boot-young'])
  world.close()
})

void t.test('chance follows from the seed and the count of calls alone', async (t) => {
  const outcomes = async (seed: number) => {
    const { cloud, world } = openCloud(tempDir(t), { seed, faults: { capacityErrorRate: 0.3, lostAnswerRate: 0.3 } })
    const results: string[] = []
    for (let n = 0; n < 40; n++)
      results.push(
        await cloud.createServer(serverOrder(`s-${n}`), signal).then(
          () => 'ok',
          (error: unknown) => (error as CloudError).code,
        ),
      )
    return { results, lost: readWorld(world.dir).lostAnswers }
  }
  const [one, again, other] = [await outcomes(7), await outcomes(7), await outcomes(8)]
  t.same(one, again)
  t.notSame(one, other)
  t.ok(one.results.includes('out-of-capacity') && one.results.includes('ok') && one.lost > 0)
  const dice = Array.from({ length: 2_000 }, (_, n) => diceFor(1, 'x', n))
  const share = dice.filter((die) => die.happens('y', 0.25)).length / dice.length
  t.ok(share > 0.2 && share < 0.3, `a quarter, more or less: ${share}`)
  t.ok(
    dice.every(
      (die) => die.duration('z', { minMs: 3, maxMs: 5 }) >= 3 && die.duration('z', { minMs: 3, maxMs: 5 }) <= 5,
    ),
  )
})

void t.test('a world tells its kind, keeps its seed, and notes its configuration once', (t) => {
  const dir = tempDir(t)
  const { world, config } = openCloud(dir)
  const seed = world.seed(undefined)
  world.noteConfig(config)
  world.noteConfig(config)
  t.equal(world.ledger.seq, 2)
  world.close()
  const again = openCloud(dir)
  t.equal(again.world.seed(undefined), seed)
  t.equal(again.world.seed(5), 5)
  again.world.noteConfig(config)
  t.equal(again.world.ledger.seq, 2)
  again.world.close()
  t.end()
})

void t.test('a configuration that makes no sense is refused by field', (t) => {
  const issues = (config: unknown) =>
    cloudConfigSchema.safeParse(config).error?.issues.map(({ path }) => path.join('.')) ?? []
  t.same(issues({}), [])
  const small = { id: 'a', vcpus: 1, memoryMib: 1, diskGib: 1 }
  t.same(issues({ types: [small, { ...small, locations: ['moon'] }] }), ['types.1.id', 'types.1.locations'])
  t.same(issues({ capacity: [{ type: 'none', location: 'moon', servers: 1 }] }), [
    'capacity.0.type',
    'capacity.0.location',
  ])
  t.same(issues({ latency: { create: { minMs: 5, maxMs: 4 } } }).length, 1)
  t.same(issues({ faults: { lostAnswerRate: 1.5 } }), ['faults.lostAnswerRate'])
  t.same(issues({ typo: 1 }), [''])
  t.end()
})
