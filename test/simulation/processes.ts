import { create } from '@bufbuild/protobuf'
import { createContextValues, type HandlerContext } from '@connectrpc/connect'
import * as api from '@slipway/proto/hub/v1'
import {
  callerKey,
  everything,
  Feed,
  hostService,
  hostSetService,
  machineService,
  inTransaction,
  memberOrders,
  readChangesAfter,
  prepareFirstLook,
  recordPhoneHome,
  SessionHost,
  startExpiry,
  startHostSets,
  startReconciler,
  Wake,
  type ApiDeps,
  type Db,
  type Reconciler,
  type Tables,
} from '@slipway/hub/testing/simulation'
import { Engine, serveEngine, type AnyDefinition } from '@slipway/sdk/testing'
import { Kysely, PostgresDialect } from 'kysely'
import pino from 'pino'
import type { SimDatabase, SimPool } from './database.js'
import type { Network } from './network.js'
import type { Node, Scheduler } from './scheduler.js'
import type { SetUp } from './setup.js'

// Hubs and provider instances as they are, each in a process of the simulation.

export const leaseMs = 6_000
const changesOfPage = 2

const heartbeatMs = 2_000
const sweepMs = 1_500
export const idleInTransactionMs = 3_000
const orphanTimes = { orphanGraceMs: 2_000, orphanRestoreGraceMs: 2_000, orphanRemovalTimeoutMs: 10_000 }

const log = pino({ level: process.env['SLIPWAY_TEST_LOG'] ?? 'silent' })

export interface Wiring {
  readonly scheduler: Scheduler
  readonly database: SimDatabase
  readonly network: Network
  readonly setUp: SetUp
  /** Brings a wake-up to the other hubs, or loses it. */
  readonly relay: (from: HubProcess, deliver: (to: HubProcess) => void) => void
  /** Hubs keep host sets too. */
  readonly hostSets: boolean
}

type HostService = ReturnType<typeof hostService>
type MachineService = ReturnType<typeof machineService>
type HostSetService = ReturnType<typeof hostSetService>

/** One replica. */
export class HubProcess {
  readonly name: string
  readonly node: Node
  readonly pool: SimPool
  readonly wake: Wake
  readonly sessions: SessionHost
  readonly #db: Db
  readonly #hosts: HostService
  readonly #machines: MachineService
  readonly #hostSets: HostSetService
  readonly #controllers: readonly Pick<Reconciler, 'stop'>[]
  readonly #reconciler: Reconciler
  readonly #draining = new AbortController()

