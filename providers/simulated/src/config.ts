import { z } from 'zod'

const dayMs = 86_400_000

const rate = z.number().min(0).max(1).default(0)

const duration = z.union([
  z.int().min(0).max(dayMs),
  z
    .strictObject({ minMs: z.int().min(0).max(dayMs), maxMs: z.int().min(0).max(dayMs) })
    .refine((span) => span.minMs <= span.maxMs, { error: 'minMs must not exceed maxMs', path: ['minMs'] }),
])

/** Milliseconds: fixed, or drawn between two bounds. */
export type DurationSetting = z.infer<typeof duration>

const durationOf = (fallback: DurationSetting, description: string) =>
  duration.default(fallback).meta({ description: `${description} Milliseconds, or {minMs, maxMs} to draw from.` })

/** Faults that an order, a label or the configuration can ask of one cloud server. */
export const cloudSimulations = [
  'capacity',
  'quota',
  'fail',
  'stuck',
  'stuck-forever',
  'stuck-delete',
  'lost-answer',
  'timeout-before',
  'unavailable',
  'vanish',
  'no-phone-home',
] as const

/** Faults that an order, a label or the configuration can ask of one machine of a rack. */
export const rackSimulations = [
  'fail',
  'stuck',
  'lost-answer',
  'timeout-before',
  'unavailable',
  'no-phone-home',
  'verify-fail',
  'wipe-fail',
] as const

export type CloudSimulation = (typeof cloudSimulations)[number]
export type RackSimulation = (typeof rackSimulations)[number]
export type Simulation = CloudSimulation | RackSimulation

const name = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/)

const price = z
  .strictObject({
    currency: z
      .string()
      .regex(/^[A-Z]{3}$/)
      .default('EUR'),
    hourlyMicros: z.int().min(0),
    monthlyMicros: z.int().min(0).optional(),
    setupMicros: z.int().min(0).optional(),
  })
  .meta({ description: 'Price in millionths of the currency, without tax.' })

const shape = {
  vcpus: z.int().min(1).meta({ description: 'Virtual CPUs, or cores.' }),
  memoryMib: z.int().min(1).meta({ description: 'Memory, MiB.' }),
  diskGib: z.int().min(1).meta({ description: 'Root disk, GiB.' }),
  diskClass: z.string().max(32).default('nvme').meta({ description: 'ssd, nvme or hdd.' }),
  architecture: z.enum(['amd64', 'arm64']).default('amd64').meta({ description: 'CPU architecture.' }),
}

const serverType = z.strictObject({
  id: name.meta({ description: 'The type id, as offerings name it.' }),
  ...shape,
  price: price.optional(),
  locations: z.array(name).min(1).optional().meta({ description: 'Where it can be had. Default: everywhere.' }),
})

export type ServerType = z.infer<typeof serverType>

const defaultTypes: readonly z.input<typeof serverType>[] = [
  { id: 'sim-small', vcpus: 2, memoryMib: 4096, diskGib: 40, price: { hourlyMicros: 6_000, monthlyMicros: 3_800_000 } },
  {
    id: 'sim-medium',
    vcpus: 4,
    memoryMib: 8192,
    diskGib: 80,
    price: { hourlyMicros: 11_000, monthlyMicros: 6_900_000 },
  },
  {
    id: 'sim-large',
    vcpus: 16,
    memoryMib: 32_768,
    diskGib: 320,
    price: { hourlyMicros: 48_000, monthlyMicros: 29_900_000 },
  },
  {
    id: 'sim-arm-small',
    vcpus: 2,
    memoryMib: 4096,
    diskGib: 40,
    architecture: 'arm64',
    price: { hourlyMicros: 5_000, monthlyMicros: 3_200_000 },
  },
]

const capacityRule = z.strictObject({
  location: name.optional().meta({ description: 'Only servers here. Default: all locations.' }),
  type: name.optional().meta({ description: 'Only servers of this type. Default: all types.' }),
  servers: z.int().min(0).meta({ description: 'At most this many live servers match.' }),
})

const rateLimit = z
  .strictObject({ limit: z.int().min(1), windowMs: z.int().min(1).max(dayMs) })
  .optional()
  .meta({ description: 'Calls allowed by window, over all instances. Default: no limit.' })

