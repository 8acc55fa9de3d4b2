import { execFileSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { readWorld } from '@slipway/provider-simulated/ledger'
import t, { type Test } from 'tap'
import { root, Slipway, until } from '../tools/processes.js'

// Orphans on a simulated cloud, with real processes: what exists out there under our key and no record owns is found, shown, and removed where policy says so;
// nothing else ever is.

const simulated = 'providers/simulated/dist/src/main.js'
/** Half of it passes before a server exists and half after it: for so long a create is in flight. */
const createLatencyMs = 3_000
const quickCloud = {
  createDuration: 100,
  deleteDuration: 100,
  bootDuration: 100,
  answerTimeoutMs: 200,
  latency: { create: createLatencyMs },
}
const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40, architecture: 'amd64' },
  offerings: [{ family: 'simulated', typeId: 'sim-small' }],
}
const times = { SLIPWAY_ORPHAN_GRACE: '1s', SLIPWAY_ORPHAN_REMOVAL_TIMEOUT: '5s' }

interface OrphanJson {
  readonly name: string
  readonly state: string
  readonly keepReason?: string
  readonly externalId: string
  readonly ownershipKey: string
  readonly sightings: number
  readonly machineRequest?: string
}

class Scene {
  readonly slipway: Slipway
  readonly world: string
  readonly hubId: string

  private constructor(slipway: Slipway, hubId: string) {
    this.slipway = slipway
    this.world = join(slipway.folder, 'world')
    this.hubId = hubId
  }

  static async start(t: Test, config: object = {}): Promise<Scene> {
    const slipway = await Slipway.start(t, times)
    const { hubId } = await slipway.json<{ hubId: string }>('whoami')
    await slipway.addProvider('cloud', 'simulated', 'dynamic', { config: { ...quickCloud, ...config } })
    await slipway.apply(smallClass)
    return new Scene(slipway, hubId)
  }

  async instance(instance: string, env: NodeJS.ProcessEnv = {}) {
    const flags = [
      '--kind',
      'dynamic',
      '--world',
      this.world,
      '--list-interval-ms',
      '200',
      '--effect-timeout-ms',
      '3500',
    ]
    return this.slipway.startProvider('cloud', simulated, flags, { instance, env })
  }

  policy(mode: 'remove' | 'report', ...more: readonly string[]): Promise<string> {
    return this.slipway.ok(
      'provider',
      'orphans',
      'cloud',
      '--mode',
      mode,
      '--min-age',
      '1s',
      '--max-percent',
      '100',
      ...more,
    )
  }

  /** Creates servers behind the back of everybody. @returns their ids. */
  plant(name: string, ownershipKey: string, count = 1): readonly string[] {
    const flags = ['--world', this.world, '--name', name, '--ownership-key', ownershipKey, '--count', String(count)]
    const output = execFileSync(process.execPath, [join(root, simulated), 'plant', ...flags], { encoding: 'utf8' })
    return output.trim().split('\n')
  }

  orphans(): Promise<readonly OrphanJson[]> {
    return this.slipway.json<OrphanJson[]>('get', 'orphans')
  }

  live(): ReadonlySet<string> {
    return new Set(readWorld(this.world).servers.flatMap(({ id, isLive }) => (isLive ? [id] : [])))
  }

  async reasons(): Promise<readonly string[]> {
    const events = await this.slipway.json<{ reason: string }[]>('events')
    return events.map(({ reason }) => reason).filter((reason) => reason.startsWith('Orphan'))
  }
}

