import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { JsonObject } from '@bufbuild/protobuf'
import { MachineState, ProviderState } from '@slipway/proto/hub/v1'
import { ProviderKind } from '@slipway/proto/provider/v1'
import { createSlipwayClient, type SlipwayClient } from '@slipway/sdk/client'
import { until } from '../tools/processes.js'
import { Writer, type FaultLine, type ProcessLine, type RunFacts } from './history.js'
import { Network } from './network.js'
import { Party } from './party.js'
import { Postgres, postgresPort } from './postgres.js'
import { Link } from './proxy.js'
import { mountMemory, unmount } from './sandbox.js'
import * as topology from './topology.js'
import type { WorkloadSettings } from './workload/settings.js'

const apiPort = 8080
const gatewayPort = 8443
/** Of PostgreSQL's own file system: small, so that it can be filled. */
const databaseMebibytes = 192
const providerScript = 'providers/simulated/dist/src/main.js'

const cloudConfig = {
  createDuration: { minMs: 100, maxMs: 800 },
  deleteDuration: { minMs: 50, maxMs: 400 },
  powerDuration: { minMs: 50, maxMs: 200 },
  bootDuration: { minMs: 100, maxMs: 500 },
  answerTimeoutMs: 500,
  actionTimeoutMs: 4_000,
  listingLagMs: 800,
  rateLimit: { limit: 120, windowMs: 1_000 },
  faults: { unavailableRate: 0.03, timeoutBeforeRate: 0.03, lostAnswerRate: 0.05, stuckActionRate: 0.01 },
}
const rackConfig = {
  machines: 6,
  installDuration: { minMs: 100, maxMs: 600 },
  wipeDuration: { minMs: 100, maxMs: 600 },
  inspectDuration: 100,
  powerDuration: { minMs: 50, maxMs: 200 },
  bootDuration: { minMs: 100, maxMs: 500 },
  answerTimeoutMs: 500,
  actionTimeoutMs: 4_000,
  faults: { unavailableRate: 0.02, timeoutBeforeRate: 0.02, lostAnswerRate: 0.03 },
}

const hubTimes = {
  SLIPWAY_LEASE: `${topology.leaseMs}ms`,
  SLIPWAY_HEARTBEAT: `${topology.leaseMs / 3}ms`,
  SLIPWAY_SWEEP: '200ms',
  SLIPWAY_DRAIN: '5s',
  SLIPWAY_WATCH_HEARTBEAT: '2s',
}

/** A whole Slipway of real processes, in its own network, with everything that can break it. */
export class World {
  readonly folder: string
  readonly histories: string
  readonly network: Network
  readonly faultLog: Writer<FaultLine>
  readonly processLog: Writer<ProcessLine>
  readonly parties = new Map<string, Party>()
  readonly links = new Map<string, Link>()
  readonly stopFile: string
  postgres!: Postgres
  token = ''
  #seed = 0
  readonly #databaseFolder: string

  private constructor(folder: string, histories: string, network: Network) {
    this.folder = folder
    this.histories = histories
    this.network = network
    this.stopFile = join(folder, 'stop')
    this.#databaseFolder = join(folder, 'database')
    this.faultLog = new Writer(histories, 'faults')
    this.processLog = new Writer(histories, 'processes')
  }

  /** Builds everything and waits until orders can be taken. @param network the run's one network, used by each round in turn. */
  static async create(seed: number, folder: string, histories: string, network: Network): Promise<World> {
    for (const path of [folder, histories]) mkdirSync(path, { recursive: true })
    const world = new World(folder, histories, network)
    world.#seed = seed
    try {
      await world.#build()
    } catch (error) {
      await world.close()
      throw error
    }
    return world
  }

  party(name: string): Party {
    const party = this.parties.get(name)
    if (party === undefined) throw new Error(`there is no party ${name}`)
    return party
  }

  link(name: string): Link {
    const link = this.links.get(name)
    if (link === undefined) throw new Error(`there is no link ${name}`)
    return link
  }

  hubUrl(hub: string): string {
    return `http://${topology.addressOf(hub)}:${apiPort}`
  }

  /** Whether a hub says that it can serve. */
  async isReady(hub: string): Promise<boolean> {
    try {
      return (await fetch(`${this.hubUrl(hub)}/readyz`, { signal: AbortSignal.timeout(1_000) })).ok
    } catch {
      return false
    }
  }

