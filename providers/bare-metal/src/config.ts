import { z } from 'zod'
import { parseIpv4, parseNetwork } from './boot/ipv4.js'
import { isUnicastMac, parseMac } from './mac.js'
import { bmcSecretSchema, bmcSettingsSchema, ipmiSettingsSchema, redfishSettingsSchema } from './power/settings.js'

const id = z.string().regex(/^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$/, {
  error: 'use lower-case letters, digits, dots, dashes and underscores, at most 63',
})

/** The name of a file in the provider's own folder: never a path. */
const fileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$/, {
  error: 'give the name of a file in the provider’s folder, without a path',
})

const ipv4 = z.string().refine((text) => parseIpv4(text) !== undefined, { error: 'give an IPv4 address' })

const network = z.string().refine((text) => parseNetwork(text) !== undefined, {
  error: 'give a network as 10.0.0.0/24, without bits beyond its prefix, at most /30',
})

const mac = z
  .string()
  .transform((text) => parseMac(text) ?? '')
  .pipe(z.string().refine((text) => text !== '' && isUnicastMac(text), { error: 'give a MAC address of one machine' }))

const uuid = z
  .string()
  .toLowerCase()
  .regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, { error: 'give a UUID with dashes' })

const labels = z.record(
  z.string().regex(/^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$/),
  z.string().regex(/^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/),
)

const port = z.int().min(0).max(65_535)
const durationMs = (defaultMs: number, minMs = 1_000, maxMs = 7 * 24 * 3_600_000) =>
  z.int().min(minMs).max(maxMs).default(defaultMs)

const proxyDhcp = z.strictObject({ mode: z.literal('proxy') })
const serviceDhcp = z.strictObject({ mode: z.literal('pxe-service') })
const noDhcp = z.strictObject({ mode: z.literal('off') })
const fullDhcp = z.strictObject({
  mode: z.literal('full'),
  network: network.meta({ description: 'The provisioning network, as 10.0.0.0/24.' }),
  from: ipv4.meta({ description: 'First address of the pool.' }),
  to: ipv4.meta({ description: 'Last address of the pool.' }),
  router: ipv4.optional(),
  dns: z.array(ipv4).max(8).default([]),
  leaseMs: durationMs(600_000, 60_000),
  reservations: z.record(z.string(), ipv4).default({}).meta({ description: 'Addresses by MAC.' }),
  addressKnown: z.boolean().default(false).meta({
    description: 'Give machines that are known an address also while they may not boot, as their hosts need.',
  }),
})

