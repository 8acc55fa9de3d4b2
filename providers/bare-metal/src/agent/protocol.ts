import { z } from 'zod'

// The contract between the agent, which runs from memory on a machine that was booted from the network, and the provider that booted it.
// JSON over HTTP(S), below `agentRoot`; the agent asks, the provider answers. One conversation, in this order:
//
//   POST session      the boot token of the kernel command line, once          → the session's secret; each later request bears it
//   POST inventory    what the machine is made of, at every boot               → 204
//   GET  order        what to do; asked again after each answer and each end   → an order
//   POST order/ID/confirm    right before anything on a disk is changed        → whether the order still stands, and for how long to begin
//   POST heartbeat    every heartbeatMs, from the first to the last moment     → whether the order in hand still stands
//   POST order/ID/result     once, repeated until it is answered               → 204
//
// Who may change a disk. An order to wipe or to install names the item (machine or request), its operation, the operation's generation and the fence under which it was
// given. It stands as long as that item still wants that operation of that generation *and* the answering instance holds the item's lease at this moment, under that fence
// or a later one. The agent begins an effect only within `beginWithinMs` of the moment at which it *sent* the question; an instance that was paused and has lost its lease
// answers 409, and one that is still paused does not answer: in both cases nothing is touched. What was begun goes on while nobody answers (a wipe outlives its provider),
// and is broken off as soon as anybody answers that it does not stand.
//
// Sessions and ids of orders must outlive the provider's process: an agent that is wiping knows nothing of a restart. A session's secret is best made of a key in the state
// folder; an order's id of item, operation, generation and attempt, so that the successor that wants the same takes over what is running, and its result.

/** The version of this contract. Raised where an older agent could not go on; it is refused then, and boots the newer image the next time. */
export const agentVersion = 1

/** Below this path of the provider's boot endpoint is everything in this file. */
export const agentRoot = '/agent/v1'

/** What an agent may send at once. Inventories of machines with hundreds of disks are some 100 KiB. */
export const maxBodyBytes = 256 * 1024

export const agentPaths = {
  session: `${agentRoot}/session`,
  inventory: `${agentRoot}/inventory`,
  order: `${agentRoot}/order`,
  heartbeat: `${agentRoot}/heartbeat`,
  confirm: (orderId: string) => `${agentRoot}/order/${orderId}/confirm`,
  result: (orderId: string) => `${agentRoot}/order/${orderId}/result`,
} as const

const text = (max: number) => z.string().max(max)
const bytes = z.number().int().nonnegative()
const mac = z.string().regex(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/, 'six pairs of lower-case hexadecimal digits')
const decimal = z.string().regex(/^[0-9]{1,20}$/, 'a whole number in decimal digits')
const sha256 = z.string().regex(/^[0-9a-f]{64}$/, '64 lower-case hexadecimal digits')
const deviceName = z.string().regex(/^[a-z][a-z0-9]{0,31}$/, 'the name of a block device, for example nvme0n1')

/** An order's id stands in paths: nothing in it needs escaping. */
export const orderIdSchema = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, '1 to 64 letters, digits, dashes, underscores')

/** `POST session`. Refused with 403 where the token is unknown, used, too old, or for another machine; the agent reboots then, for a new one. */
export const sessionRequestSchema = z.object({
  version: z.number().int(),
  /** `slipway.token` of the kernel command line: good for one session. */
  token: text(512).min(1),
  /** The MAC address that it booted from, where the firmware told. */
  bootMac: mac.optional(),
  /** SMBIOS UUID, where the machine has one. */
  uuid: text(64).optional(),
})

export const sessionAnswerSchema = z.object({
  version: z.literal(agentVersion),
  /** Secret; goes into `Authorization: Bearer`. */
  session: text(1024).min(16),
  heartbeatMs: z.number().int().min(500).max(60_000),
})

const diskSchema = z.object({
  name: deviceName,
  sizeBytes: bytes,
  /** Empty: it has none, as some virtual disks. */
  serial: text(128),
  /** World wide name, as in /dev/disk/by-id: `eui.…`, `naa.…`, `nvme.…`. Empty: none. */
  wwn: text(128),
  model: text(128),
  firmware: text(64),
  rotational: z.boolean(),
  transport: z.enum(['nvme', 'sata', 'sas', 'virtio', 'usb', 'other']),
  logicalBlockBytes: z.number().int().positive(),
})

const nicSchema = z.object({
  name: text(32),
  mac,
  /** Whether there is a carrier, a second after the interface was brought up. */
  link: z.boolean(),
  /** Absent: unknown, as without a link. */
  speedMbps: z.number().int().positive().optional(),
  driver: text(64),
  /** IPv4 and IPv6, without prefix length. */
  addresses: z.array(text(64)).max(32),
})