  startAll(names: readonly string[]): void {
    for (const name of names) this.party(name).start()
  }

  worldFolder(name: string): string {
    return join(this.histories, 'worlds', name)
  }

  async close(): Promise<void> {
    await Promise.all([...this.parties.values()].map((party) => party.end('SIGKILL', 'the end')))
    await (this.postgres as Postgres | undefined)?.end('SIGKILL', 'the end')
    await Promise.all([...this.links.values()].map((link) => link.close()))
    await sleep(100)
    unmount(this.#databaseFolder)
    this.faultLog.close()
    this.processLog.close()
  }

  async #build(): Promise<void> {
    mountMemory(this.#databaseFolder, databaseMebibytes)
    const log = join(this.histories, 'postgres.log')
    this.postgres = await Postgres.create(topology.database, this.#databaseFolder, this.processLog, log)
    await this.#openLinks()
    const key = randomBytes(32).toString('hex')
    const tokenFile = join(this.folder, 'token')
    for (const hub of topology.hubs) {
      this.#addHub(hub, key, hub === topology.hubs[0] ? ['--bootstrap-token-file', tokenFile] : [])
      this.party(hub).start()
      await until(`${hub} to serve`, () => this.isReady(hub))
    }
    this.token = readFileSync(tokenFile, 'utf8').trim()
    const client = createSlipwayClient({ baseUrl: this.hubUrl(topology.hubs[0]), token: this.token })
    await this.#addProviders(client)
    await this.#addClasses(client)
    const { hubId } = await client.system.getServerInfo({})
    const facts: RunFacts = {
      seed: this.#seed,
      hubId,
      worlds: [
        ...topology.clouds.map((name) => ({ name, folder: join('worlds', name), kind: 'cloud' as const })),
        { name: topology.rack, folder: join('worlds', topology.rack), kind: 'rack' as const },
      ],
      foreignKeys: topology.clouds.map((name) => `somebody-else/${name}`),
    }
    writeFileSync(join(this.histories, 'run.json'), `${JSON.stringify(facts, undefined, 2)}\n`)
    this.#addWorkload()
    await this.#untilPlaceable(client)
  }

  async #openLinks(): Promise<void> {
    const both = topology.hubs.map((hub) => ({ host: topology.addressOf(hub), port: apiPort }))
    for (const wire of topology.wires) {
      const link = new Link(wire.name, topology.wireAddress(wire.name))
      this.links.set(wire.name, link)
      if (wire.class === 'hub-db')
        await link.listen(postgresPort, [{ host: topology.addressOf(topology.database), port: postgresPort }])
      else if (wire.class === 'provider-hub')
        await link.listen(
          gatewayPort,
          both.map(({ host }) => ({ host, port: gatewayPort })),
          'turns',
        )
      else for (const [index, target] of both.entries()) await link.listen(apiPort + index + 1, [target])
    }
    const home = new Link('home', topology.homeAddress)
    this.links.set('home', home)
    await home.listen(apiPort, both, 'turns')
  }

  #addHub(name: string, key: string, more: readonly string[]): void {
    const address = topology.addressOf(name)
    const names = topology.providers.map((provider) => topology.wireAddress(`${provider}/hub`))
    this.#add('hub', name, 'hub/bin/slipway-hub.js', ['serve', '--migrate', '--allow-plaintext', ...more], {
      ...hubTimes,
      DATABASE_URL: this.postgres.url(topology.wireAddress(`${name}/db`)),
      SLIPWAY_KEY: key,
      SLIPWAY_LISTEN: `${address}:${apiPort}`,
      SLIPWAY_GATEWAY_LISTEN: `${address}:${gatewayPort}`,
      SLIPWAY_GATEWAY_NAMES: names.join(','),
      SLIPWAY_PUBLIC_URL: `http://${topology.homeAddress}:${apiPort}`,
    })
  }

  async #addProviders(client: SlipwayClient): Promise<void> {
    const add = (providerId: string, family: string, config: JsonObject, dynamic: boolean) =>
      client.providers.createProvider({
        providerId,
        provider: {
          family,
          kind: dynamic ? ProviderKind.DYNAMIC : ProviderKind.STATIC,
          config,
          autoAcceptMachines: !dynamic,
        },
        requestId: `chaos-${providerId}`,
      })
    await add('cloud-a', 'simulated', { ...cloudConfig, seed: this.#seed, idempotency: 'unique-name' }, true)
    await add('cloud-b', 'simulated', { ...cloudConfig, seed: this.#seed + 1, idempotency: 'token' }, true)
    await add('rack', 'simulated-rack', { ...rackConfig, seed: this.#seed }, false)
    for (const name of topology.providers) {
      const provider = name.replace(/-\d$/, '')
      const state = join(this.folder, name)
      mkdirSync(state, { recursive: true })
      const { joinToken } = await client.providers.createJoinToken({ provider: `providers/${provider}` })
      writeFileSync(join(state, 'join-token'), joinToken, { mode: 0o600 })
      this.#add('provider', name, providerScript, [
        ...['--kind', provider === topology.rack ? 'static' : 'dynamic', '--world', this.worldFolder(provider)],
        ...['--gateway', `${topology.wireAddress(`${name}/hub`)}:${gatewayPort}`],
        ...['--state-dir', state, '--join-token-file', join(state, 'join-token')],
        ...['--effect-timeout-ms', '2000', '--list-interval-ms', '1000', '--offerings-interval-ms', '2000'],
        ...(provider === topology.rack ? [] : ['--listing-lag-ms', '1000']),
      ])
      this.party(name).start()
    }
  }

  async #addClasses(client: SlipwayClient): Promise<void> {
    const bootstrap = { phoneHome: true, phoneHomeTimeout: { seconds: 60n } }
    const shape = { vcpus: 2, memoryMib: 4096n, diskGib: 40n, architecture: 'amd64' }
    for (const cloud of topology.clouds) {
      const offerings = [{ family: 'simulated', provider: `providers/${cloud}`, typeId: 'sim-small' }]
      await client.machineClasses.createMachineClass({
        machineClassId: cloud,
        machineClass: { shape, offerings, bootstrap },
      })
    }
    await client.machineClasses.createMachineClass({
      machineClassId: 'metal',
      machineClass: { shape: {}, machineSelector: { provider: 'providers/rack' }, bootstrap },
    })
  }

  #addWorkload(): void {
    const add = (kind: 'client' | 'watcher', name: string, more: Partial<WorkloadSettings>, index: number) => {
      const address = topology.wireAddress(`${name}/hub`)
      const settings: WorkloadSettings = {
        name,
        hubs: topology.hubs.map((_, hub) => `http://${address}:${apiPort + hub + 1}`),
        token: this.token,
        histories: this.histories,
        seed: this.#seed * 100 + index,
        stopFile: this.stopFile,
        ...more,
      }
      const file = join(this.folder, `${name}.json`)
      writeFileSync(file, JSON.stringify(settings), { mode: 0o600 })
      this.#add(kind, name, `test/dist/chaos/workload/${kind}.js`, [file])
    }
    const classes = [
      { name: 'machineClasses/cloud-a', atOnce: 4 },
      { name: 'machineClasses/cloud-b', atOnce: 4 },
      { name: 'machineClasses/metal', atOnce: 2 },
    ]
    topology.clients.forEach((name, index) => add('client', name, { classes }, index))
    const watch = ['host', 'request', 'machine', 'event']
    topology.watchers.forEach((name, index) => add('watcher', name, { watch }, index + 50))
  }

  #add(kind: Party['kind'], name: string, script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): void {
    const places = { folder: this.histories, scratch: this.folder, log: this.processLog }
    const options = { kind, name, script, args, env, ...places }
    this.parties.set(name, new Party(options))
  }

  /** Until every class could be had: providers connected, offerings told, machines of the rack clean. */
  async #untilPlaceable(client: SlipwayClient): Promise<void> {
    await until('all providers to be connected', async () => {
      const { providers } = await client.providers.listProviders({})
      return providers.every(({ state }) => state === ProviderState.CONNECTED) || undefined
    })
    await until('the rack to be clean', async () => {
      const { machines } = await client.machines.listMachines({ filter: { states: [MachineState.AVAILABLE] } })
      return machines.length === rackConfig.machines || undefined
    })
  }
}

/** Makes the network that all rounds of a run share. */
export async function createNetwork(): Promise<Network> {
  const network = await Network.create()
  for (const party of topology.parties) await network.addParty(party, topology.addressOf(party))
  const addresses = [...topology.wires.map(({ name }) => topology.wireAddress(name)), topology.homeAddress]
  for (const address of addresses) await network.addAddress(address)
  return network
}