const boot = z.strictObject({
  address: ipv4.meta({ description: 'The provider’s own address in the segment of its machines.' }),
  port: port.default(8080).meta({ description: 'HTTP. 0: any that is free.' }),
  tftpPort: port.default(69).meta({ description: 'TFTP. 0: any that is free; firmware asks at 69 alone.' }),
  tls: z
    .strictObject({ port: port.default(8443) })
    .optional()
    .meta({ description: 'Serve agents over TLS alone, with tls/cert.pem and tls/key.pem of the provider’s folder.' }),
  dhcp: z.discriminatedUnion('mode', [proxyDhcp, serviceDhcp, fullDhcp, noDhcp]).default({ mode: 'proxy' }).meta({
    description:
      'proxy: beside the site’s DHCP server. pxe-service: that one names us as boot server (port 4011). full: a network of our own. off: the site’s server says itself what to boot.',
  }),
  console: z
    .string()
    .regex(/^[A-Za-z0-9,]{1,32}$/)
    .optional()
    .meta({ description: 'The agent’s console, as ttyS0,115200.' }),
  kernelArgs: z
    .string()
    .max(512)
    .regex(/^[\x20-\x7e]*$/)
    .refine((text) => !/\$\{|(^| )slipway\./.test(text), {
      error: 'iPXE’s settings and the agent’s own cannot stand here',
    })
    .default('')
    .meta({ description: 'More arguments for the agent’s kernel, as the machines of the site need them.' }),
})

const hexSha256 = z.string().regex(/^[0-9a-f]{64}$/, { error: 'give the SHA-256 in lower-case hexadecimal' })
const webAddress = z
  .string()
  .max(2048)
  .regex(/^https?:\/\/[\x21-\x7e]+$/, { error: 'give an http or https address' })

const image = z
  .strictObject({
    file: fileName.optional().meta({ description: 'A file of images/ in the provider’s folder.' }),
    url: webAddress.optional().meta({ description: 'Or an address that the machine itself fetches it from.' }),
    format: z.enum(['raw', 'qcow2']),
    compression: z.enum(['none', 'gzip', 'xz', 'zstd']).default('none'),
    sha256: hexSha256.meta({ description: 'Of the file as it is fetched.' }),
    seed: z
      .enum(['nocloud', 'config-drive', 'none'])
      .default('nocloud')
      .meta({ description: 'How it is told who it is.' }),
  })
  .refine(({ file, url }) => (file === undefined) !== (url === undefined), { error: 'give either file or url' })

const bootFile = z.union([fileName, webAddress])

const netboot = z.strictObject({
  kernel: bootFile.meta({ description: 'A file of netboot/ in the provider’s folder, or an address.' }),
  initrds: z.array(bootFile).max(8).default([]),
  args: z
    .string()
    .max(2048)
    .regex(/^[\x20-\x7e]*$/)
    .refine((text) => !text.includes('${'), { error: 'iPXE’s own settings cannot stand here' })
    .default('')
    .meta({ description: 'The kernel’s command line; {{seedUrl}}, {{mac}} and {{hostname}} are filled in.' }),
})

const bootMode = z.enum(['uefi', 'bios'])

const machine = z
  .strictObject({
    id,
    macs: z.array(mac).max(64).default([]),
    uuid: uuid.optional().meta({ description: 'SMBIOS UUID.' }),
    serial: z.string().min(1).max(128).optional().meta({ description: 'The system’s serial number.' }),
    bootMode: bootMode.default('uefi'),
    bmc: bmcSettingsSchema,
    credentials: id.optional().meta({ description: 'Which entry of the credentials its BMC takes. Default: its id.' }),
    labels: labels.default({}),
    inUse: z
      .boolean()
      .default(false)
      .meta({ description: 'A server in use: it is shown and never booted, wiped or switched.' }),
  })
  .refine(({ macs, uuid, serial }) => macs.length > 0 || uuid !== undefined || serial !== undefined, {
    error: 'give at least one of macs, uuid and serial, by which it is known when it boots',
  })

export type MachineConfig = z.infer<typeof machine>

/** A BMC whose address the machine itself tells. */
const foundBmc = z.discriminatedUnion('kind', [
  ipmiSettingsSchema.omit({ address: true }),
  redfishSettingsSchema.omit({ endpoint: true }),
  z.strictObject({ kind: z.literal('manual') }),
])

const discoveryRule = z
  .strictObject({
    name: id,
    macPrefixes: z
      .array(z.string().regex(/^([0-9a-f]{2}:){2,5}[0-9a-f]{2}$|^([0-9a-f]{2}:){0,5}[0-9a-f]{2}:?$/))
      .min(1)
      .optional()
      .meta({ description: 'The machine booted from a card whose MAC begins so, as 52:54:00.' }),
    serials: z.array(z.string().min(1).max(128)).min(1).optional(),
    bmcNetworks: z.array(network).min(1).optional().meta({ description: 'Its BMC has an address in one of these.' }),
    bmc: foundBmc.default({ kind: 'manual' }),
    credentials: id.optional(),
    bootMode: bootMode.optional().meta({ description: 'Default: as it booted.' }),
    labels: labels.default({}),
    accept: z.boolean().default(false).meta({
      description:
        'Take what it fits into service without a person, once the machine has said what it is: it is inspected and wiped.',
    }),
  })
  .refine(
    ({ macPrefixes, serials, bmcNetworks }) => [macPrefixes, serials, bmcNetworks].some((part) => part !== undefined),
    {
      error: 'give at least one of macPrefixes, serials and bmcNetworks',
    },
  )

export type DiscoveryRule = z.infer<typeof discoveryRule>

const discovery = z.strictObject({
  enabled: z.boolean().default(true).meta({ description: 'Whether machines that are not listed may boot the agent.' }),
  rules: z.array(discoveryRule).max(256).default([]).meta({
    description: 'What is known of machines by where they come from; the first that fits. All that is given must fit.',
  }),
  unmatched: z.enum(['show', 'hide']).default('show').meta({
    description:
      'Machines that no rule fits. hide, with a provider that accepts machines at once: only what a rule fits is taken into service.',
  }),
  maxUnknown: z.int().min(1).max(10_000).default(256),
})

const timeouts = z.strictObject({
  bootMs: durationMs(600_000).meta({ description: 'From power on until the agent is heard.' }),
  bootTries: z.int().min(1).max(10).default(3),
  silenceMs: durationMs(120_000).meta({ description: 'An agent that is not heard for so long is booted anew.' }),
  inspectMs: durationMs(30 * 60_000),
  wipeMs: durationMs(12 * 3_600_000),
  installMs: durationMs(2 * 3_600_000),
  waitAfterMs: durationMs(30_000, 100).meta({
    description: 'An agent that works for longer is waited for without a claim: it calls back when it is done.',
  }),
  lookMs: durationMs(10 * 60_000, 100).meta({
    description: 'How often to look after an agent that is waited for though it said nothing.',
  }),
  idleMs: durationMs(15 * 60_000).meta({
    description: 'An agent without an order switches its machine off after this.',
  }),
})

/** The provider's configuration, as the hub keeps it. */
export const configSchema = z
  .strictObject({
    boot,
    machines: z.array(machine).max(10_000).default([]),
    discovery: discovery.prefault({}),
    images: z.record(id, image).default({}),
    netboot: z.record(id, netboot).default({}),
    console: z.enum(['auto', 'agent', 'sol']).default('auto').meta({
      description:
        'What is shown of a machine’s console. agent: what it wrote while the agent ran. sol: what comes over its BMC’s serial line (Serial over LAN), while it is followed. auto: the serial line where it is followed and the BMC has one, else the agent’s.',
    }),
    wipe: z
      .enum(['best', 'overwrite'])
      .default('best')
      .meta({ description: 'best: what each disk offers itself. overwrite: every block of every disk.' }),
    timeouts: timeouts.prefault({}),
  })
  .superRefine((config, context) => {
    const owners = new Map<string, string>()
    for (const [at, { id, macs }] of config.machines.entries()) {
      for (const key of [`id ${id}`, ...macs.map((mac) => `MAC ${mac}`)]) {
        const other = owners.get(key)
        if (other !== undefined)
          context.addIssue({ code: 'custom', path: ['machines', at], message: `${key} is ${other}’s already` })
        owners.set(key, id)
      }
    }
    const { dhcp } = config.boot
    if (dhcp.mode !== 'full') return
    for (const key of Object.keys(dhcp.reservations))
      if (parseMac(key) === undefined)
        context.addIssue({ code: 'custom', path: ['boot', 'dhcp', 'reservations', key], message: 'give a MAC address' })
    const [from = 0, to = 0] = [parseIpv4(dhcp.from), parseIpv4(dhcp.to)]
    if (from > to)
      context.addIssue({ code: 'custom', path: ['boot', 'dhcp', 'to'], message: 'it must not be before from' })
  })

export type Config = z.infer<typeof configSchema>
export type ImageConfig = z.infer<typeof image>
export type NetbootConfig = z.infer<typeof netboot>

/** Logins of BMCs, by the names that machines and rules use; `default` serves those that have none of their own. */
export const credentialsSchema = z.strictObject({ bmc: z.record(id, bmcSecretSchema).default({}) })

export type Credentials = z.infer<typeof credentialsSchema>

/** Which disk to install on. All that is given must fit. */
const diskHint = z.strictObject({
  serial: z.string().min(1).max(128).optional(),
  wwn: z.string().min(1).max(128).optional(),
  class: z.enum(['nvme', 'ssd', 'hdd']).optional(),
  minGib: z.int().min(1).optional(),
  maxGib: z.int().min(1).optional(),
})

export type DiskHint = z.infer<typeof diskHint>

/** What classes and orders say. */
export const dataSchema = z
  .strictObject({
    image: id.optional().meta({ description: 'An image of the configuration, to be written to a disk.' }),
    netboot: id.optional().meta({ description: 'Or a netboot class of the configuration, booted each time anew.' }),
    disk: diskHint.default({}),
  })
  .refine(({ image, netboot }) => image === undefined || netboot === undefined, {
    error: 'give an image or a netboot class, and not both',
    path: ['netboot'],
  })

export type Data = z.infer<typeof dataSchema>

/** The image that an order names, or the only one that there is; undefined: it has to name one. */
export function imageIdOf({ images }: Pick<Config, 'images'>, data: Data): string | undefined {
  const ids = Object.keys(images)
  return data.image ?? (ids.length === 1 ? ids[0] : undefined)
}
