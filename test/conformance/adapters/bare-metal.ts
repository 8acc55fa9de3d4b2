import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { images, makeFiles, SimMachine } from '@slipway/provider-bare-metal/testing'
import type { Adapter, FaultName, JsonObject, Truth, World } from '@slipway/sdk/conformance'

// Machines that are simulated in the kit's own process: their firmware asks every instance of the provider for what to boot, as machines of one segment do, and
// their management controllers are called by HTTP. What they do by themselves is the ground truth.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..')
export const bareMetalProgram = join(root, 'providers/bare-metal/dist/src/main.js')

const listIntervalMs = 1_000
const ids = Array.from({ length: 12 }, (_, index) => `kit-${String(index + 1).padStart(2, '0')}`)
const secret = 'the-secret-of-the-kit'

/** One segment: its machines, and what is wrong with them. */
class Segment {
  readonly machines = new Map<string, SimMachine>()
  readonly #folder: string
  readonly #server: Server
  /** Machines whose system was asked to end, and that were not switched since. */
  readonly shutDown = new Set<string>()
  fault: FaultName = 'none'
  /** Whether the next call that switches a machine on is refused. */
  refusesNext = false

  constructor(world: World) {
    this.#folder = dirname(world.dir)
    for (const [index, id] of ids.entries()) {
      const number = String(index + 1).padStart(2, '0')
      const machine = new SimMachine({
        id,
        mac: `52:54:00:00:00:${number}`,
        uuid: `00000000-0000-4000-8000-0000000000${number}`,
        serial: `SN-${id}`,
        endpoints: () => this.#endpoints(),
        wipeMs: () => 150,
        installMs: () => (this.fault === 'slow-create' ? 4_000 : 150),
        wipeFails: () => this.fault === 'clean-fails',
        installFails: () => this.fault === 'create-fails',
      })
      this.machines.set(id, machine)
    }
    this.#server = createServer((request, response) => this.#call(request, response))
  }

  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    for (const machine of this.machines.values()) await machine.end()
  }

  /** Where the instances of this case say that they serve. */
  #endpoints(): readonly string[] {
    const folders = readdirSync(this.#folder).filter((name) => name.startsWith('state-'))
    const files = folders
      .map((name) => join(this.#folder, name, 'boot-endpoint.json'))
      .filter((file) => existsSync(file))
    return files.map((file) => (JSON.parse(readFileSync(file, 'utf8')) as { bootUrl: string }).bootUrl)
  }

  #call(request: IncomingMessage, response: ServerResponse): void {
    const [, id = '', verb = '', device = ''] = (request.url ?? '').split('/')
    const machine = this.machines.get(id)
    const end = (status: number, body: object = {}): void => void response.writeHead(status).end(JSON.stringify(body))
    if (machine === undefined) return end(404)
    if (request.headers.authorization !== `Bearer ${secret}` || this.fault === 'verify-fails') return end(401)
    if (verb === 'power') return end(200, { power: machine.power })
    if (verb === 'on') return this.#switchOn(machine, end)
    if (verb === 'boot') machine.bootOnce = device === 'disk' ? 'disk' : 'network'
    // A system that was asked to end stays its tenant's; a release takes the power away without asking.
    if (verb === 'soft-off') this.shutDown.add(id)
    else this.shutDown.delete(id)
    if (verb === 'off' || verb === 'soft-off') machine.setPower('off')
    return end(200)
  }

  #switchOn(machine: SimMachine, end: (status: number) => void): void {
    const refuses = this.refusesNext
    this.refusesNext = false
    if (refuses) return end(503)
    machine.setPower('on')
    end(200)
  }
}

const segments = new Map<string, Segment>()

function configOf(url: string): JsonObject {
  const call = (verb: string) => ({
    url: `${url}/{{machine}}/${verb}`,
    headers: { authorization: 'Bearer {{secret.token}}' },
  })
  return {
    boot: { address: '127.0.0.1', port: 0, tftpPort: 0, dhcp: { mode: 'off' } },
    images,
    machines: ids.map((id, index) => ({
      id,
      macs: [`52:54:00:00:00:${String(index + 1).padStart(2, '0')}`],
      labels: { rack: 'kit' },
      bmc: {
        kind: 'webhook',
        machine: id,
        read: { ...call('power'), method: 'GET' },
        on: call('on'),
        off: call('off'),
        softOff: call('soft-off'),
        bootOnce: call('boot/{{device}}'),
        timeoutMs: 500,
      },
    })),
    // A hub that answers slowly must not be taken for a machine that does not boot.
    timeouts: { bootMs: 20_000, silenceMs: 10_000 },
  }
}

const bareMetalAdapter: Adapter = {
  describe: () => ({
    family: 'bare-metal',
    kind: 'static',
    order: { providerData: { image: 'debian' } },
    badOrders: [
      {
        title: 'an image that does not exist',
        order: { providerData: { image: 'plan9' } },
        field: 'spec.provider_data.image',
      },
      { title: 'a misspelt key', order: { providerData: { imgae: 'debian' } }, field: 'spec.provider_data.imgae' },
    ],
    badConfig: { boot: { address: 'here' } },
    // No one call makes a host here, so that there is none whose answer could be lost with it made or not.
    faults: ['none', 'unavailable', 'create-fails', 'slow-create', 'clean-fails', 'verify-fails'],
    verbs: ['inject'],
    isolated: true,
    failpoints: true,
    listIntervalMs,
    createMs: 60_000,
    orders: 10,
    notes: ['ground truth: simulated machines, which boot from the provider and carry out what its agent would'],
  }),
  setUp: async (world) => {
    const segment = new Segment(world)
    segments.set(world.dir, segment)
    const { filesDir, ipxeDir } = makeFiles(world.dir)
    return {
      config: configOf(await segment.listen()),
      credentials: { bmc: { default: { values: { token: secret } } } },
      env: {
        SLIPWAY_BARE_METAL_DIR: filesDir,
        SLIPWAY_BARE_METAL_IPXE_DIR: ipxeDir,
        SLIPWAY_BARE_METAL_LIST_INTERVAL_MS: String(listIntervalMs),
      },
    }
  },
  list: (world) => truthOf(world),
  inject: (world, fault) => {
    const segment = segments.get(world.dir)
    if (segment === undefined) return {}
    segment.refusesNext = fault === 'unavailable'
    segment.fault = fault === 'unavailable' ? 'none' : fault
    return {}
  },
  tearDown: async (world) => {
    await segments.get(world.dir)?.close()
    segments.delete(world.dir)
  },
}

export default bareMetalAdapter

function truthOf(world: World): Truth {
  const segment = segments.get(world.dir)
  const machines = [...(segment?.machines.values() ?? [])]
  return {
    things: machines.map((machine) => ({
      kind: 'server',
      externalId: machine.options.id,
      ownershipKey: keyOf(world, machine, segment?.shutDown.has(machine.options.id) === true),
      power: machine.power,
      clean: machine.soiledBy === undefined,
    })),
    writes: machines.reduce((sum, { writes }) => sum + writes, 0),
    violations: machines.flatMap(({ violations }) => violations.map(({ what, machine }) => `${machine}: ${what}`)),
  }
}

/** Whose host is on a machine: what is on its disk can boot, and does, or did until it was asked to end. */
function keyOf(world: World, { installed, power, inAgent }: SimMachine, isShutDown: boolean): string {
  const request = installed?.replace(/^machineRequests\//, '')
  return request === undefined || (power === 'off' && !isShutDown) || inAgent ? '' : `${world.hubId}/${request}`
}