/** `POST inventory`. What comes from firmware is as the firmware gives it: empty where it says nothing. */
export const inventorySchema = z.object({
  cpu: z.object({
    model: text(256),
    /** Logical processors. */
    count: z.number().int().positive(),
    sockets: z.number().int().positive(),
    architecture: z.enum(['amd64', 'arm64']),
  }),
  memoryBytes: bytes,
  disks: z.array(diskSchema).max(512),
  nics: z.array(nicSchema).max(128),
  dmi: z.object({
    vendor: text(256),
    product: text(256),
    serial: text(256),
    uuid: text(64),
    assetTag: text(256),
    boardSerial: text(256),
  }),
  firmware: z.object({
    mode: z.enum(['uefi', 'bios']),
    /** Of UEFI: whether only signed programs are started. */
    secureBoot: z.boolean(),
    vendor: text(256),
    version: text(256),
    date: text(64),
  }),
  /** What the management controller says about itself over the machine's own bus. Absent: there is none, or no driver for it. */
  bmc: z.object({ address: text(64), mac: text(32), firmware: text(64) }).optional(),
  bootMac: mac.optional(),
  /** The kernel that the agent runs on. */
  kernel: text(128),
})

/** Under which authority an order was given: see above. */
export const authoritySchema = z.object({
  /** `machines/…` or `machineRequests/…`: what the provider's instance holds. */
  item: text(256).min(1),
  operation: text(32).min(1),
  generation: decimal,
  fence: decimal,
})

/** How to wipe. `best`: what the disk itself offers, then discard, then overwriting; the first whose read-back holds. `overwrite`: every block, on every disk. */
export const wipeMethodSchema = z.enum(['best', 'overwrite'])

/** The disk to install on, chosen by the provider from this boot's inventory; the agent compares all that is given, and refuses where one differs. */
export const targetDiskSchema = z.object({ name: deviceName, serial: text(128), sizeBytes: bytes })

export const imageSchema = z.object({
  /** `http:` or `https:`; where it begins with the boot endpoint, the session's secret is sent along. */
  url: text(2048).regex(/^https?:\/\//),
  format: z.enum(['raw', 'qcow2']),
  /** Of the file as it is fetched. A qcow2 image is fetched as it is. */
  compression: z.enum(['none', 'gzip', 'xz', 'zstd']),
  /** Of the bytes as they are fetched. */
  sha256,
})

/** A small file system for cloud-init, as one more partition at the disk's end: labelled `cidata` (NoCloud) or `config-2` (ConfigDrive). */
export const seedSchema = z.object({
  label: z.enum(['cidata', 'config-2']),
  /** May hold secrets. At most 128 KiB together. */
  files: z
    .array(
      z.object({
        path: text(128).regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/),
        base64: z.base64(),
      }),
    )
    .min(1)
    .max(32),
})

/** `GET order`. `wait` is the answer where nothing is to be done now. */
export const orderSchema = z.discriminatedUnion('kind', [
  /** Stay as you are, and ask again. Also where the machine is kept for a netboot class, or for a person. */
  z.object({ kind: z.literal('wait'), askAgainMs: z.number().int().min(200).max(60_000) }),
  /** Read the hardware anew and post it; the result follows the inventory. */
  z.object({ kind: z.literal('inspect'), id: orderIdSchema }),
  z.object({ kind: z.literal('wipe'), id: orderIdSchema, authority: authoritySchema, method: wipeMethodSchema }),
  z.object({
    kind: z.literal('install'),
    id: orderIdSchema,
    authority: authoritySchema,
    disk: targetDiskSchema,
    image: imageSchema,
    seed: seedSchema.optional(),
    /** Of UEFI: add an entry for the disk before all others. */
    efiEntry: z.boolean(),
  }),
  /** The end of this conversation. */
  z.object({ kind: z.literal('power-off') }),
  z.object({ kind: z.literal('reboot') }),
])

/** `POST order/ID/confirm`, where the agent is about to change disks. */
export const confirmRequestSchema = z.object({ authority: authoritySchema })

/** With status 200. Where the order does not stand, the status is 409, and the agent drops it and asks for the next one. */
export const confirmAnswerSchema = z.object({
  /** Counted from when the question was sent. Shorter than what is left of the lease. */
  beginWithinMs: z.number().int().min(100).max(60_000),
})

/** `POST heartbeat`: that it lives, how far it is, and what its console said since the last one that was answered. */
export const heartbeatSchema = z.object({
  uptimeMs: bytes,
  /** Absent: it has no order in hand. */
  orderId: orderIdSchema.optional(),
  percent: z.number().min(0).max(100).optional(),
  /** For people: `writing the image, 120 of 560 MiB`. */
  message: text(256).optional(),
  /** `offset`: where in all that the console ever said it begins. */
  log: z.object({ offset: bytes, text: text(32_768) }).optional(),
})

/** `stands` is false where an order in hand does not stand any more. */
export const heartbeatAnswerSchema = z.object({ stands: z.boolean() })

export const wipeStepSchema = z.enum([
  'nvme-sanitize-crypto',
  'nvme-sanitize-block',
  'nvme-format-crypto',
  'nvme-format-user-data',
  'ata-secure-erase-enhanced',
  'ata-secure-erase',
  'discard',
  'overwrite',
])

