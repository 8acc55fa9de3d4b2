import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Emulator } from '@slipway/provider-hetzner-cloud/testing'
import type { Adapter, FaultName, Thing, Truth, World } from '@slipway/sdk/conformance'

// The ground truth of the Hetzner Cloud is the ledger of the emulator of its API. Each case has a project of its own.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..')
export const hetznerCloudProgram = join(root, 'providers/hetzner-cloud/dist/src/main.js')

const listIntervalMs = 1_000

/** Flags for the provider's process: what it declares, and how often it looks around. */
export const hetznerCloudFlags = [
  ['--listing-lag-ms', 100],
  ['--effect-timeout-ms', 6_000],
  ['--list-interval-ms', listIntervalMs],
  ['--offerings-interval-ms', listIntervalMs],
].flatMap((flag) => flag.map(String))

const newToken = () => randomBytes(32).toString('hex')
const otherToken = newToken()
const badToken = newToken()

const order = { typeId: 'cx22', location: 'fsn1', providerData: { image: 'debian-12' } }

const sshKey = {
  name: 'kit',
  public_key: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEmulatedEmulatedEmulatedEmulatedEmulatedEmul kit',
}

const projects = new Map<string, Emulator>()

const faults: Partial<Record<FaultName, (emulator: Emulator) => void>> = {
  none: clear,
  capacity: ({ faults }) => faults.setCapacity('fsn1', 0),
  quota: ({ faults }) => (faults.limits.server_limit = 0),
  'rate-limited': ({ rateLimit }) => (rateLimit.isThrottled = true),
  unavailable: ({ faults }) => faults.planCall('POST', creates, { status: 503, code: 'unavailable' }),
  'lost-answer': ({ faults }) => faults.planCall('POST', creates, 'lost'),
  'timeout-before': ({ faults }) => faults.planCall('POST', creates, 'dropped'),
  'create-fails': ({ faults }) =>
    faults.planAction('create_server', { code: 'action_failed', message: 'planted: it could not be made' }),
  'slow-create': ({ project }) => (project.durations.create = 4_000),
  'slow-delete': ({ project }) => (project.durations.delete = 4_000),
  'delete-sticks': ({ faults }) =>
    faults.planAction('delete_server', { code: 'action_failed', message: 'planted: nothing came of it' }),
  'credentials-refused': ({ faults }) => (faults.refuseTokens = true),
  'list-breaks': ({ faults }) => (faults.breakListings = true),
}

const creates = /^\/servers$/
const unlimited = 100_000

function clear({ faults, rateLimit, project }: Emulator): void {
  faults.clearPlans()
  faults.clearCapacity()
  faults.limits.server_limit = unlimited
  faults.refuseTokens = false
  faults.breakListings = false
  rateLimit.isThrottled = false
  Object.assign(project.durations, durations)
}

const durations = { create: 200, delete: 100 }

/** Family `hetzner-cloud`. */
const adapter: Adapter = {
  describe: () => ({
    family: 'hetzner-cloud',
    kind: 'dynamic',
    order,
    badOrders: [
      { title: 'a type that does not exist', order: { ...order, typeId: 'cx0' }, field: 'spec.type_id' },
      { title: 'a location that does not exist', order: { ...order, location: 'nowhere' }, field: 'spec.location' },
      {
        title: 'an image that does not exist',
        order: { ...order, providerData: { image: 'plan9' } },
        field: 'spec.provider_data.image',
      },
      {
        title: 'a misspelt key',
        order: { ...order, providerData: { imgae: 'debian-12' } },
        field: 'spec.provider_data.imgae',
      },
    ],
    badConfig: { endpoint: 'http://example.org/v1' },
    badCredentials: { apiToken: badToken },
    otherCredentials: { apiToken: otherToken },
    faults: Object.keys(faults) as FaultName[],
    verbs: ['inject', 'plant', 'vanish'],
    isolated: true,
    failpoints: true,
    phonesHome: true,
    listIntervalMs,
    createMs: 30_000,
    rescueKeys: [sshKey.name],
    orders: 10,
    notes: ['ground truth: the ledger of the emulator, which the description of the API holds on both sides'],
  }),
  setUp: async (world) => {
    const emulator = await Emulator.start({ durations })
    emulator.tokens.add(otherToken)
    await addSshKey(emulator)
    projects.set(world.dir, emulator)
    return {
      config: {
        endpoint: emulator.endpoint,
        callTimeoutMs: 3_000,
        actionTimeoutMs: 8_000,
        shutdownTimeoutMs: 300,
      },
      credentials: { apiToken: emulator.token },
    }
  },
  list: (world) => truthOf(projectOf(world)),
  inject: (world, fault) => {
    faults[fault]?.(projectOf(world))
    return {}
  },
  plant: (world, { name, ownershipKey, count = 1 }) => {
    const orders = Array.from({ length: count }, (_, index) => ({
      name: count === 1 ? name : `${name}-${index + 1}`,
      labels: labelsOf(ownershipKey),
    }))
    return projectOf(world).plant(orders).map(String)
  },
  vanish: (world, externalId) => projectOf(world).vanish(Number(externalId)),
  tearDown: async (world) => {
    await projectOf(world).close()
    projects.delete(world.dir)
  },
}