void t.test('under REMOVE our orphans go, and nothing else does', { timeout: 300_000 }, async (t) => {
  const scene = await Scene.start(t)
  const { slipway, hubId } = scene
  await scene.instance('one')
  await scene.instance('two')
  await slipway.ok('host', 'order', 'old', '--class', 'small', '--timeout', '60s')
  const { machineRequest = '' } = await slipway.json<{ machineRequest: string }>('get', 'host', 'old')
  await slipway.ok('host', 'release', 'old', '--yes', '--wait', '--timeout', '60s')
  const { ownershipKey } = await slipway.json<{ ownershipKey: string }>('get', 'machinerequest', machineRequest)
  await slipway.ok('host', 'order', 'kept', '--class', 'small', '--timeout', '60s')
  const [host = ''] = scene.live()

  const foreign = [
    ...scene.plant('theirs', `${randomUUID()}/${randomUUID()}`, 30),
    ...scene.plant('kept', '', 10),
    ...scene.plant('old', 'made-by-hand', 10),
  ]
  const ours = [...scene.plant('dead-request', ownershipKey), ...scene.plant('no-record', `${hubId}/${randomUUID()}`)]
  const seen = await until('the orphans to be listed', async () => {
    const orphans = await scene.orphans()
    return orphans.length === ours.length && orphans
  })
  t.strictSame(seen.map(({ externalId }) => externalId).sort(), [...ours].sort())
  t.equal(seen.find(({ ownershipKey: key }) => key === ownershipKey)?.machineRequest, machineRequest)
  // A create is in flight all the while: its server is listed before anybody has said that it exists.
  const order = slipway.ok('host', 'order', 'new', '--class', 'small', '--timeout', '60s')
  await scene.policy('remove')
  await until('our orphans to be gone', () => ours.every((id) => !scene.live().has(id)))
  await until('nothing to be an orphan any more', async () => (await scene.orphans()).length === 0)
  t.match(await order, /READY/)
  const [fresh = ''] = [...scene.live()].filter((id) => id !== host && !foreign.includes(id))
  t.ok(fresh.startsWith('srv'), 'what was in flight is there')
  t.strictSame([...scene.live()].sort(), [host, fresh, ...foreign].sort(), 'and so is all that is not ours')
  const { totals, violations } = readWorld(scene.world)
  t.match(totals, { deletes: 1 + ours.length }, 'the host that was released, and the orphans')
  t.strictSame(violations, [])
  t.strictSame([...new Set(await scene.reasons())].sort(), [
    'OrphanGone',
    'OrphanRemovalOrdered',
    'OrphanRemoved',
    'OrphanSeen',
  ])
})

void t.test('under REPORT they stay, until a person removes or keeps them', { timeout: 300_000 }, async (t) => {
  const scene = await Scene.start(t)
  const { slipway, hubId } = scene
  await scene.instance('one')
  await scene.policy('report')
  const ids = ['one', 'two'].flatMap((name) => scene.plant(name, `${hubId}/${randomUUID()}`))
  const orphans = await until('six sightings of each', async () => {
    const found = await scene.orphans()
    return found.length === 2 && found.every(({ sightings }) => sightings >= 6) && found
  })
  t.ok(orphans.every((orphan) => orphan.keepReason === 'ORPHAN_KEEP_REASON_POLICY_REPORTS'))
  t.strictSame([...scene.live()].sort(), [...ids].sort())
  t.match(await slipway.ok('get', 'orphans'), /POLICY_REPORTS/)
  const [one, two] = orphans
  const short = (orphan: OrphanJson | undefined) => orphan?.name.split('/').at(-1) ?? ''
  t.match(await slipway.ok('describe', 'orphan', short(one)), /OrphanSeen/)

  t.equal((await slipway.cli('orphan', 'remove', short(one))).code, 2, 'not without being asked')
  await slipway.ok('orphan', 'keep', short(two), '--reason', 'evidence')
  await slipway.ok('orphan', 'remove', short(one), '--yes', '--wait', '--timeout', '60s')
  t.notOk(scene.live().has(one?.externalId ?? ''))
  await scene.policy('remove')
  const before = (await scene.orphans())[0]?.sightings ?? 0
  await until('five more sightings', async () => ((await scene.orphans())[0]?.sightings ?? 0) >= before + 5)
  t.match(await scene.orphans(), [{ keepReason: 'ORPHAN_KEEP_REASON_KEPT_BY_PERSON', externalId: two?.externalId }])
  await slipway.ok('orphan', 'unkeep', short(two))
  await until('the other one to go, now that it may', () => scene.live().size === 0)
})

