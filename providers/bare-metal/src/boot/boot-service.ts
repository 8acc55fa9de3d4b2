import { X509Certificate, createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ProviderError } from '@slipway/sdk'
import type { Logger } from 'pino'
import { z } from 'zod'
import type { Heartbeat, Inventory } from '../agent/protocol.js'
import type { Config } from '../config.js'
import { IdentityMismatch, type MachineBook } from '../machine-book.js'
import { parseMac } from '../mac.js'
import { AgentApi } from './agent-api.js'
import type { AgentDesk } from './agent-desk.js'
import { bootFile, readPem } from './boot-files.js'
import { BootApi, type BootKernel, type SeedFiles } from './boot-api.js'
import { Boots, defaultBootSettings, type Boot, type BootWindow, type NetbootPlan } from './boots.js'
import { ipxePrograms, type DhcpSite } from './dhcp-decide.js'
import { Leases, type Lease } from './dhcp-leases.js'
import { DhcpServer } from './dhcp-server.js'
import { HttpRefusal } from './http-answer.js'
import { BootHttpServer } from './http-server.js'
import { formatIpv4, maskOf, parseIpv4, parseNetwork } from './ipv4.js'
import { RogueLog, type RogueEvent } from './rogue-log.js'
import type { StateFile } from './state-file.js'
import { TftpServer } from './tftp-server.js'

const bootSchema = z.strictObject({
  bootId: z.string(),
  tokenHash: z.string().regex(/^[0-9a-f]{64}$/),
  windowId: z.string(),
  mac: z.string(),
  uuid: z.string().optional(),
  machineId: z.string().optional(),
  mintedAtMs: z.number(),
  redeemedAtMs: z.number().optional(),
  seenAtMs: z.number().optional(),
  over: z.boolean().optional(),
})

const leaseSchema = z.strictObject({ mac: z.string(), address: z.number(), untilMs: z.number() })

/** What outlives the process of all that concerns booting. Losing it costs the machines that boot at this moment one more boot. */
export const bootStateSchema = z.object({
  /** Seals sessions; base64. */
  key: z.base64(),
  boots: z.array(bootSchema),
  leases: z.array(leaseSchema).optional(),
})

export interface BootState {
  readonly key: string
  readonly boots: readonly Boot[]
  readonly leases?: readonly Lease[]
}

export interface BootServiceOptions {
  readonly book: MachineBook
  readonly desk: AgentDesk
  readonly log: Logger
  readonly state: BootState
  readonly stateFile: StateFile<unknown>
  /** Says where this process serves, for whoever points another DHCP server at it. */
  readonly endpointFile: StateFile<unknown>
  readonly ipxeDir: string
  readonly agentFiles: BootKernel
  readonly file: (folder: 'images' | 'netboot', name: string) => string
  readonly tlsFiles: { readonly cert: string; readonly key: string }
  /** Returns when what is known of machines is on disk. */
  readonly save: () => Promise<void>
  /** Told of what no honest machine does, as often as people can bear. */
  readonly onRogue?: (event: RogueEvent) => void
  readonly onHeartbeat: (machineId: string, beat: Heartbeat) => void
}

const heartbeatMs = 5_000

interface Running {
  readonly settings: string
  readonly http: BootHttpServer
  readonly secure: BootHttpServer | undefined
  readonly tftp: TftpServer
  readonly dhcp: DhcpServer | undefined
  readonly leases: Leases | undefined
}

/** All that a machine meets while it boots: DHCP, TFTP, HTTP, and the agent's contract. */
export class BootService {
  readonly boots: Boots
  readonly rogues: RogueLog
  readonly #options: BootServiceOptions
  readonly #agentApi: AgentApi
  readonly #bootApi: BootApi
  readonly #programs: ReadonlyMap<string, string>
  readonly #seeds = new Map<string, SeedFiles>()
  #config: Config | undefined
  #running: Running | undefined
  #bootUrl = ''
  #agentUrl = ''
  #pin: string | undefined