  constructor(wiring: Wiring, name: string) {
    const { scheduler, database, setUp } = wiring
    this.name = name
    this.node = scheduler.node(name)
    this.pool = database.pool(this.node, 5)
    const started = this.node.run(() => {
      const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool: this.pool as never }) })
      const wake = new Wake()
      wake.attachRelay((topic) => wiring.relay(this, (to) => to.wake.signalLocally(topic)))
      const { keyring, authority, hubId, epoch } = setUp
      const shared = { db, wake, keyring, authority, log, hubId, epoch, replica: name }
      const sessions = new SessionHost({
        ...shared,
        config: {
          gatewayHost: '',
          gatewayPort: 0,
          gatewayNames: [],
          replicaAddress: '',
          publicUrl: 'https://hub.example',
          leaseMs,
          heartbeatMs,
          sweepMs,
          watchHeartbeatMs: 2_000,
          maxMessageBytes: 4_194_304,
          ...orphanTimes,
        },
      })
      const reconcilerConfig = { sweepMs, leaseMs, publicUrl: 'https://hub.example', startGraceMs: 5_000 }
      const reconciler = startReconciler({
        ...shared,
        config: reconcilerConfig,
      })
      const deps: ApiDeps = {
        ...shared,
        tenantDb: shared.db,
        config: {
          apiHost: '',
          apiPort: 0,
          tls: undefined,
          gatewayAdvertise: '',
          reflection: false,
          issuers: [],
          watchHeartbeatMs: 2_000,
          maxMessageBytes: 4_194_304,
          ...orphanTimes,
        },
        validator: { validate: async () => ({ violations: [], unavailable: 'not asked' }) },
        consoles: {
          read: () => {
            throw new Error('nobody looks at consoles in the simulation')
          },
        },
        publicUrl: () => reconcilerConfig.publicUrl,
        prepareFirstLook: (tx, expected, limits) =>
          prepareFirstLook({ ...shared, config: reconcilerConfig }, tx, expected, limits),
      }
      const feed = new Feed({
        ...{ db, wake, epoch, log, lookEveryMs: 2_500 },
        // So few that a watcher is cut off in the midst of them, too.
        read: (db, after) => readChangesAfter(db, after, changesOfPage),
      })
      const parts = { deps, feed, draining: this.#draining.signal }
      const own = { ...shared, config: reconcilerConfig }
      return {
        db,
        wake,
        sessions,
        reconciler,
        hosts: hostService(deps, parts),
        machines: machineService(deps, parts),
        hostSets: hostSetService(deps, parts),
        controllers: wiring.hostSets ? [startHostSets(own, memberOrders(deps)), startExpiry(own)] : [],
      }
    })
    this.#db = started.db
    this.wake = started.wake
    this.sessions = started.sessions
    this.#reconciler = started.reconciler
    this.#hosts = started.hosts
    this.#machines = started.machines
    this.#hostSets = started.hostSets
    this.#controllers = started.controllers
  }

  /** Calls of clients: each runs in this process, and its answer is lost with it. */
  call<T>(work: (hosts: HostService) => Promise<T>): Promise<T> {
    return this.node.run(() => work(this.#hosts))
  }

  /** What people do to machines. */
  callMachines<T>(work: (machines: MachineService) => Promise<T>): Promise<T> {
    return this.node.run(() => work(this.#machines))
  }

  /** The same for calls about host sets. */
  callSets<T>(work: (sets: HostSetService) => Promise<T>): Promise<T> {
    return this.node.run(() => work(this.#hostSets))
  }

  phoneHome(token: string): Promise<void> {
    return this.node.run(async () => {
      const heard = await inTransaction(this.#db, (tx) => recordPhoneHome(tx, token, { hostname: '' }), 'phone-home')
      if (heard.first) this.wake.signal({ kind: 'host' }, { kind: 'change' })
    })
  }

  /** Stops it in good order, as for a rolling restart. */
  stop(): Promise<void> {
    return this.node.run(async () => {
      this.#draining.abort()
      await Promise.all([this.#reconciler.stop(), ...this.#controllers.map((controller) => controller.stop())])
      await this.sessions.drain(3_000)
    })
  }
}

/** What a caller is to a handler. */
export function callContext(method: 'createHost' | 'deleteHost' | 'watchHosts', signal: AbortSignal): HandlerContext {
  return contextOf(api.HostService.method[method], signal)
}

/** The same for calls about host sets. */
export function setContext(
  method: 'createHostSet' | 'updateHostSet' | 'deleteHostSet' | 'resumeHostSet',
  signal: AbortSignal,
): HandlerContext {
  return contextOf(api.HostSetService.method[method], signal)
}

function contextOf(method: object, signal: AbortSignal): HandlerContext {
  const values = createContextValues().set(callerKey, {
    tokenId: 'simulation',
    name: 'simulation',
    requestId: '',
    access: everything,
  })
  return { values, signal, method } as unknown as HandlerContext
}

/** What a person who looks after machines is to a handler. */
export function machineContext(signal: AbortSignal): HandlerContext {
  const values = createContextValues().set(callerKey, {
    ...{ tokenId: 'keeper', name: 'keeper', requestId: '' },
    access: everything,
  })
  return { values, signal, method: api.MachineService.method.holdMachine } as unknown as HandlerContext
}

/** One instance of a provider. */
export class ProviderProcess {
  readonly name: string
  readonly provider: string
  readonly node: Node
  readonly #stop = new AbortController()
  readonly stopped: Promise<void>

  constructor(
    wiring: Wiring,
    options: {
      readonly provider: string
      readonly name: string
      readonly define: (node: Node) => AnyDefinition
      /** Which replica the next connection reaches. */
      readonly nextHub: () => HubProcess | undefined
    },
  ) {
    const { scheduler, network, setUp } = wiring
    this.name = options.name
    this.provider = options.provider
    this.node = scheduler.node(options.name)
    const certificate = setUp.certificates.get(options.provider) ?? Buffer.alloc(0)
    const nowhere = scheduler.node('nowhere')
    nowhere.alive = false
    this.stopped = this.node.run(() => {
      const engine = new Engine({
        definition: options.define(this.node),
        gateway: { host: 'hub', port: 1 },
        identity: () => ({
          provider: `providers/${options.provider}`,
          keyPem: '',
          certificatePem: '',
          caPems: [],
          notBeforeMs: 0,
          notAfterMs: Number.MAX_SAFE_INTEGER,
        }),
        instanceName: options.name,
        capacity: 3,
        log,
        dial: () => {
          const hub = options.nextHub()
          return network.dial(this.node, hub?.node ?? nowhere, certificate, (stream) => hub?.sessions.accept(stream))
        },
      })
      return serveEngine(engine, () => Promise.resolve(), this.#stop.signal).catch((error: unknown) => {
        scheduler.violate('L7', `${options.name} ended by itself: ${String(error)}`)
      })
    })
  }

  stop(): void {
    this.node.run(() => this.#stop.abort())
  }
}

/** An order as a client sends it, again and again under one key. */
export function orderOf(name: string, machineClass: string): api.CreateHostRequest {
  return create(api.CreateHostRequestSchema, {
    parent: 'workspaces/default',
    hostId: name,
    requestId: `order-${name}`,
    host: create(api.HostSchema, { machineClass: `machineClasses/${machineClass}` }),
  })
}
