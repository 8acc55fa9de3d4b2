import { z } from 'zod'

const maxSshKeys = 50
const maxNetworks = 3
const maxFirewalls = 5
const maxVolumes = 16

/** Something of the project, by its name or its id. */
const reference = z.union([z.string().min(1).max(253), z.int().positive()])

export type Reference = z.infer<typeof reference>

const sshKeys = z.array(reference).max(maxSshKeys)
const networks = z.array(reference).max(maxNetworks)
const firewalls = z.array(reference).max(maxFirewalls)

const endpoint = z
  .string()
  .refine(isSafeEndpoint, { error: 'give an https address; http is for addresses of this host alone' })

/** The provider's configuration, as the hub keeps it. */
export const configSchema = z
  .strictObject({
    locations: z
      .array(z.string().min(1).max(63))
      .min(1)
      .optional()
      .meta({ description: 'Locations to offer, as fsn1. Default: all, or those of the network zone.' }),
    networkZone: z
      .string()
      .min(1)
      .max(63)
      .optional()
      .meta({ description: 'Offer the locations of this network zone, as eu-central.' }),
    image: reference.optional().meta({ description: 'For orders that name no image: a name or an id.' }),
    sshKeys: sshKeys.default([]).meta({ description: 'For orders that name none: SSH keys, by name or id.' }),
    networks: networks.default([]).meta({ description: 'For orders that name none: networks, by name or id.' }),
    firewalls: firewalls.default([]).meta({ description: 'For orders that name none: firewalls, by name or id.' }),
    callTimeoutMs: z
      .int()
      .min(100)
      .max(120_000)
      .default(20_000)
      .meta({ description: 'How long one call of the API may take.' }),
    actionTimeoutMs: z
      .int()
      .min(100)
      .max(3_600_000)
      .default(600_000)
      .meta({ description: 'How long to wait for an action, or for a resource that is locked.' }),
    shutdownTimeoutMs: z
      .int()
      .min(0)
      .max(600_000)
      .default(60_000)
      .meta({ description: 'How long a server may take to shut down before it is switched off. 0: off at once.' }),
    endpoint: endpoint
      .default('https://api.hetzner.cloud/v1')
      .meta({ description: 'Where the API is. Another one than the vendor’s is for tests.' }),
  })
  .refine((config) => config.locations === undefined || config.networkZone === undefined, {
    error: 'give locations or a network zone, and not both',
    path: ['networkZone'],
  })

export type Config = z.infer<typeof configSchema>

export const credentialsSchema = z.strictObject({
  apiToken: z
    .string()
    .regex(/^[A-Za-z0-9]{64}$/, { error: 'give the 64 letters and digits of an API token of the project' })
    .meta({ description: 'An API token of the project that may read and write.' }),
})

export type Credentials = z.infer<typeof credentialsSchema>

const address = z.union([z.boolean(), reference])

const volume = z.strictObject({
  sizeGib: z.int().min(10).max(10_240),
  format: z.enum(['ext4', 'xfs']).optional().meta({ description: 'A file system to make on it. Default: none.' }),
  automount: z.boolean().default(false).meta({ description: 'Have it mounted; it needs a format.' }),
})

/** What classes and orders may say beside type and location. */
export const dataSchema = z.strictObject({
  image: reference.optional().meta({ description: 'An image or snapshot, by name or id.' }),
  sshKeys: sshKeys.optional().meta({ description: 'SSH keys of the project, by name or id.' }),
  networks: networks.optional().meta({ description: 'Private networks to be in, by name or id.' }),
  firewalls: firewalls.optional().meta({ description: 'Firewalls to be behind, by name or id.' }),
  placementGroup: reference.optional().meta({ description: 'A placement group, by name or id.' }),
  ipv4: address.default(true).meta({
    description: 'Whether to have a public IPv4 address, or the primary IP to have, by name or id.',
  }),
  ipv6: address.default(true).meta({
    description: 'Whether to have public IPv6 addresses, or the primary IP to have, by name or id.',
  }),
  volumes: z
    .array(volume)
    .max(maxVolumes)
    .default([])
    .meta({ description: 'Volumes that come with the server, and go with it.' }),
  backups: z.boolean().default(false).meta({ description: 'Have the vendor make backups, at a price.' }),
  protected: z
    .boolean()
    .default(false)
    .meta({ description: 'Protect the server from being deleted or rebuilt by others. Releasing it lifts that.' }),
  labels: z
    .record(z.string(), z.string())
    .default({})
    .meta({ description: 'Labels of the server, beside those of its host.' }),
})

export type Data = z.infer<typeof dataSchema>

/** A token must not be sent where others can read it. */
function isSafeEndpoint(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname } = new URL(text)
  return protocol === 'https:' || (protocol === 'http:' && ['127.0.0.1', '[::1]', 'localhost'].includes(hostname))
}