  constructor(options: BootServiceOptions) {
    const { book, desk, log, state, onHeartbeat } = options
    this.#options = options
    this.rogues = new RogueLog((event) => {
      log.warn({ rogue: event }, `${event.kind} by ${event.subject}: ${event.message}`)
      options.onRogue?.(event)
    })
    this.boots = new Boots(defaultBootSettings, (mac) => book.isKnownMac(mac), state.boots)
    this.#programs = new Map(Object.values(ipxePrograms).map((name) => [name, join(options.ipxeDir, name)]))
    this.#agentApi = new AgentApi({
      boots: this.boots,
      desk,
      key: Buffer.from(state.key, 'base64'),
      heartbeatMs,
      nowMs: Date.now,
      save: () => this.save(),
      onInventory: (boot, inventory) => this.#meet(boot, inventory),
      onHeartbeat,
    })
    this.#bootApi = this.#makeBootApi()
  }

  /** Serves by these settings. What is served by the same ones already goes on undisturbed. @throws ProviderError where that cannot be. */
  async apply(config: Config): Promise<void> {
    const { discovery, boot } = config
    this.#config = config
    this.boots.configure({ ...defaultBootSettings, discovery: discovery.enabled, maxUnknown: discovery.maxUnknown })
    const settings = JSON.stringify(boot)
    if (this.#running?.settings === settings) return
    await this.close()
    try {
      this.#running = await this.#start(config, settings)
    } catch (error) {
      if (error instanceof ProviderError) throw error
      throw new ProviderError('UNAVAILABLE', `machines cannot be served: ${sayListenError(error)}`, { cause: error })
    }
    const { http, secure, tftp } = this.#running
    this.#bootUrl = `http://${boot.address}:${http.port}`
    this.#agentUrl = secure === undefined ? this.#bootUrl : `https://${boot.address}:${secure.port}`
    const script = `${this.#bootUrl}/boot/script?mac=\${netX/mac}&uuid=\${uuid}`
    await this.#options.endpointFile.write(() => ({
      bootUrl: this.#bootUrl,
      script,
      tftpPort: tftp.port,
      pid: process.pid,
    }))
    this.#options.log.info({ bootUrl: this.#bootUrl, dhcp: boot.dhcp.mode }, 'machines can boot from here')
  }

  /** The boot endpoint, as machines reach it. */
  get url(): string {
    return this.#bootUrl
  }

  /** The same, for what agents fetch with their session. */
  get agentUrl(): string {
    return this.#agentUrl
  }

  /** What a machine's system may fetch while its window is open. */
  offerSeed(machineId: string, files: SeedFiles | undefined): void {
    if (files === undefined) this.#seeds.delete(machineId)
    else this.#seeds.set(machineId, files)
  }

  open(window: BootWindow): void {
    this.boots.open(window)
  }

  /** Returns when all that must outlive the process is on disk. */
  async save(): Promise<void> {
    const { stateFile, state } = this.#options
    await stateFile.write(() => {
      const leases = this.#running?.leases?.entries(Date.now())
      return { key: state.key, boots: this.boots.snapshot(Date.now()), ...(leases !== undefined && { leases }) }
    })
  }

  async close(): Promise<void> {
    const running = this.#running
    this.#running = undefined
    if (running === undefined) return
    const { http, secure, tftp, dhcp } = running
    await Promise.all([http.close(), secure?.close(), tftp.close(), dhcp?.close()])
  }

  async #start(config: Config, settings: string): Promise<Running> {
    const { boot } = config
    const opened: { close(): Promise<void> }[] = []
    const keep = <Server extends { close(): Promise<void> }>(server: Server): Server => {
      opened.push(server)
      return server
    }
    try {
      const http = keep(await this.#listenHttp(boot.address, boot.port))
      const secure = boot.tls === undefined ? undefined : keep(await this.#listenTls(boot.address, boot.tls.port))
      const tftp = keep(await this.#listenTftp(boot.address, boot.tftpPort))
      const leases = leasesOf(boot, this.#options.state.leases ?? [])
      const site = siteOf(boot, `http://${boot.address}:${http.port}`, leases)
      const dhcp = site === undefined ? undefined : keep(await this.#listenDhcp(site))
      return { settings, http, secure, tftp, dhcp, leases }
    } catch (error) {
      for (const server of opened) await server.close()
      throw error
    }
  }

  #listenHttp(
    host: string,
    port: number,
    tls?: { readonly cert: string; readonly key: string },
  ): Promise<BootHttpServer> {
    return BootHttpServer.listen({
      boot: this.#bootApi,
      agent: this.#agentApi,
      host,
      port,
      ...(tls !== undefined && { tls }),
      onRogue: (kind, address, message) => this.rogues.note(kind, address, message, Date.now()),
      onError: (error) => this.#options.log.warn({ err: error }, 'a request could not be answered'),
    })
  }

  async #listenTls(host: string, port: number): Promise<BootHttpServer> {
    const { tlsFiles } = this.#options
    const [cert, key] = [await readPem(tlsFiles.cert), await readPem(tlsFiles.key)]
    const spki = new X509Certificate(cert).publicKey.export({ type: 'spki', format: 'der' })
    this.#pin = `sha256//${createHash('sha256').update(spki).digest('base64')}`
    return this.#listenHttp(host, port, { cert, key })
  }

  async #listenTftp(host: string, port: number): Promise<TftpServer> {
    const files = new Map<string, Buffer>()
    for (const [name, path] of this.#programs) {
      try {
        files.set(name, await readFile(path))
      } catch (error) {
        throw new ProviderError('UNAVAILABLE', `${path} cannot be read; install the Debian package ipxe`, {
          cause: error,
        })
      }
    }
    return TftpServer.listen({
      host,
      port,
      files,
      onRogue: (kind, address, message) => this.rogues.note(kind, address, message, Date.now()),
      onSent: (address, file) => this.#options.log.debug({ address, file }, 'sent by TFTP'),
      onError: (error) => this.#options.log.warn({ err: error }, 'TFTP'),
    })
  }

  #listenDhcp(site: DhcpSite): Promise<DhcpServer> {
    return DhcpServer.listen({
      site,
      admit: (mac, uuid) => this.boots.admit(mac, uuid, Date.now()),
      nowMs: Date.now,
      onRogue: (kind, subject, message) => this.rogues.note(kind, subject, message, Date.now()),
      onReply: (mac, note) => {
        this.#options.log.debug({ mac, note }, 'answered by DHCP')
        if (site.leases !== undefined)
          void this.save().catch((error: unknown) => this.#options.log.warn({ err: error }, 'leases'))
      },
      onError: (error) => this.#options.log.warn({ err: error }, 'DHCP'),
    })
  }

  #makeBootApi(): BootApi {
    const { agentFiles, file, log } = this.#options
    return new BootApi({
      boots: this.boots,
      nowMs: Date.now,
      bootUrl: () => this.#bootUrl,
      save: () => this.save(),
      programs: this.#programs,
      agent: () => ({
        ...agentFiles,
        server: this.#agentUrl,
        ...(this.#pin !== undefined && this.#config?.boot.tls !== undefined && { pin: this.#pin }),
        ...(this.#config?.boot.console !== undefined && { console: this.#config.boot.console }),
        extra: this.#config?.boot.kernelArgs ?? '',
      }),
      netboot: ({ netboot }: NetbootPlan) => {
        const known = this.#config?.netboot[netboot]
        if (known === undefined) return undefined
        const local = (name: string): string => file('netboot', name)
        return { kernel: bootFile(known.kernel, local), initrds: known.initrds.map((name) => bootFile(name, local)) }
      },
      seed: (machineId) => this.#seeds.get(machineId),
      onScript: (boot, window) =>
        log.info({ mac: boot.mac, machine: boot.machineId, window: window.windowId }, 'a machine boots'),
      image: (id) => {
        const name = this.#config?.images[id]?.file
        return name === undefined ? undefined : file('images', name)
      },
    })
  }

  async #meet(boot: Boot, inventory: Inventory): Promise<string> {
    const { book, desk, save, log } = this.#options
    try {
      const id = book.meet(boot, inventory)
      if (boot.machineId === undefined) {
        this.boots.recognise(boot.bootId, id)
        desk.arrive(id, boot.bootId, Date.now())
        log.info({ machine: id, mac: boot.mac }, 'a machine was found')
      }
      await Promise.all([save(), this.save()])
      return id
    } catch (error) {
      if (!(error instanceof IdentityMismatch)) throw error
      this.rogues.note('identity-mismatch', boot.mac, error.message, Date.now())
      throw new HttpRefusal(403, 'this is another machine')
    }
  }
}