void t.test('a listing that is not read to its end removes nothing', { timeout: 300_000 }, async (t) => {
  // A page a server, each of which may fail: no listing of sixty ever comes to its end.
  const failing = { pageSize: 1, faults: { unavailableRate: 0.6 } }
  const scene = await Scene.start(t, failing)
  const { slipway, hubId } = scene
  await scene.policy('remove', '--max-per-pass', '1000')
  const ids = scene.plant('left', `${hubId}/${randomUUID()}`, 60)
  const instance = await scene.instance('one')
  const failures = () => instance.output().split('looking around failed').length - 1
  await until('eight failed listings', () => failures() >= 8)
  t.strictSame(await scene.orphans(), [])
  t.equal(scene.live().size, ids.length)
  await slipway.apply({ kind: 'Provider', name: 'cloud', config: quickCloud })
  await until('all of them to go, once listings come to their end', () => scene.live().size === 0, 120_000)
})

void t.test('what a killed instance made, and its request was given up meanwhile', { timeout: 300_000 }, async (t) => {
  const scene = await Scene.start(t)
  const { slipway } = scene
  await scene.policy('remove')
  const one = await scene.instance('one', { SLIPWAY_FAILPOINTS: 'sdk.effect.after=kill' })
  await slipway.ok('host', 'order', 'lost', '--class', 'small', '--no-wait')
  await until('the instance to be killed between the effect and its record', () => !one.running)
  const [made = ''] = await until('its server', () => scene.live().size === 1 && [...scene.live()])
  const request = await until('its request to be in doubt', async () => {
    const [found] = await slipway.json<{ name: string; createInDoubt: boolean }[]>('get', 'machinerequests')
    return found?.createInDoubt === true && found
  })
  await slipway.ok('machinerequest', 'forget', request.name, '--reason', 'the instance is lost', '--yes')
  await slipway.ok('host', 'release', 'lost', '--yes')
  await until('no host to be left', async () => (await slipway.json<unknown[]>('get', 'hosts')).length === 0)
  t.ok(scene.live().has(made), 'nobody has looked yet')

  one.start({ SLIPWAY_FAILPOINTS: '' })
  const [orphan] = await until('it to be an orphan', async () => {
    const found = await scene.orphans()
    return found.length === 1 && found
  })
  t.match(orphan, { externalId: made, machineRequest: request.name })
  await until('it to be removed', () => scene.live().size === 0)
  t.match(readWorld(scene.world), { totals: { creates: 1, deletes: 1, live: 0 }, violations: [] })
  await until('no orphan to be left', async () => (await scene.orphans()).length === 0)

  // The same, and the host is released in good order: what was made is found by its key, and no orphan comes of it.
  await one.end('SIGKILL')
  one.start({ SLIPWAY_FAILPOINTS: 'sdk.effect.after=kill' })
  await slipway.ok('host', 'order', 'left', '--class', 'small', '--no-wait')
  await until('the instance to be killed again', () => !one.running)
  await until('the second server', () => scene.live().size === 1)
  await slipway.ok('host', 'release', 'left', '--yes')
  one.start({ SLIPWAY_FAILPOINTS: '' })
  await until('no host to be left', async () => (await slipway.json<unknown[]>('get', 'hosts')).length === 0)
  t.match(readWorld(scene.world), { totals: { creates: 2, deletes: 2, live: 0 }, violations: [] })
  t.strictSame(await scene.orphans(), [])
  t.equal((await scene.reasons()).filter((reason) => reason === 'OrphanRemovalOrdered').length, 1)
})

void t.test('orders survive the hub and the instance that was given them', { timeout: 300_000 }, async (t) => {
  const scene = await Scene.start(t)
  const { slipway, hubId } = scene
  const one = await scene.instance('one', { SLIPWAY_FAILPOINTS: 'sdk.delete.before=kill' })
  await scene.policy('report')
  const [id = ''] = scene.plant('left', `${hubId}/${randomUUID()}`)
  const [orphan] = await until('the orphan', async () => {
    const found = await scene.orphans()
    return found.length === 1 && found
  })
  await slipway.ok('orphan', 'remove', orphan?.name ?? '', '--yes')
  await until('the instance to die at it', () => !one.running)
  await slipway.hub.end('SIGKILL')
  t.ok(scene.live().has(id))
  slipway.hub.start()
  one.start({ SLIPWAY_FAILPOINTS: '' })
  await until('it to be removed all the same', () => !scene.live().has(id))
  await until('no orphan to be left', async () => (await scene.orphans()).length === 0)
})