const common = {
  world: z
    .string()
    .min(1)
    .optional()
    .meta({ description: 'Folder of the simulated world. The --world flag wins. Default: <state-dir>/world.' }),
  seed: z
    .int()
    .min(0)
    .optional()
    .meta({ description: 'Seed of every random choice. Default: chosen when the world is made.' }),
  images: z
    .array(name)
    .min(1)
    .default(['debian-12', 'debian-13', 'ubuntu-24.04'])
    .meta({ description: 'Images that can be ordered.' }),
  answerTimeoutMs: z
    .int()
    .min(0)
    .max(dayMs)
    .default(1_000)
    .meta({ description: 'How long a call hangs whose answer is lost.' }),
  actionTimeoutMs: z
    .int()
    .min(1)
    .max(dayMs)
    .default(60_000)
    .meta({ description: 'How long the provider waits for an action before it reports TIMEOUT.' }),
  powerDuration: durationOf({ minMs: 200, maxMs: 600 }, 'How long switching power takes.'),
  bootDuration: durationOf({ minMs: 500, maxMs: 1_500 }, 'From power on to phoning home.'),
  rateLimit,
}

const commonFaults = {
  refuseCredentials: z.boolean().default(false).meta({ description: 'Refuse every credential.' }),
  unavailableRate: rate.meta({ description: 'Share of calls answered with "unavailable", without effect.' }),
  timeoutBeforeRate: rate.meta({ description: 'Share of writes that time out and have no effect.' }),
  lostAnswerRate: rate.meta({ description: 'Share of writes that have their effect and then seem to time out.' }),
  stuckActionRate: rate.meta({ description: 'Share of actions that do not end until they are asked for again.' }),
  noPhoneHomeRate: rate.meta({ description: 'Share of machines that boot and never phone home.' }),
}

const cloudFaults = z.strictObject({
  ...commonFaults,
  capacityErrorRate: rate.meta({ description: 'Share of creates refused for want of capacity.' }),
  createFailRate: rate.meta({ description: 'Share of creates that are accepted and then fail.' }),
  vanishRate: rate.meta({ description: 'Share of servers that vanish by themselves.' }),
  vanishAfterMs: z
    .int()
    .min(0)
    .max(365 * dayMs)
    .default(5_000)
    .meta({ description: 'How long after they run, for those that vanish.' }),
})

const cloudLatency = z.strictObject({
  create: durationOf({ minMs: 20, maxMs: 60 }, 'The create call.'),
  delete: durationOf({ minMs: 10, maxMs: 40 }, 'The delete call.'),
  power: durationOf({ minMs: 10, maxMs: 40 }, 'Power and retry calls.'),
  get: durationOf({ minMs: 5, maxMs: 20 }, 'Reading one server.'),
  list: durationOf({ minMs: 5, maxMs: 20 }, 'Reading one page of a listing, or of the types.'),
})

const cloudConfigShape = z.strictObject({
  ...common,
  locations: z.array(name).min(1).default(['sim-east', 'sim-west']).meta({ description: 'Locations of the cloud.' }),
  types: z
    .array(serverType)
    .min(1)
    .prefault([...defaultTypes])
    .meta({ description: 'Server types.' }),
  capacity: z.array(capacityRule).default([]).meta({ description: 'Limits on live servers. Default: none.' }),
  quotaServers: z.int().min(0).optional().meta({ description: "The account's limit of live servers. Default: none." }),
  idempotency: z.enum(['unique-name', 'token', 'none']).default('unique-name').meta({
    description: 'What protects a create that is sent twice: a name that must be unique, a client token, nothing.',
  }),
  listingLagMs: z
    .int()
    .min(0)
    .max(dayMs)
    .default(0)
    .meta({ description: 'How long a listing does not show a new server. At most what --listing-lag-ms declares.' }),
  pageSize: z.int().min(1).max(1_000).default(100).meta({ description: 'Servers in one page of a listing.' }),
  latency: cloudLatency.prefault({}).meta({ description: 'How long calls take.' }),
  createDuration: durationOf({ minMs: 500, maxMs: 1_500 }, 'From an accepted create to a running server.'),
  deleteDuration: durationOf({ minMs: 200, maxMs: 600 }, 'From an accepted delete until the server is gone.'),
  faults: cloudFaults.prefault({}).meta({ description: 'Faults by chance.' }),
  simulate: z
    .record(z.string(), z.enum(cloudSimulations))
    .default({})
    .meta({ description: 'Faults by server name or hostname.' }),
})

/** Configuration of the simulated cloud, with a default for everything. */
export const cloudConfigSchema = cloudConfigShape.superRefine(({ types, locations, capacity }, context) => {
  const typeIds = types.map(({ id }) => id)
  const isPlace = (location: string | undefined) => location === undefined || locations.includes(location)
  const complain = (path: PropertyKey[], message: string) => context.addIssue({ code: 'custom', path, message })
  types.forEach(({ id, locations: places }, index) => {
    if (typeIds.indexOf(id) !== index) complain(['types', index, 'id'], `there are two types ${id}`)
    if (places?.every(isPlace) === false)
      complain(['types', index, 'locations'], 'names a location that the cloud lacks')
  })
  capacity.forEach(({ type, location }, index) => {
    if (type !== undefined && !typeIds.includes(type)) complain(['capacity', index, 'type'], `there is no type ${type}`)
    if (!isPlace(location)) complain(['capacity', index, 'location'], `there is no location ${location ?? ''}`)
  })
})