function leasesOf({ dhcp, address }: Config['boot'], known: readonly Lease[]): Leases | undefined {
  if (dhcp.mode !== 'full') return undefined
  const network = parseNetwork(dhcp.network)
  if (network === undefined) return undefined
  const own = [address, dhcp.router].flatMap((text) => (text === undefined ? [] : [parseIpv4(text) ?? 0]))
  const reservations = Object.entries(dhcp.reservations).map(
    ([mac, text]) => [parseMac(mac) ?? mac, parseIpv4(text) ?? 0] as const,
  )
  const settings = {
    network,
    from: parseIpv4(dhcp.from) ?? 0,
    to: parseIpv4(dhcp.to) ?? 0,
    reservations: new Map(reservations),
    taken: own,
    leaseMs: dhcp.leaseMs,
  }
  return new Leases(settings, known)
}

function siteOf({ dhcp, address }: Config['boot'], bootUrl: string, leases: Leases | undefined): DhcpSite | undefined {
  if (dhcp.mode === 'off') return undefined
  if (dhcp.mode !== 'full') return { serverAddress: address, bootUrl, mode: dhcp.mode }
  const network = parseNetwork(dhcp.network)
  const mask = network === undefined ? '255.255.255.0' : formatIpv4(maskOf(network))
  return {
    serverAddress: address,
    bootUrl,
    mode: 'full',
    network: { mask, dns: dhcp.dns, ...(dhcp.router !== undefined && { router: dhcp.router }) },
    addressKnown: dhcp.addressKnown,
    ...(leases !== undefined && { leases }),
  }
}

function sayListenError(error: unknown): string {
  const { code, message, address, port } = error as NodeJS.ErrnoException & { address?: string; port?: number }
  const where = port === undefined ? '' : ` ${address ?? ''}:${port}`
  if (code === 'EADDRINUSE') return `${where.trim()} is taken by another process`
  if (code === 'EACCES') return `the process may not listen at${where}: give it CAP_NET_BIND_SERVICE`
  if (code === 'EADDRNOTAVAIL') return `${where.trim()} is no address of this host: correct boot.address`
  return message
}
