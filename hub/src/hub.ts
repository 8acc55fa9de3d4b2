import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Logger } from 'pino'
import { startApi } from './api/server.js'
import { Authority } from './auth/authority.js'
import { ConfigError, type HubConfig } from './config.js'
import { startGateway } from './gateway/server.js'
import { toOrderQuestion } from './gateway/convert.js'
import { startController } from './reconcile/controller.js'
import type { ReconcilerDeps } from './reconcile/deps.js'
import type { Loop } from './reconcile/loop.js'
import { prepareFirstLook } from './reconcile/host/batch.js'
import { startReconciler } from './reconcile/reconciler.js'
import { makeKeyring, parseKey } from './secrets/keyring.js'
import { createBootstrapToken } from './store/client-tokens.js'
import { databaseTime, isConnectionLoss, openDatabase, type Db } from './store/database.js'
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

/** Starts a hub. What was started is stopped again where something later fails. @throws ConfigError, EmbeddedDatabaseError, MigrationError. */
export async function startHub(config: HubConfig, keyText: string, log: Logger): Promise<Hub> {
  const closers: (() => Promise<unknown>)[] = []
  const stop = async () => {
    for (const close of closers.splice(0).reverse()) {
      await close().catch((error: unknown) => log.warn({ err: error }, 'something did not stop in good order'))
    }
  }
  try {
    return { ...(await start(config, keyText, log, closers)), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function start(
  config: HubConfig,
  keyText: string,
  log: Logger,
  closers: (() => Promise<unknown>)[],
): Promise<Omit<Hub, 'stop'>> {
  const keyring = makeKeyring([parseKey(keyText)])
  const connectionString = await connect(config, log, closers)
  const db = openDatabase({
    connectionString,
    poolSize: config.poolSize,
    // A replica that stands still in the middle of a transaction holds its rows for no longer than its leases are good.
    idleInTransactionMs: Math.min(30_000, Math.max(2_000, config.leaseMs / 2)),
    onIdleError: (error) => log.warn({ err: error }, 'a database connection broke; it is replaced'),
  })
  closers.push(() => db.destroy())
  await waitForDatabase(db, log)
  await checkSchema(db, config, log)
  const { hubId, epoch } = await readMeta(db)
  const authority = await Authority.load(db, keyring, hubId, { providerCertificateMs: config.providerCertificateMs })
  const bootstrapToken = await createBootstrapToken(db)
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
  const api = await startApi({
    ...shared,
    config: { ...config, gatewayAdvertise: config.gatewayAdvertise === '' ? gatewayAddress : config.gatewayAdvertise },
    validator: {
      validate: (providerId, order, deadlineMs) => gateway.validate(providerId, toOrderQuestion(order), deadlineMs),
    },
    publicUrl: () => publicUrl.value,
    prepareFirstLook: (tx, expected) =>
      publicUrl.value === '' ? undefined : prepareFirstLook({ ...shared, config: settings }, tx, expected),
  })
  if (publicUrl.value === '') publicUrl.value = api.url
  const reconciler = startReconciler({ ...shared, config: settings })
  const trimming = startTrimming({ ...shared, config: settings }, config)
  closers.push(
    () => api.drain(config.drainMs),
    () => reconciler.stop(),
    () => gateway.drain(config.drainMs),
    () => trimming.stop(),
  )
  log.info({ api: api.url, gateway: gatewayAddress, hubId, replica: config.replica }, 'hub is up')
  return {
    apiUrl: api.url,
    gatewayAddress,
    bootstrapToken: config.bootstrapTokenFile === undefined ? bootstrapToken : undefined,
  }
}

async function connect(config: HubConfig, log: Logger, closers: (() => Promise<unknown>)[]): Promise<string> {
  if (config.databaseUrl !== undefined) return config.databaseUrl
  const embedded = await startEmbeddedDatabase(join(config.dataDir ?? '', 'database'))
  closers.push(() => embedded.stop())
  log.info({ pid: embedded.pid }, 'embedded database is up')
  return embedded.connectionString
}

/** A hub that is started while its database restarts waits for it, for a while. @throws what the database threw last. */
async function waitForDatabase(db: Db, log: Logger): Promise<void> {
  const until = performance.now() + databaseWaitMs
  for (;;) {
    try {
      await databaseTime(db)
      return
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
