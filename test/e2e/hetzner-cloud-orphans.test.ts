import { randomUUID } from 'node:crypto'
import { Emulator } from '@slipway/provider-hetzner-cloud/testing'
import t, { type Test } from 'tap'
import { Slipway, until } from '../tools/processes.js'

// What is left behind in a project of the Hetzner Cloud: what carries our hub's key and has no record is found, aged, shown and removed; nothing else ever is.

const provider = 'providers/hetzner-cloud/dist/src/main.js'
const flags = ['--listing-lag-ms', '200', '--effect-timeout-ms', '4000', '--list-interval-ms', '500']
const config = { image: 'debian-12', callTimeoutMs: 2_000, actionTimeoutMs: 20_000, shutdownTimeoutMs: 500 }
const times = { SLIPWAY_ORPHAN_GRACE: '1s', SLIPWAY_ORPHAN_REMOVAL_TIMEOUT: '10s' }

const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40 },
  offerings: [{ family: 'hetzner-cloud', typeId: 'cx22' }],
  bootstrap: { phoneHome: true },
}

interface OrphanJson {
  readonly name: string
  readonly externalId: string
  readonly ownershipKey: string
  readonly sightings: number
  readonly keepReason?: string
}

async function start(t: Test) {
  const emulator = await Emulator.start()
  t.teardown(() => emulator.close())
  const slipway = await Slipway.start(t, times)
  const { hubId } = await slipway.json<{ hubId: string }>('whoami')
  await slipway.addProvider('cloud', 'hetzner-cloud', 'dynamic', {
    config: { ...config, endpoint: emulator.endpoint },
    credentials: { apiToken: emulator.token },
  })
  await slipway.apply(smallClass)
  await slipway.startProvider('cloud', provider, flags)
  const plant = (hub?: string) => {
    const labels = hub === undefined ? {} : { 'slipway/hub': hub, 'slipway/request': randomUUID() }
    return emulator.plant([{ labels }])[0] ?? 0
  }
  const live = () =>
    emulator.ledger
      .live('server')
      .map(({ id }) => id)
      .sort((one, other) => one - other)
  const orphans = () => slipway.json<OrphanJson[]>('get', 'orphans')
  const policy = (mode: string) =>
    slipway.ok('provider', 'orphans', 'cloud', '--mode', mode, '--min-age', '1s', '--max-percent', '100')
  return { emulator, slipway, hubId, plant, live, orphans, policy }
}

t.setTimeout(900_000)

void t.test(
  'what is left behind goes by policy or by order; what is not ours stays',
  { timeout: 600_000 },
  async (t) => {
    const { emulator, slipway, hubId, plant, live, orphans, policy } = await start(t)
    await policy('report')
    await slipway.ok('host', 'order', 'kept', '--class', 'small', '--timeout', '180s')
    const host = live()
    const foreign = [plant(), plant(randomUUID())]
    const ours = [plant(hubId), plant(hubId)]
    const seen = await until('both to be listed, more than once', async () => {
      const found = await orphans()
      return found.length === ours.length && found.every(({ sightings }) => sightings >= 3) && found
    })
    t.strictSame(seen.map(({ externalId }) => Number(externalId)).sort(), [...ours].sort(), 'and nothing else')
    t.ok(seen.every(({ ownershipKey }) => ownershipKey.startsWith(`${hubId}/`)))
    t.ok(seen.every(({ keepReason }) => keepReason === 'ORPHAN_KEEP_REASON_POLICY_REPORTS'))
    t.strictSame(
      live(),
      [...host, ...foreign, ...ours].sort((one, other) => one - other),
      'nothing goes by itself',
    )

    const [first] = seen
    const short = first?.name.split('/').at(-1) ?? ''
    await slipway.ok('orphan', 'remove', short, '--yes', '--wait', '--timeout', '120s')
    t.notOk(live().includes(Number(first?.externalId)), 'one goes on order')
    t.equal(live().length, 4, 'and none with it')
    await policy('remove')
    await until('the other one to go by policy', () => live().length === 3, 120_000)
    await until('none to be left', async () => (await orphans()).length === 0)
    t.strictSame(
      live(),
      [...host, ...foreign].sort((one, other) => one - other),
      'a host and what is not ours',
    )
    const deleted = emulator.ledger.calls.filter(
      ({ method, path }) => method === 'DELETE' && /^\/servers\/\d+$/.test(path),
    )
    t.ok(
      deleted.every(({ path }) => ours.includes(Number(path.split('/').at(-1)))),
      'nobody ever asked to delete anything else',
    )
    t.strictSame(emulator.violations, [])
  },
)
