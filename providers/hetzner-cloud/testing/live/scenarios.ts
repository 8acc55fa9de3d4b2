import assert from 'node:assert/strict'
import { ProviderError, type MachineSpec, type OwnedMachine } from '@slipway/sdk'
import { configSchema, credentialsSchema, type Data } from '../../src/config.js'
import { hetznerCloudProvider } from '../../src/provider.js'
import { FakeWork, machineSpec } from '../work.js'

/** Where and of what the scenarios make their servers: the emulator, the real API, or a tape of it. */
export interface Bench {
  readonly endpoint: string
  readonly token: string
  /** The first half of every ownership key of the run. */
  readonly run: string
  readonly type: string
  readonly image: string
  readonly location: string
}

type Scene = ReturnType<typeof sceneOf>

/** What is tried, by name. The same against whatever a bench stands for; each leaves nothing behind where it ends well. */
export const scenarios: Readonly<Record<string, (bench: Bench) => Promise<void>>> = {
  'a server is checked, made, seen, switched and deleted': async (bench) => {
    const { provider, work, spec, owned } = sceneOf(bench)
    const item = work()
    const order = spec('life')
    await provider.check?.(item.context())
    assert.deepEqual(await provider.validate?.(item.context(), order), [])
    const offer = (await provider.offerings?.(item.context()))?.find(
      ({ typeId, location }) => typeId === bench.type && location === bench.location,
    )
    assert.ok(offer?.price !== undefined && offer.price.hourlyMicros > 0n, 'it has a price')
    const made = await provider.create(item.context(), order)
    assert.equal(made.power, 'on')
    assert.ok((made.addresses?.length ?? 0) >= 1, 'it has an address')
    assert.deepEqual(
      (await owned(order)).map(({ ownershipKey, kind }) => [ownershipKey, kind]),
      [[order.ownershipKey, 'server']],
    )
    for (const [wish, power] of [
      ['off', 'off'],
      ['on', 'on'],
      ['reboot', 'on'],
    ] as const) {
      await provider.power?.(item.context(), made.externalId, wish)
      assert.equal((await provider.observe(item.context(), made.externalId))?.power, power, wish)
    }
    await gone(sceneOf(bench), order, made.externalId)
  },
  'a second create of the same request adopts the first': async (bench) => {
    const scene = sceneOf(bench)
    const order = scene.spec('twice')
    const first = await scene.provider.create(scene.work().context(), order)
    const second = await scene.provider.create(scene.work().context(), order)
    assert.equal(second.externalId, first.externalId)
    await gone(scene, order, first.externalId)
  },
  'a server with a volume leaves neither': async (bench) => {
    const scene = sceneOf(bench)
    const order = scene.spec('disk', { volumes: [{ sizeGib: 10, format: 'ext4', automount: false }] })
    const made = await scene.provider.create(scene.work().context(), order)
    assert.deepEqual((await scene.owned(order)).map(({ kind }) => kind).sort(), ['server', 'volume'])
    await gone(scene, order, made.externalId)
  },
  'what cannot be is refused': async (bench) => {
    const { provider, work, spec } = sceneOf(bench)
    const fieldsOf = async (order: MachineSpec<Data>) =>
      (await provider.validate?.(work().context(), order))?.map(({ field }) => field)
    assert.deepEqual(await fieldsOf(spec('no', { image: 'there-is-no-such-image' })), ['spec.provider_data.image'])
    assert.deepEqual(await fieldsOf({ ...spec('no'), typeId: 'there-is-no-such-type' }), ['spec.type_id'])
    assert.deepEqual(await fieldsOf(spec('no', { sshKeys: ['there-is-no-such-key'] })), [
      'spec.provider_data.sshKeys[0]',
    ])
    await assert.rejects(
      provider.create(work().context(), spec('no', { image: 'there-is-no-such-image' })),
      (thrown) => thrown instanceof ProviderError && thrown.code === 'INVALID_SPEC',
    )
    assert.equal(await provider.observe(work().context(), '1'), undefined, 'what is not there is not there')
  },
}

function sceneOf({ endpoint, token, run, type, image, location }: Bench) {
  const config = configSchema.parse({ endpoint, image, shutdownTimeoutMs: 20_000 })
  const credentials = credentialsSchema.parse({ apiToken: token })
  const settings = { listingLagMs: 5_000, effectTimeoutMs: 60_000, listIntervalMs: 60_000, offeringsIntervalMs: 60_000 }
  const provider = hetznerCloudProvider(settings)
  const work = () => new FakeWork(config, credentials)
  const spec = (name: string, data: Partial<Data> = {}) =>
    machineSpec(`${run}-${name}`, { image, ...data }, { ownershipKey: `${run}/${name}`, typeId: type, location })
  const owned = async ({ ownershipKey: key }: MachineSpec<Data>) => {
    const all: OwnedMachine[] = []
    for await (const each of provider.list(work().context())) if (each.ownershipKey === key) all.push(each)
    return all
  }
  return { provider, work, spec, owned }
}

async function gone({ provider, work, owned }: Scene, order: MachineSpec<Data>, externalId: string): Promise<void> {
  const { ownershipKey, name } = order
  await provider.delete(work().context(), { externalId, ownershipKey, name })
  assert.equal(await provider.observe(work().context(), externalId), undefined)
  assert.deepEqual(await owned(order), [])
  await provider.delete(work().context(), { externalId, ownershipKey, name })
}
