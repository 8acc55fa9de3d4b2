import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Interceptor } from '@connectrpc/connect'
import type { Logger } from 'pino'
import { memberOrders } from './api/host-set-orders.js'
import { startApi, type ApiDeps } from './api/server.js'
import { Authority } from './auth/authority.js'
import { ConfigError, type HubConfig, type KeySettings } from './config.js'
import { startGateway } from './gateway/server.js'
import { toOrderQuestion } from './gateway/convert.js'
import { startSealing } from './reconcile/audit/seal.js'
import { startRetiringClasses } from './reconcile/class/retire.js'
import { startController } from './reconcile/controller.js'
import type { ReconcilerDeps } from './reconcile/deps.js'
import type { Loop } from './reconcile/loop.js'
import { prepareFirstLook } from './reconcile/host/batch.js'
import { startExpiry } from './reconcile/expiry/release.js'
import { startHostSets } from './reconcile/host-set/round.js'
import { startReconciler } from './reconcile/reconciler.js'
import { startRewrap } from './reconcile/secret/rewrap.js'
import { startReleasingClaims } from './reconcile/pool/release.js'
import { startSettlingCredentials } from './reconcile/secret/settle.js'
import { KeyError, readKeyring } from './secrets/keys.js'
import type { Keyring } from './secrets/keyring.js'
import { transitUnwrapper } from './secrets/transit.js'
import { createBootstrapToken, mintClientToken } from './store/client-tokens.js'
import { isConnectionLoss, openDatabase, type Db } from './store/database.js'
import { startEmbeddedDatabase } from './store/embedded.js'
import { readMeta } from './store/meta.js'
import { migrate, schemaStatus } from './store/migrate.js'
import { startRelay } from './store/relay.js'
import { trim } from './store/retention.js'
import { Wake } from './store/wake.js'

const trimEveryMs = 10 * 60_000
const trimLeaseMs = 60_000
/** How long to wait for the database at the start, and how often to ask. */
const databaseWaitMs = 30_000
const databasePauseMs = 500
const idempotencyKeysMs = 48 * 3_600_000

export interface Hub {
  /** Base URL of the client API. */
  readonly apiUrl: string
  /** host:port. */
  readonly gatewayAddress: string
  /** Set at the very first start of a database: the first client token. It is shown this once. */
  readonly bootstrapToken: string | undefined
  /** Moves providers over, ends streams, and stops. */
  stop(): Promise<void>
}

/** What a program that holds a hub in itself may add to it: a test that looks on, for one. */
export interface HubExtras {
  /** What every call of the client API passes first, and its answer last. */
  readonly interceptors?: readonly Interceptor[]
}

