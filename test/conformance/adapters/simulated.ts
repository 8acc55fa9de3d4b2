import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { readLines, readWorld } from '@slipway/provider-simulated/ledger'
import type {
  Adapter,
  Description,
  FaultName,
  Injected,
  JsonObject,
  Thing,
  Truth,
  World,
} from '@slipway/sdk/conformance'

// The ground truth of simulated machines is their ledger, which the provider itself never reads back.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..')
export const simulatedProgram = join(root, 'providers/simulated/dist/src/main.js')

/** All calls of an hour are counted together, so that the adapter can tell how many there were, and use them up. */
const rateWindowMs = 3_600_000
const rateLimit = 1_000_000

export const listIntervalMs = 1_000

/** Flags for the provider's process: what it declares, and how often it looks around. */
export const simulatedFlags = [
  '--effect-timeout-ms',
  '2000',
  '--list-interval-ms',
  String(listIntervalMs),
  '--offerings-interval-ms',
  String(listIntervalMs),
]

const common = {
  badCredentials: { apiToken: 'invalid-token-of-the-kit' },
  otherCredentials: { apiToken: 'another-secret-of-the-kit' },
  verbs: ['inject', 'plant', 'vanish'],
  isolated: true,
  failpoints: true,
  phonesHome: true,
  listIntervalMs,
  createMs: 30_000,
  orders: 10,
  notes: ['ground truth: the ledger of a simulated world'],
} as const

const cloudDescription: Description = {
  ...common,
  family: 'simulated',
  kind: 'dynamic',
  order: { typeId: 'sim-small', location: 'sim-east', providerData: { image: 'debian-13' } },
  badOrders: [
    { title: 'a type that does not exist', order: { typeId: 'sim-none', location: 'sim-east' }, field: 'spec.type_id' },
    {
      title: 'a location that does not exist',
      order: { typeId: 'sim-small', location: 'nowhere' },
      field: 'spec.location',
    },
    {
      title: 'an image that does not exist',
      order: { typeId: 'sim-small', location: 'sim-east', providerData: { image: 'plan9' } },
      field: 'spec.provider_data.image',
    },
    {
      title: 'a misspelt key',
      order: { typeId: 'sim-small', location: 'sim-east', providerData: { imgae: 'debian-13' } },
      field: 'spec.provider_data.imgae',
    },
  ],
  badConfig: { locations: [] },
  faults: [
    'none',
    'capacity',
    'quota',
    'rate-limited',
    'unavailable',
    'lost-answer',
    'timeout-before',
    'create-fails',
    'slow-create',
    'slow-delete',
    'delete-sticks',
    'credentials-refused',
    'list-breaks',
  ],
}

const serials = Array.from({ length: 12 }, (_, index) => `kit-${String(index + 1).padStart(2, '0')}`)

const rackDescription: Description = {
  ...common,
  family: 'simulated-rack',
  kind: 'static',
  verbs: ['inject', 'vanish'],
  order: { providerData: { image: 'debian-13' } },
  badOrders: [
    {
      title: 'an image that does not exist',
      order: { providerData: { image: 'plan9' } },
      field: 'spec.provider_data.image',
    },
    { title: 'a misspelt key', order: { providerData: { imgae: 'debian-13' } }, field: 'spec.provider_data.imgae' },
  ],
  badConfig: { models: [] },
  faults: [
    'none',
    'rate-limited',
    'unavailable',
    'lost-answer',
    'timeout-before',
    'create-fails',
    'slow-create',
    'credentials-refused',
    'clean-fails',
    'verify-fails',
  ],
}

const commonConfig: JsonObject = {
  answerTimeoutMs: 300,
  actionTimeoutMs: 8_000,
  rateLimit: { limit: rateLimit, windowMs: rateWindowMs },
  bootDuration: 50,
  powerDuration: { minMs: 50, maxMs: 150 },
}

const cloudConfig: JsonObject = {
  ...commonConfig,
  createDuration: { minMs: 200, maxMs: 500 },
  deleteDuration: { minMs: 100, maxMs: 300 },
}

const rackConfig: JsonObject = {
  ...commonConfig,
  machines: serials.map((serial) => ({ serial, labels: { rack: 'kit' } })),
  inspectDuration: 100,
  installDuration: { minMs: 200, maxMs: 500 },
  wipeDuration: { minMs: 200, maxMs: 500 },
}

/** Faults that are ordered with a server or machine. */
const ordered: Partial<Record<FaultName, string>> = {
  capacity: 'capacity',
  quota: 'quota',
  unavailable: 'unavailable',
  'lost-answer': 'lost-answer',
  'timeout-before': 'timeout-before',
  'create-fails': 'fail',
  'delete-sticks': 'stuck-delete',
}

const credentials = { apiToken: 'the-secret-of-the-kit' }

