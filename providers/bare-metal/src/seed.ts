import type { Bootstrap } from '@slipway/sdk'
import type { Seed } from './agent/protocol.js'
import { imageIdOf, type Config, type Data, type ImageConfig } from './config.js'

/** How often cloud-init tries to phone home; it waits some seconds in between. */
const phoneHomeTries = 100

/** The least that cloud-init takes. */
const nothing = '#cloud-config\n{}\n'

/** What a system is told at its first boot, by file name. It may hold secrets. */
export function noCloudFiles(name: string, bootstrap: Bootstrap): ReadonlyMap<string, Buffer> {
  const hostname = bootstrap.hostname || name
  // JSON is YAML too. cloud-init puts the keys beside those that the user-data brings along.
  const keys = bootstrap.sshPublicKeys.length === 0 ? '' : `public-keys: ${JSON.stringify(bootstrap.sshPublicKeys)}\n`
  const metaData = `instance-id: ${JSON.stringify(name)}\nlocal-hostname: ${JSON.stringify(hostname)}\n${keys}`
  const { user, vendor } = userAndVendor(bootstrap)
  return files({ 'meta-data': metaData, 'user-data': user, 'vendor-data': vendor ?? '' })
}

/** The seed that the agent puts on the disk; undefined: the image wants none. */
export function seedFor(kind: ImageConfig['seed'], name: string, bootstrap: Bootstrap): Seed | undefined {
  if (kind === 'none') return undefined
  const contents = kind === 'nocloud' ? noCloudFiles(name, bootstrap) : configDriveFiles(name, bootstrap)
  return {
    label: kind === 'nocloud' ? 'cidata' : 'config-2',
    files: [...contents].map(([path, content]) => ({ path, base64: content.toString('base64') })),
  }
}

/** Why what an order boots has no way to learn of keys that may log in; undefined: it has, or there are none. */
export function keysProblem(
  config: Pick<Config, 'images' | 'netboot'>,
  data: Data,
  { sshPublicKeys }: Pick<Bootstrap, 'sshPublicKeys'>,
): string | undefined {
  if (sshPublicKeys.length === 0) return undefined
  if (data.netboot !== undefined) {
    if (config.netboot[data.netboot]?.args.includes('{{seedUrl}}') !== false) return undefined
    return `netboot class ${data.netboot} names no {{seedUrl}}, so that keys cannot reach it: choose another, or order without them`
  }
  const image = imageIdOf(config, data)
  if (image === undefined || config.images[image]?.seed !== 'none') return undefined
  return `image ${image} takes no seed, so that keys cannot reach it: choose another, or order without them`
}

/** OpenStack's config drive, as cloud-init's ConfigDrive reads it. */
function configDriveFiles(name: string, bootstrap: Bootstrap): ReadonlyMap<string, Buffer> {
  const hostname = bootstrap.hostname || name
  const { user, vendor } = userAndVendor(bootstrap)
  // By name, as OpenStack has them.
  const keys = bootstrap.sshPublicKeys.map((key, index) => [`key-${index}`, key] as const)
  return files({
    'openstack/latest/meta_data.json': JSON.stringify({
      uuid: name,
      name,
      hostname,
      ...(keys.length > 0 && { public_keys: Object.fromEntries(keys) }),
    }),
    'openstack/latest/user_data': user,
    ...(vendor !== undefined && { 'openstack/latest/vendor_data.json': JSON.stringify({ 'cloud-init': vendor }) }),
  })
}

/** Phoning home goes below the order's own user-data where there is some, so that it works whatever format that has. */
function userAndVendor(bootstrap: Bootstrap): { readonly user: string; readonly vendor?: string } {
  const phoneHome =
    bootstrap.phoneHomePathUrl === ''
      ? undefined
      : `#cloud-config\nphone_home:\n  url: ${JSON.stringify(bootstrap.phoneHomePathUrl)}\n  post: [instance_id, hostname, fqdn]\n  tries: ${phoneHomeTries}\n`
  if (bootstrap.userData === '') return { user: phoneHome ?? nothing }
  return { user: bootstrap.userData, ...(phoneHome !== undefined && { vendor: phoneHome }) }
}

function files(contents: Readonly<Record<string, string>>): ReadonlyMap<string, Buffer> {
  return new Map(Object.entries(contents).map(([path, text]) => [path, Buffer.from(text)]))
}
