import type { Adapter, FaultName, World } from '@slipway/sdk/conformance'
import { keyLabel } from '../src/map.js'
import { FakeCloud, goodToken, otherToken, type Faults } from '../testing/fake-cloud.js'

// The kit's eyes and hands in the cloud: it reads what exists past the provider, and makes things go wrong. Each case has a cloud of its own.

const clouds = new Map<string, FakeCloud>()
const listIntervalMs = 1_000

const faults: Partial<Record<FaultName, Faults>> = {
  none: {},
  capacity: { refuse: 'out_of_stock' },
  quota: { refuse: 'limit_reached' },
  unavailable: { refuse: 'unavailable' },
  'rate-limited': { throttled: true },
  'lost-answer': { breakOff: 'after' },
  'timeout-before': { breakOff: 'before' },
  'create-fails': { fail: true },
  'slow-create': { createMs: 3_000 },
  'slow-delete': { deleteMs: 3_000 },
  'credentials-refused': { lockedOut: true },
  'list-breaks': { listBreaks: true },
}

const adapter: Adapter = {
  describe: () => ({
    family: 'my-cloud',
    kind: 'dynamic',
    order: { typeId: 'small', location: 'here', providerData: { image: 'debian-13' } },
    badOrders: [
      { title: 'a type that does not exist', order: { typeId: 'huge', location: 'here' }, field: 'spec.type_id' },
      { title: 'another location', order: { typeId: 'small', location: 'there' }, field: 'spec.location' },
      {
        title: 'an image that does not exist',
        order: { typeId: 'small', location: 'here', providerData: { image: 'plan9' } },
        field: 'spec.provider_data.image',
      },
    ],
    badConfig: { url: 'no address at all' },
    badCredentials: { token: 'a-token-that-is-bad' },
    otherCredentials: { token: otherToken },
    faults: Object.keys(faults) as FaultName[],
    verbs: ['inject', 'plant', 'vanish'],
    isolated: true,
    failpoints: true,
    listIntervalMs,
    createMs: 20_000,
    notes: ['against the fake cloud of testing/fake-cloud.ts'],
  }),
  setUp: async (world) => {
    const cloud = await FakeCloud.start(keyLabel)
    clouds.set(world.dir, cloud)
    return {
      config: { url: cloud.url },
      credentials: { token: goodToken },
      env: { LIST_INTERVAL_MS: String(listIntervalMs) },
    }
  },
  list: (world) => {
    const cloud = cloudOf(world)
    const things = cloud.live().map(({ id, name, labels, power, reboots }) => ({
      kind: 'server',
      externalId: id,
      name,
      ownershipKey: labels[keyLabel] ?? '',
      power,
      reboots,
    }))
    return { things, calls: cloud.calls, writes: cloud.writes, maxLive: Object.fromEntries(cloud.maxLive) }
  },
  inject: (world, fault) => {
    cloudOf(world).faults = faults[fault] ?? {}
    return {}
  },
  plant: (world, { name, ownershipKey, count = 1 }) =>
    Array.from({ length: count }, (_, index) =>
      cloudOf(world).plant(
        count === 1 ? name : `${name}-${index + 1}`,
        ownershipKey === '' ? {} : { [keyLabel]: ownershipKey },
      ),
    ),
  vanish: (world, externalId) => void cloudOf(world).servers.delete(externalId),
  tearDown: async (world) => {
    await cloudOf(world).stop()
    clouds.delete(world.dir)
  },
}

export default adapter

function cloudOf(world: World): FakeCloud {
  const cloud = clouds.get(world.dir)
  if (cloud === undefined) throw new Error(`there is no cloud for ${world.dir}`)
  return cloud
}