function adapterOf(description: Description, config: JsonObject): Adapter {
  return {
    describe: () => description,
    setUp: (world) => ({ config, credentials, args: ['--world', folderOf(world)] }),
    list: (world) => (existsSync(join(folderOf(world), 'ledger.jsonl')) ? truthOf(folderOf(world)) : emptyTruth),
    inject: (world, fault) => inject(world, fault, config),
    plant: async (world, { name, ownershipKey, count = 1 }) => {
      const order = ['--name', name, '--ownership-key', ownershipKey, '--count', String(count)]
      return (await run('plant', '--world', folderOf(world), ...order)).trim().split('\n')
    },
    vanish: async (world, externalId) => {
      await run('vanish', '--world', folderOf(world), externalId)
    },
  }
}

/** The simulated cloud: family `simulated`. */
const simulatedAdapter = adapterOf(cloudDescription, cloudConfig)

export default simulatedAdapter

/** The simulated rack: family `simulated-rack`. */
export const simulatedRackAdapter = adapterOf(rackDescription, rackConfig)

const emptyTruth: Truth = { things: [], writes: 0, calls: 0 }

function folderOf(world: World): string {
  return join(world.dir, 'simulated')
}

function truthOf(dir: string): Truth {
  const { kind, servers, machines, calls, owners, violations } = readWorld(dir)
  const reboots = rebootsOf(dir)
  const reinstalls = reinstallsOf(dir)
  const things: Thing[] =
    kind === 'cloud'
      ? servers
          .filter(({ isLive }) => isLive)
          .map(({ id, name, ownershipKey, power, reinstalls, rescue, sshPublicKeys }) => ({
            kind: 'server',
            externalId: id,
            name,
            ownershipKey,
            power,
            reboots: reboots.get(id) ?? 0,
            reinstalls,
            rescue,
            sshPublicKeys,
          }))
      : serials.flatMap((serial) => {
          const machine = machines.find((each) => each.serial === serial)
          if (machine?.isThere === false) return []
          return {
            kind: 'server',
            externalId: serial,
            ownershipKey: machine?.binding ?? '',
            power: machine?.power ?? 'off',
            clean: machine?.soiledBy === undefined,
            reboots: reboots.get(serial) ?? 0,
            reinstalls: reinstalls.get(serial) ?? 0,
          }
        })
  return {
    things,
    writes: Object.values(calls).reduce((sum, count) => sum + count, 0),
    calls: callsOf(dir),
    maxLive: Object.fromEntries(owners.map(({ ownershipKey, maxLive }) => [ownershipKey, maxLive])),
    violations: violations.map(({ what, message }) => `${what}: ${message}`),
  }
}

function rebootsOf(dir: string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const line of readLines(dir)) {
    if (line.fact !== 'server.powered' && line.fact !== 'machine.powered') continue
    const id = line.fact === 'server.powered' ? line.id : line.serial
    if (line.wish === 'reboot') counts.set(id, (counts.get(id) ?? 0) + 1)
  }
  return counts
}

/** Systems that were put on machines of a rack, but for the first of each host. */
function reinstallsOf(dir: string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const line of readLines(dir))
    if (line.fact === 'machine.provisioned' && (line.mark ?? 0) > 0)
      counts.set(line.serial, (counts.get(line.serial) ?? 0) + 1)
  return counts
}

function inject(world: World, fault: FaultName, config: JsonObject): Injected {
  const simulate = ordered[fault]
  if (simulate !== undefined) return { providerData: { simulate } }
  switch (fault) {
    case 'slow-create':
      return { config: { ...config, ['machines' in config ? 'installDuration' : 'createDuration']: 4_000 } }
    case 'slow-delete':
      return { config: { ...config, deleteDuration: 4_000 } }
    case 'credentials-refused':
      return { config: { ...config, faults: { refuseCredentials: true } } }
    case 'clean-fails':
    case 'verify-fails':
      return {
        config: {
          ...config,
          simulate: Object.fromEntries(
            serials.map((serial) => [serial, fault === 'clean-fails' ? 'wipe-fail' : 'verify-fail']),
          ),
        },
      }
    case 'rate-limited':
      useUpCalls(folderOf(world), 0)
      return {}
    case 'list-breaks':
      useUpCalls(folderOf(world), 1)
      return {}
    default:
      // The provider counts its calls in there all the while.
      rmSync(join(folderOf(world), 'rate'), { recursive: true, force: true, maxRetries: 20, retryDelay: 20 })
      return { config, providerData: {} }
  }
}

/** Calls are counted by the size of a file, one for each window. */
function useUpCalls(dir: string, left: number): void {
  const folder = join(dir, 'rate')
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const file = join(folder, `${rateWindowMs}-${Math.floor(Date.now() / rateWindowMs)}`)
  writeFileSync(file, '.'.repeat(rateLimit - left))
}

function callsOf(dir: string): number {
  const folder = join(dir, 'rate')
  return existsSync(folder) ? readdirSync(folder).reduce((sum, file) => sum + statSync(join(folder, file)).size, 0) : 0
}

async function run(...args: string[]): Promise<string> {
  // Not waited for in the kit's one thread: other cases are under way.
  const { stdout } = await promisify(execFile)(process.execPath, [simulatedProgram, ...args])
  return stdout
}