export default adapter

async function addSshKey({ endpoint, token, ledger }: Emulator): Promise<void> {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
  const { status } = await fetch(`${endpoint}/ssh_keys`, { method: 'POST', headers, body: JSON.stringify(sshKey) })
  if (status !== 201) throw new Error(`the SSH key of the kit was answered with ${status}`)
  // What the world began with is none of the provider's doing.
  ledger.calls.length = 0
}

function projectOf(world: World): Emulator {
  const emulator = projects.get(world.dir)
  if (emulator === undefined) throw new Error(`there is no project for ${world.dir}`)
  return emulator
}

type Labels = Readonly<Record<string, string>>

function labelsOf(ownershipKey: string): Record<string, string> {
  const [hub = '', request = ''] = ownershipKey.split('/')
  return ownershipKey === '' ? {} : { 'slipway/hub': hub, 'slipway/request': request }
}

function keyOf({ 'slipway/hub': hub, 'slipway/request': request }: Labels): string {
  return hub === undefined || request === undefined ? '' : `${hub}/${request}`
}

function truthOf({ ledger, project, violations }: Emulator): Truth {
  const done = new Map<string, number>()
  for (const { method, path, status } of ledger.calls) {
    const [, id, action = ''] = /^\/servers\/(\d+)\/actions\/(reboot|rebuild)$/.exec(path) ?? []
    if (id === undefined || method !== 'POST' || status !== 201) continue
    done.set(`${id}/${action}`, (done.get(`${id}/${action}`) ?? 0) + 1)
  }
  project.settle()
  const things = ledger.live().flatMap(({ kind, id, name, labels }): Thing[] => {
    const externalId = String(id)
    const server = kind === 'server' ? project.servers.get(id) : undefined
    // Those of a server may have been changed since it was made.
    const ownershipKey = keyOf(server?.view.labels ?? labels)
    // What a project has of itself belongs to nobody.
    if (server === undefined) return ownershipKey === '' ? [] : [{ kind, externalId, name, ownershipKey }]
    return [
      {
        kind,
        externalId,
        name,
        ownershipKey,
        power: server.view.status === 'running' ? 'on' : 'off',
        reboots: done.get(`${id}/reboot`) ?? 0,
        reinstalls: done.get(`${id}/rebuild`) ?? 0,
        rescue: server.inRescue && server.view.status === 'running',
        sshPublicKeys: keysIn(server.userData),
      },
    ]
  })
  return {
    things,
    calls: ledger.calls.length,
    // What is refused for want of its target is how a token is proven to be allowed to write.
    writes: ledger.calls.filter(({ method, status }) => method !== 'GET' && status !== 404).length,
    maxLive: mostAtOnce(ledger),
    violations,
  }
}

/** Keys in the cloud-config that the provider adds. */
function keysIn(userData: string): string[] {
  const [, list = ''] = /^ssh_authorized_keys:\r?\n((?: {2}- .*\r?\n)+)/m.exec(userData) ?? []
  return [...list.matchAll(/^ {2}- (.*)$/gm)].map(([, key = '""']) => JSON.parse(key) as string)
}

function mostAtOnce({ entries }: Emulator['ledger']): Record<string, number> {
  const keys = new Map<number, string>()
  const live = new Map<string, number>()
  const most = new Map<string, number>()
  for (const { kind, what, id, labels } of entries) {
    if (kind !== 'server') continue
    const key = keys.get(id) ?? keyOf(labels)
    keys.set(id, key)
    live.set(key, (live.get(key) ?? 0) + (what === 'created' ? 1 : -1))
    if (key !== '') most.set(key, Math.max(most.get(key) ?? 0, live.get(key) ?? 0))
  }
  return Object.fromEntries(most)
}