export type CloudConfig = z.infer<typeof cloudConfigSchema>

const rackModel = z.strictObject({
  vendor: z.string().default('Simulated').meta({ description: 'Maker.' }),
  model: z.string().meta({ description: 'Model.' }),
  ...shape,
})

export type RackModel = z.infer<typeof rackModel>

const defaultModels: readonly z.input<typeof rackModel>[] = [
  { model: 'R1', vcpus: 16, memoryMib: 65_536, diskGib: 960 },
  { model: 'R2', vcpus: 32, memoryMib: 131_072, diskGib: 1920 },
]

const rackMachine = z.strictObject({
  serial: name.meta({ description: 'Serial number: its id, stable and unique.' }),
  model: z.string().optional().meta({ description: 'One of the models. Default: the first.' }),
  labels: z.record(z.string(), z.string()).default({}).meta({ description: 'Labels by which classes can select it.' }),
})

export type RackMachineSetting = z.infer<typeof rackMachine>

const rackFaults = z.strictObject({
  ...commonFaults,
  installFailRate: rate.meta({ description: 'Share of installations that fail.' }),
  wipeFailRate: rate.meta({ description: 'Share of wipes that fail.' }),
  verifyFailRate: rate.meta({ description: 'Share of verifications that fail.' }),
})

const rackConfigShape = z.strictObject({
  ...common,
  machines: z
    .union([z.int().min(0).max(100_000), z.array(rackMachine)])
    .default(8)
    .meta({ description: 'The machines: how many to make up, or a list.' }),
  machinesPerRack: z
    .int()
    .min(1)
    .default(4)
    .meta({ description: 'For made-up machines: how many carry the same rack label.' }),
  models: z
    .array(rackModel)
    .min(1)
    .prefault([...defaultModels])
    .meta({ description: 'Models. Made-up machines take turns.' }),
  latency: durationOf({ minMs: 5, maxMs: 20 }, 'Every call to a machine or to the rack.'),
  inspectDuration: durationOf({ minMs: 200, maxMs: 500 }, 'Reading the hardware.'),
  installDuration: durationOf({ minMs: 500, maxMs: 1_500 }, 'Installing an image.'),
  wipeDuration: durationOf({ minMs: 500, maxMs: 1_500 }, 'Wiping the disks.'),
  faults: rackFaults.prefault({}).meta({ description: 'Faults by chance.' }),
  simulate: z
    .record(z.string(), z.enum(rackSimulations))
    .default({})
    .meta({ description: 'Faults by serial number or hostname.' }),
})

/** Configuration of the simulated rack, with a default for everything. */
export const rackConfigSchema = rackConfigShape.superRefine(({ machines, models }, context) => {
  if (typeof machines === 'number') return
  const complain = (path: PropertyKey[], message: string) => context.addIssue({ code: 'custom', path, message })
  const serials = machines.map(({ serial }) => serial)
  machines.forEach(({ serial, model }, index) => {
    if (serials.indexOf(serial) !== index) complain(['machines', index, 'serial'], `there are two machines ${serial}`)
    if (model !== undefined && !models.some((known) => known.model === model))
      complain(['machines', index, 'model'], `there is no model ${model}`)
  })
})

export type RackConfig = z.infer<typeof rackConfigSchema>

export const credentialsSchema = z.strictObject({
  apiToken: z
    .string()
    .max(256)
    .optional()
    .meta({ description: 'Any token will do, except those that begin with "invalid": they are refused.' }),
})

export type Credentials = z.infer<typeof credentialsSchema>

const image = name.default('debian-13').meta({ description: "One of the configuration's images." })

/** What an order or a class can say to the simulated cloud. */
export const cloudDataSchema = z.strictObject({
  image,
  simulate: z.enum(cloudSimulations).optional().meta({ description: 'A fault to order with the server.' }),
  vanishAfterMs: z
    .int()
    .min(0)
    .max(365 * dayMs)
    .optional()
    .meta({ description: 'With simulate "vanish": how long after it runs.' }),
})

export type CloudData = z.infer<typeof cloudDataSchema>

/** What an order or a class can say to the simulated rack. */
export const rackDataSchema = z.strictObject({
  image,
  simulate: z.enum(rackSimulations).optional().meta({ description: 'A fault to order with the machine.' }),
})

export type RackData = z.infer<typeof rackDataSchema>