/** Starts a hub. What was started is stopped again where something later fails. @throws ConfigError, EmbeddedDatabaseError, MigrationError. */
export async function startHub(
  config: HubConfig,
  keys: KeySettings,
  log: Logger,
  extras: HubExtras = {},
): Promise<Hub> {
  const closers: (() => Promise<unknown>)[] = []
  const stop = async () => {
    for (const close of closers.splice(0).reverse()) {
      await close().catch((error: unknown) => log.warn({ err: error }, 'something did not stop in good order'))
    }
  }
  try {
    return { ...(await start(config, keys, log, extras, closers)), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function start(
  config: HubConfig,
  keys: KeySettings,
  log: Logger,
  extras: HubExtras,
  closers: (() => Promise<unknown>)[],
): Promise<Omit<Hub, 'stop'>> {
  const keyring = await keyringOf(keys)
  const connectionString = await connect(config, log, closers)
  await prepareDatabase(connectionString, config, log)
  const pool = {
    connectionString,
    // A replica that stands still in the middle of a transaction holds its rows for no longer than its leases are good.
    idleInTransactionMs: Math.min(30_000, Math.max(2_000, config.leaseMs / 2)),
    onIdleError: (error: Error) => log.warn({ err: error }, 'a database connection broke; it is replaced'),
  }
  const db = openDatabase({ ...pool, role: 'slipway_hub', poolSize: config.poolSize })
  closers.push(() => db.destroy())
  const tenantDb = openDatabase({
    ...pool,
    role: 'slipway_tenant',
    poolSize: Math.max(2, Math.ceil(config.poolSize / 2)),
  })
  closers.push(() => tenantDb.destroy())
  const { hubId, epoch } = await onceDatabaseAnswers(() => readMeta(db), log)
  const { providerCertificateMs } = config
  const authority = await onceDatabaseAnswers(() => Authority.load(db, keyring, hubId, { providerCertificateMs }), log)
  const first = mintClientToken()
  const bootstrapToken = await onceDatabaseAnswers(() => createBootstrapToken(db, first), log)
  if (bootstrapToken !== undefined && config.bootstrapTokenFile !== undefined) {
    writeFileSync(config.bootstrapTokenFile, `${bootstrapToken}\n`, { mode: 0o600 })
  }
  const wake = new Wake()
  const relay = startRelay(connectionString, wake, config.replica, log)
  closers.push(() => relay.stop())
  const shared = { db, wake, keyring, authority, log, hubId, epoch, replica: config.replica }
  // Machines are told where to phone home only once that is known: with port 0, not before the API listens.
  const publicUrl = { value: config.publicUrl }
  const settings = {
    ...config,
    get publicUrl() {
      return publicUrl.value
    },
  }
  const gateway = await startGateway({ ...shared, config: settings })
  const gatewayAddress = `${gateway.host}:${gateway.port}`
  const apiDeps: ApiDeps = {
    ...shared,
    ...extras,
    tenantDb,
    config: { ...config, gatewayAdvertise: config.gatewayAdvertise === '' ? gatewayAddress : config.gatewayAdvertise },
    validator: {
      validate: (providerId, order, deadlineMs) => gateway.validate(providerId, toOrderQuestion(order), deadlineMs),
    },
    consoles: gateway.consoles,
    publicUrl: () => publicUrl.value,
    prepareFirstLook: (tx, expected, limits) =>
      publicUrl.value === '' ? undefined : prepareFirstLook({ ...shared, config: settings }, tx, expected, limits),
  }
  const api = await startApi(apiDeps)
  if (publicUrl.value === '') publicUrl.value = api.url
  const reconciler = startReconciler({ ...shared, config: settings })
  const trimming = startTrimming({ ...shared, config: settings }, config)
  const rewrap = startRewrap({ ...shared, config: settings })
  const retiring = startRetiringClasses({ ...shared, config: settings }, config.autoClassRetentionMs)
  const settling = startSettlingCredentials({ ...shared, config: settings })
  const releasing = startReleasingClaims({ ...shared, config: settings })
  const sealing = startSealing({ ...shared, config: settings })
  const expiry = startExpiry({ ...shared, config: settings })
  const hostSets = startHostSets({ ...shared, config: settings }, memberOrders(apiDeps))
  closers.push(
    () => sealing.stop(),
    () => api.drain(config.drainMs),
    () => reconciler.stop(),
    () => gateway.drain(config.drainMs),
    () => trimming.stop(),
    () => rewrap.stop(),
    () => retiring.stop(),
    () => settling.stop(),
    () => expiry.stop(),
    () => hostSets.stop(),
    () => releasing.stop(),
  )
  log.info({ api: api.url, gateway: gatewayAddress, hubId, replica: config.replica }, 'hub is up')
  return {
    apiUrl: api.url,
    gatewayAddress,
    bootstrapToken: config.bootstrapTokenFile === undefined ? bootstrapToken : undefined,
  }
}

/** The keys that this hub seals and opens with. @throws ConfigError. */
export async function keyringOf(keys: KeySettings): Promise<Keyring> {
  try {
    return await readKeyring(keys.text, [transitUnwrapper(keys.transit)])
  } catch (error) {
    if (error instanceof KeyError) throw new ConfigError(`SLIPWAY_KEY: ${error.message}`)
    throw error
  }
}

async function connect(config: HubConfig, log: Logger, closers: (() => Promise<unknown>)[]): Promise<string> {
  if (config.databaseUrl !== undefined) return config.databaseUrl
  const embedded = await startEmbeddedDatabase(join(config.dataDir ?? '', 'database'))
  closers.push(() => embedded.stop())
  log.info({ pid: embedded.pid }, 'embedded database is up')
  return embedded.connectionString
}

/** Brings the schema up to date, or sees that it is, as the login itself: what serves callers afterwards owns nothing. */
async function prepareDatabase(connectionString: string, config: HubConfig, log: Logger): Promise<void> {
  const db = openDatabase({ connectionString, poolSize: 1, onIdleError: () => undefined })
  try {
    await onceDatabaseAnswers(() => checkSchema(db, config, log), log)
  } finally {
    await db.destroy()
  }
}

/** A hub that is started while its database restarts waits for it, for a while. @param work what may be done again. @throws what the database threw last. */
async function onceDatabaseAnswers<T>(work: () => Promise<T>, log: Logger): Promise<T> {
  const until = performance.now() + databaseWaitMs
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!isConnectionLoss(error) || performance.now() > until) throw error
      log.warn({ err: error }, 'the database does not answer; waiting for it')
      await sleep(databasePauseMs)
    }
  }
}

async function checkSchema(db: Db, config: HubConfig, log: Logger): Promise<void> {
  if (config.migrate) {
    const applied = await migrate(db)
    if (applied.length > 0) log.info({ migrations: applied }, 'migrated')
  }
  const status = await schemaStatus(db)
  if (status.kind === 'behind') {
    throw new ConfigError(
      `the database lacks the migrations ${status.pending.join(', ')}: run \`slipway-hub migrate\` first, or start with --migrate`,
    )
  }
  if (status.kind !== 'ahead') return
  if (status.breaking)
    throw new ConfigError(
      `the database is of a newer hub (${status.unknown.join(', ')}), which this one cannot serve: update it`,
    )
  log.warn({ unknown: status.unknown }, 'the database is of a newer hub; this one can still serve it')
}

function startTrimming(deps: ReconcilerDeps, config: HubConfig): Loop {
  return startController(deps, {
    name: 'trim',
    leaseMs: trimLeaseMs,
    round: async (turn) => {
      await trim((work) => turn.write(work), {
        changesMs: config.changeRetentionMs,
        eventsMs: config.eventRetentionMs,
        idempotencyKeysMs,
      })
      return Math.min(trimEveryMs, config.changeRetentionMs)
    },
  })
}
