import type { Bootstrap } from '@slipway/sdk'
import { makeIso } from './iso9660.js'

/** How the guest reaches what listens on this host's loopback: the address that QEMU's user-mode network gives the host. */
export const userNetworkHost = '10.0.2.2'

const loopbackHosts = new Set(['localhost', '127.0.0.1', '0.0.0.0', '[::1]', '[::]'])

/** How often cloud-init tries to phone home; it waits some seconds in between. */
const phoneHomeTries = 100

/** What goes into a NoCloud seed, by file name. */
export interface SeedFiles {
  readonly 'meta-data': string
  readonly 'user-data': string
  readonly 'vendor-data'?: string
}

/**
 * The seed of a machine. It holds the phone-home token: keep it where only the owner can read.
 *
 * Without user-data of its own the machine gets a configuration that phones home. With it, phoning home goes into the vendor-data,
 * which cloud-init merges below the user-data, so that it works whatever format the user-data has.
 *
 * @param hubHost what to put in place of a loopback host in the phone-home addresses; undefined leaves them.
 */
export function seedFiles(name: string, bootstrap: Bootstrap, hubHost: string | undefined): SeedFiles {
  const metaData = metaDataOf(name, bootstrap)
  const phoneHome = phoneHomeConfig(bootstrap, hubHost)
  if (bootstrap.userData === '') return { 'meta-data': metaData, 'user-data': phoneHome ?? '#cloud-config\n{}\n' }
  return {
    'meta-data': metaData,
    'user-data': withReachableHub(bootstrap, hubHost),
    ...(phoneHome !== undefined && { 'vendor-data': phoneHome }),
  }
}

/** JSON is YAML too. cloud-init puts the keys beside those that the user-data brings along. */
function metaDataOf(name: string, { hostname, sshPublicKeys }: Bootstrap): string {
  const keys = sshPublicKeys.length === 0 ? '' : `public-keys: ${JSON.stringify(sshPublicKeys)}\n`
  return `instance-id: ${JSON.stringify(name)}\nlocal-hostname: ${JSON.stringify(hostname || name)}\n${keys}`
}

/** The image of a seed: ISO 9660 labelled `cidata`, as cloud-init looks for it. */
export function seedImage(files: SeedFiles, made: Date): Buffer {
  const contents = Object.entries(files).map(([name, text]) => ({ name, content: Buffer.from(text as string) }))
  return makeIso('cidata', contents, made)
}

/** Puts `hubHost` in place of a loopback host; other addresses, and what is no address, stay as they are. */
export function reachableUrl(url: string, hubHost: string | undefined): string {
  if (hubHost === undefined || !URL.canParse(url)) return url
  const parsed = new URL(url)
  if (!loopbackHosts.has(parsed.hostname)) return url
  parsed.hostname = hubHost.includes(':') ? `[${hubHost}]` : hubHost
  return parsed.toString()
}

function phoneHomeConfig(bootstrap: Bootstrap, hubHost: string | undefined): string | undefined {
  if (bootstrap.phoneHomePathUrl === '') return undefined
  const url = JSON.stringify(reachableUrl(bootstrap.phoneHomePathUrl, hubHost))
  return `#cloud-config\nphone_home:\n  url: ${url}\n  post: [instance_id, hostname, fqdn]\n  tries: ${phoneHomeTries}\n`
}

/** User-data may name the phone-home addresses itself; there they must be such that the guest reaches them. */
function withReachableHub(bootstrap: Bootstrap, hubHost: string | undefined): string {
  let text = bootstrap.userData
  for (const url of [bootstrap.phoneHomePathUrl, bootstrap.phoneHomeUrl]) {
    if (url !== '') text = text.replaceAll(url, reachableUrl(url, hubHost))
  }
  return text
}
