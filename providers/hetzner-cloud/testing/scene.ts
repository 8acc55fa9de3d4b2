import type { MachineSpec, OwnedMachine } from '@slipway/sdk'
import type { Test } from 'tap'
import { Api, answer } from '../src/api/client.js'
import { configSchema, credentialsSchema, type Data } from '../src/config.js'
import { hetznerCloudProvider } from '../src/provider.js'
import { Emulator, type EmulatorOptions } from './emulator/emulator.js'
import { FakeWork } from './work.js'

export const settings = {
  listingLagMs: 200,
  effectTimeoutMs: 20_000,
  listIntervalMs: 1_000,
  offeringsIntervalMs: 1_000,
}
const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmulatedEmulatedEmulatedEmulatedEmulatedEmul tester'

/** The provider's functions before an emulated project. */
export async function scene(t: Test, options: { emulator?: EmulatorOptions; config?: object; token?: string } = {}) {
  const emulator = await Emulator.start(options.emulator)
  t.teardown(() => emulator.close())
  const config = configSchema.parse({
    endpoint: emulator.endpoint,
    callTimeoutMs: 10_000,
    actionTimeoutMs: 5_000,
    shutdownTimeoutMs: 300,
    ...options.config,
  })
  const credentials = credentialsSchema.parse({ apiToken: options.token ?? emulator.token })
  const provider = hetznerCloudProvider(settings)
  const work = () => new FakeWork(config, credentials)
  const { log } = work().context()
  const api = new Api({ endpoint: emulator.endpoint, token: emulator.token, timeoutMs: 10_000, log }).as('normal')
  const owned = async (): Promise<OwnedMachine[]> => {
    const all: OwnedMachine[] = []
    for await (const each of provider.list(work().context())) all.push(each)
    return all
  }
  const violations = async (spec: MachineSpec<Data>) =>
    Object.fromEntries(
      ((await provider.validate?.(work().context(), spec)) ?? []).map(({ field, description }) => [field, description]),
    )
  return { emulator, provider, work, api, owned, violations }
}

/** Puts into the project what full orders speak of. */
export async function furnish({ api }: Awaited<ReturnType<typeof scene>>) {
  const subnets = [{ type: 'cloud' as const, ip_range: '10.1.0.0/24', network_zone: 'eu-central' }]
  await answer(api.POST('/networks', { body: { name: 'net', ip_range: '10.1.0.0/16', subnets } }))
  await answer(api.POST('/firewalls', { body: { name: 'wall' } }))
  await answer(api.POST('/placement_groups', { body: { name: 'spread', type: 'spread' } }))
  await answer(api.POST('/ssh_keys', { body: { name: 'key', public_key: publicKey } }))
  const ip = { name: 'kept', type: 'ipv4' as const, assignee_type: 'server' as const, location: 'fsn1' }
  await answer(api.POST('/primary_ips', { body: ip }))
}

/** All there is. */
export async function collected<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const all: Item[] = []
  for await (const item of items) all.push(item)
  return all
}
