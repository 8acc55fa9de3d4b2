import { join } from 'node:path'
import { readWorld } from '@slipway/provider-simulated/ledger'
import t, { type Test } from 'tap'
import { root, Slipway, until, type CliResult, type Process } from '../tools/processes.js'
import { spawnSync } from 'node:child_process'

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(900_000)

// Servers that exist already at a simulated cloud become hosts, with real processes that are killed in each step. Nothing that goes wrong before a host is READY may
// cost its server anything.

const simulated = 'providers/simulated/dist/src/main.js'
const quickCloud = { createDuration: 100, deleteDuration: 100, powerDuration: 50, bootDuration: 100 }
const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40, architecture: 'amd64' },
  offerings: [{ family: 'simulated', typeId: 'sim-small' }],
  bootstrap: { phoneHome: true },
}

interface HostJson {
  readonly state: string
  readonly protected?: boolean
  readonly machine?: string
  readonly machineRequest?: string
  readonly lastError?: { readonly code: string; readonly message: string }
}

interface Scene {
  readonly slipway: Slipway
  readonly world: string
  readonly provider: Process
  /** Makes a server behind everybody's back. @returns its id. */
  readonly plant: (name: string, key?: string) => string
  readonly server: (id: string) => ReturnType<typeof readWorld>['servers'][number]
  /** `host adopt`, of a server in the east. */
  readonly adopt: (name: string, id: string, ...more: readonly string[]) => Promise<CliResult>
}

/** A cloud whose hub lets go of leases soon; effects are under way for no longer than a moment. */
async function setScene(t: Test, config: object = {}): Promise<Scene> {
  const slipway = await Slipway.start(t)
  await slipway.addProvider('cloud', 'simulated', 'dynamic', { config: { ...quickCloud, ...config } })
  const world = join(slipway.folder, 'world')
  const args = ['--kind', 'dynamic', '--world', world, '--effect-timeout-ms', '1500']
  const provider = await slipway.startProvider('cloud', simulated, args)
  await slipway.apply(smallClass)
  const plant = (name: string, key?: string): string => {
    const keyed = key === undefined ? [] : ['--ownership-key', key]
    const command = [join(root, simulated), 'plant', '--world', world, '--name', name, ...keyed]
    const planted = spawnSync(process.execPath, command, { encoding: 'utf8' })
    if (planted.status !== 0) throw new Error(planted.stderr)
    return planted.stdout.trim()
  }
  const server = (id: string) => {
    const found = readWorld(world).servers.find((each) => each.id === id)
    if (found === undefined) throw new Error(`the world has no server ${id}`)
    return found
  }
  const adopt = (name: string, id: string, ...more: readonly string[]) =>
    slipway.cli(
      ...['host', 'adopt', name, '--provider', 'cloud', '--id', id, '--class', 'small', '--location', 'sim-east'],
      ...['--timeout', '90s', ...more],
    )
  return { slipway, world, provider, plant, server, adopt }
}

const host = (slipway: Slipway, name: string) => slipway.json<HostJson>('get', 'host', name)

async function release(slipway: Slipway, name: string): Promise<void> {
  await slipway.ok('host', 'protect', name, 'off')
  await slipway.ok('host', 'release', name, '--yes', '--wait', '--timeout', '90s')
}