/** What was done to one disk. */
export const wipedDiskSchema = z.object({
  name: deviceName,
  serial: text(128),
  wwn: text(128),
  sizeBytes: bytes,
  /** All that was tried, in order; the last one is what the disk was wiped with, if it was. `message`: what the tool said, where it did not go well. */
  steps: z.array(z.object({ step: wipeStepSchema, ok: z.boolean(), message: text(512) })).max(16),
  /** Places read before and after: now zero, now different, or still as before and not zero. Nothing may be unchanged. */
  readBack: z.object({
    sampleBytes: z.number().int().nonnegative(),
    zero: z.number().int().nonnegative(),
    changed: z.number().int().nonnegative(),
    unchanged: z.number().int().nonnegative(),
  }),
  wiped: z.boolean(),
  durationMs: bytes,
})

export const failureCodeSchema = z.enum([
  /** The order was broken off since it does not stand any more. */
  'superseded',
  /** The disk that was named is not there, or is another one. */
  'wrong-disk',
  /** The image could not be fetched. */
  'image-unavailable',
  /** What was fetched is not what was ordered: nothing of it can boot. */
  'checksum-mismatch',
  /** It is no such image, or the disk is too small for it. */
  'image-invalid',
  'disk-error',
  /** Some disk was not wiped: see `disks`. */
  'wipe-failed',
  'internal',
])

/** `POST order/ID/result`. The same result may come more than once. */
export const resultSchema = z.discriminatedUnion('outcome', [
  z.object({
    outcome: z.literal('done'),
    /** Of a wipe. */
    disks: z.array(wipedDiskSchema).max(512).optional(),
    /** Of an installation. */
    writtenBytes: bytes.optional(),
    sha256: sha256.optional(),
  }),
  z.object({
    outcome: z.literal('failed'),
    code: failureCodeSchema,
    message: text(1024),
    disks: z.array(wipedDiskSchema).max(512).optional(),
  }),
])

/**
 * What is answered instead, with a status of its own: 400 the request is not of this contract; 401 there is no such session: the agent stops what it does and
 * reboots, for a new token; 403 the token is refused; 409 the order does not stand; 413 too large; 426 another version; 503 ask again later.
 */
export const errorAnswerSchema = z.object({ error: z.object({ message: text(1024) }) })

export type SessionRequest = z.infer<typeof sessionRequestSchema>
export type SessionAnswer = z.infer<typeof sessionAnswerSchema>
export type Inventory = z.infer<typeof inventorySchema>
export type InventoryDisk = z.infer<typeof diskSchema>
export type InventoryNic = z.infer<typeof nicSchema>
export type Authority = z.infer<typeof authoritySchema>
export type WipeMethod = z.infer<typeof wipeMethodSchema>
export type TargetDisk = z.infer<typeof targetDiskSchema>
export type ImageSource = z.infer<typeof imageSchema>
export type Seed = z.infer<typeof seedSchema>
export type Order = z.infer<typeof orderSchema>
export type ConfirmRequest = z.infer<typeof confirmRequestSchema>
export type ConfirmAnswer = z.infer<typeof confirmAnswerSchema>
export type Heartbeat = z.infer<typeof heartbeatSchema>
export type HeartbeatAnswer = z.infer<typeof heartbeatAnswerSchema>
export type WipedDisk = z.infer<typeof wipedDiskSchema>
export type OrderResult = z.infer<typeof resultSchema>
export type FailureCode = z.infer<typeof failureCodeSchema>

/** What the agent's kernel has to be told. */
export interface AgentBoot {
  /** The boot endpoint, without a path: `http://192.0.2.1:8080`. */
  readonly server: string
  /** One-time; see {@link sessionRequestSchema}. */
  readonly token: string
  /** The interface to use, as the firmware's boot loader knows it. */
  readonly bootMac?: string
  /** Of an `https:` endpoint: `sha256//` and the base64 of its public key's digest, the only thing that it is trusted by. */
  readonly pin?: string
  /** Serial console, for example `ttyS0,115200`. */
  readonly console?: string
  /** More arguments for the kernel, as the machines of a site need them; separated by spaces. */
  readonly extra?: string
}

const argument = /^[\x21-\x7e]+$/
const extraArguments = /^[\x20-\x7e]*$/

/**
 * The agent's kernel command line.
 *
 * @throws TypeError for a value that would not stay one argument.
 */
export function agentCommandLine(boot: AgentBoot): string {
  const values: [string, string | undefined][] = [
    ['console', boot.console],
    ['slipway.server', boot.server],
    ['slipway.token', boot.token],
    ['slipway.mac', boot.bootMac],
    ['slipway.pin', boot.pin],
  ]
  const given = values.filter((entry): entry is [string, string] => entry[1] !== undefined)
  for (const [name, value] of given) {
    if (!argument.test(value) || value.includes('"'))
      throw new TypeError(`${name} can't stand on a kernel command line`)
  }
  // A machine whose agent is broken starts over by itself, and is given a new token.
  const extra = (boot.extra ?? '').split(/ +/).filter(Boolean)
  if (!extraArguments.test(boot.extra ?? '') || extra.some((each) => each.startsWith('slipway.')))
    throw new TypeError('the extra kernel arguments hold something that is not printable, or one of ours')
  return [...extra, ...given.map(([name, value]) => `${name}=${value}`), 'quiet', 'panic=5'].join(' ')
}