void t.test('a server that exists becomes a host, untouched, and is one like others from there on', async (t) => {
  const { slipway, world, plant, server, adopt } = await setScene(t)
  const id = plant('legacy')

  await t.test('it is tried first, without any effect', async (t) => {
    const tried = await adopt('db-1', id, '--dry-run')
    t.equal(tried.code, 0, tried.stderr)
    t.equal(server(id).ownershipKey, '')
    t.strictSame(await slipway.json('get', 'hosts'), [])
    const nobody = await adopt('db-1', 'srv-nobody', '--dry-run')
    t.match(nobody, { code: /[1-9]/, stderr: /there is no server srv-nobody/ })
    const elsewhere = await adopt('db-1', id, '--dry-run', '--location', 'sim-west')
    t.match(elsewhere.stderr, /is in sim-east, not in sim-west/)
  })

  await t.test('it is adopted', async (t) => {
    const adopted = await adopt('db-1', id)
    t.equal(adopted.code, 0, adopted.stderr)
    t.match(await host(slipway, 'db-1'), { state: 'HOST_STATE_READY', protected: true, machine: /^machines\// })
    const { machine = '', machineRequest = '' } = await host(slipway, 'db-1')
    t.match(await slipway.json('get', 'machine', machine), { externalId: id, power: 'POWER_STATE_ON' })
    t.match(await slipway.json('get', 'machinerequest', machineRequest), { adoptExternalId: id, externalId: id })
    t.match(server(id), { isLive: true, ownershipKey: /.+\/.+/, name: 'legacy', mark: 0, reinstalls: 0, rescue: false })
    const { calls, totals } = readWorld(world)
    t.match(totals, { creates: 1, deletes: 0 })
    t.strictSame(
      Object.keys(calls).filter((call) => !['create', 'key'].includes(call)),
      [],
      'its key is all that was written',
    )
  })

  await t.test('nobody adopts it twice', async (t) => {
    t.match((await adopt('db-2', id)).stderr, /SERVER_KNOWN|is known to the hub already/)
  })

  await t.test('it is released only on purpose, and is deleted then', async (t) => {
    const refused = await slipway.cli('host', 'release', 'db-1', '--yes')
    t.match(refused.stderr, /protected/)
    t.ok(server(id).isLive)
    await release(slipway, 'db-1')
    t.notOk(server(id).isLive)
  })
})

void t.test('a server that is somebody else’s is refused for good, and stays as it is', async (t) => {
  const { slipway, plant, server, adopt } = await setScene(t)
  const key = '11111111-2222-4333-8444-555555555555/66666666-7777-4888-8999-aaaaaaaaaaaa'
  const id = plant('theirs')
  // It is free when the order is checked, and is not when it is taken up.
  const free = plant('theirs-2', key)
  const refused = await adopt('db-1', free)
  t.match(refused, { code: /[1-9]/, stderr: /ownership key of another/ })
  t.notMatch(refused.stderr, /11111111/, 'whose it is is not told')
  t.match(server(free), { isLive: true, ownershipKey: key })
  t.match(server(id), { isLive: true, ownershipKey: '' })
  t.strictSame(await slipway.json('get', 'hosts'), [])
})

/** Starts a provider anew, to be killed at a moment. */
async function restart(provider: Process, moment: string): Promise<void> {
  if (provider.running) await provider.end('SIGTERM')
  provider.start({ SLIPWAY_FAILPOINTS: `${moment}=kill` })
}

const moments = ['sdk.effect.before', 'sdk.effect.after', 'sdk.report.before', 'sdk.report.after'] as const

void t.test('a provider that is killed in any step adopts the server all the same', async (t) => {
  const { slipway, world, provider, plant, server, adopt } = await setScene(t)
  for (const moment of moments)
    await t.test(moment, async (t) => {
      await restart(provider, moment)
      const name = `db-${moments.indexOf(moment)}`
      const id = plant(name)
      const keyed = readWorld(world).calls['key'] ?? 0
      t.equal((await adopt(name, id, '--no-wait')).code, 0)
      await until('the provider to be killed', () => !provider.running)
      provider.start({ SLIPWAY_FAILPOINTS: '' })
      await slipway.ok('wait', `host/${name}`, '--for', 'ready', '--timeout', '90s')
      t.match(server(id), { isLive: true, ownershipKey: /.+\/.+/, status: 'running' })
      const { totals, calls } = readWorld(world)
      t.equal(totals.deletes, 0)
      t.equal(calls['key'], keyed + 1, 'its key was put on it once')
    })
})

void t.test(
  'a host that is released before it was READY leaves the server alone, whenever its provider is killed',
  async (t) => {
    const { slipway, world, provider, plant, server, adopt } = await setScene(t)
    for (const moment of [...moments, 'sdk.unmark.before', 'sdk.unmark.after'] as const)
      await t.test(moment, async (t) => {
        const isLate = moment.startsWith('sdk.unmark')
        await restart(provider, isLate ? 'sdk.report.before' : moment)
        const id = plant(moment.replaceAll('.', '-'))
        t.equal((await adopt('db-1', id, '--no-wait')).code, 0)
        await until('the provider to be killed', () => !provider.running)
        await slipway.ok('host', 'protect', 'db-1', 'off')
        await slipway.ok('host', 'release', 'db-1', '--yes')
        provider.start({ SLIPWAY_FAILPOINTS: isLate ? `${moment}=kill` : '' })
        if (isLate) {
          await until('the provider to be killed once more', () => !provider.running)
          provider.start({ SLIPWAY_FAILPOINTS: '' })
        }
        await until(
          'the host to be released',
          async () => (await slipway.json<unknown[]>('get', 'hosts')).length === 0,
          90_000,
        )
        t.match(server(id), { isLive: true, ownershipKey: '', status: 'running' })
        const deletes = moment === 'sdk.effect.before' || moment === 'sdk.effect.after' ? 0 : 1
        t.equal(readWorld(world).totals.deletes, deletes, 'nothing but what was READY was ever deleted')
        if (moment !== 'sdk.effect.after') return
        const again = await adopt('db-2', id)
        t.equal(again.code, 0, 'and it can be adopted again')
        t.match(server(id), { isLive: true, ownershipKey: /.+\/.+/ })
        t.match(await host(slipway, 'db-2'), { state: 'HOST_STATE_READY' })
        await release(slipway, 'db-2')
        t.notOk(server(id).isLive)
        t.equal(readWorld(world).totals.deletes, 1)
      })
  },
)

void t.test('answers that are lost cost a server nothing', async (t) => {
  const { slipway, world, plant, server, adopt } = await setScene(t, {
    seed: 7,
    answerTimeoutMs: 100,
    faults: { lostAnswerRate: 0.5 },
  })
  const names = Array.from({ length: 6 }, (_, index) => `db-${index}`)
  const ids = names.map((name) => plant(name))
  for (const [index, name] of names.entries()) t.equal((await adopt(name, ids[index] ?? '', '--no-wait')).code, 0)
  await slipway.ok('wait', ...names.map((name) => `host/${name}`), '--for', 'ready', '--timeout', '120s')
  const keys = new Set(ids.map((id) => server(id).ownershipKey))
  t.equal(keys.size, ids.length, 'each has a key of its own')
  t.match(readWorld(world).totals, { creates: ids.length, deletes: 0 })
})

void t.test('an adoption that fails for good ends in ERROR, is not retried elsewhere, and never deletes', async (t) => {
  const { slipway, world, provider, plant, server, adopt } = await setScene(t)
  const id = plant('legacy')
  await provider.end('SIGKILL')
  await until('the hub to see that', async () => {
    const [seen] = await slipway.json<{ state: string }[]>('get', 'providers')
    return seen?.state === 'PROVIDER_STATE_DISCONNECTED'
  })
  const ordered = await adopt('db-1', id, '--no-wait')
  t.match(ordered, { code: 0, stderr: /was not asked/ })
  spawnSync(process.execPath, [join(root, simulated), 'vanish', 'legacy', '--world', world])
  provider.start({})
  await until('the host to be in ERROR', async () => (await host(slipway, 'db-1')).state === 'HOST_STATE_ERROR')
  t.match(await host(slipway, 'db-1'), { lastError: { code: /INVALID_SPEC/, message: new RegExp(`no server ${id}`) } })
  t.match((await slipway.cli('host', 'retry', 'db-1')).stderr, /release it/)
  await release(slipway, 'db-1')
  t.match(readWorld(world).totals, { creates: 1, deletes: 0 })
  t.equal(server(id).status, 'vanished')
})
