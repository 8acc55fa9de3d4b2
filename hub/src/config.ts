import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { isIP } from 'node:net'
import { IssuerConfigError, parseIssuers, type IssuerConfig } from './domain/sign-in/issuer.js'
import { logLevels, type LogLevel } from './observe/log.js'

// The one reader of the environment. Flags go before environment variables; both are named in every refusal.

/** A setting is missing or wrong. The message names it and says what to do. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}

export interface HostPort {
  readonly host: string
  readonly port: number
}

export interface HubConfig {
  readonly mode: 'serve' | 'dev'
  /** Absent: the embedded database in dataDir. */
  readonly databaseUrl: string | undefined
  readonly dataDir: string | undefined
  readonly poolSize: number
  readonly migrate: boolean
  readonly apiHost: string
  readonly apiPort: number
  readonly tls: { readonly certFile: string; readonly keyFile: string } | undefined
  readonly gatewayHost: string
  readonly gatewayPort: number
  readonly gatewayNames: readonly string[]
  /** What instances are told to connect to, host:port. Empty: where the gateway listens. */
  readonly gatewayAdvertise: string
  /** Where other replicas reach this one's gateway, host:port. Empty: where it listens. */
  readonly replicaAddress: string
  /** Empty: where the client API listens. */
  readonly publicUrl: string
  readonly reflection: boolean
  readonly leaseMs: number
  readonly heartbeatMs: number
  readonly sweepMs: number
  readonly drainMs: number
  readonly watchHeartbeatMs: number
  readonly providerCertificateMs: number
  readonly changeRetentionMs: number
  readonly eventRetentionMs: number
  /** Classes that were made for shapes go when nothing has used them for so long. */
  readonly autoClassRetentionMs: number
  readonly orphanGraceMs: number
  readonly orphanRestoreGraceMs: number
  readonly orphanRemovalTimeoutMs: number
  readonly maxMessageBytes: number
  /** Where people sign in. */
  readonly issuers: readonly IssuerConfig[]
  readonly logLevel: LogLevel
  readonly bootstrapTokenFile: string | undefined
  readonly replica: string
}

/** A setting as flag and variable. Times are like `15s`, `500ms`, `10m`, `24h`. */
export interface Setting {
  readonly flag: string
  readonly env: string
  readonly value: string
  readonly help: string
  readonly fallback: string
}

export const settings: readonly Setting[] = [
  {
    flag: 'data-dir',
    env: 'SLIPWAY_DATA_DIR',
    value: 'DIR',
    fallback: '',
    help: 'folder of the embedded database, used where no DATABASE_URL is given',
  },
  {
    flag: 'listen',
    env: 'SLIPWAY_LISTEN',
    value: 'HOST:PORT',
    fallback: '127.0.0.1:8080',
    help: 'where the client API listens; port 0 takes a free one',
  },
  {
    flag: 'tls-cert',
    env: 'SLIPWAY_TLS_CERT',
    value: 'FILE',
    fallback: '',
    help: 'certificate chain of the client API, PEM',
  },
  { flag: 'tls-key', env: 'SLIPWAY_TLS_KEY', value: 'FILE', fallback: '', help: 'its private key, PEM' },
  {
    flag: 'allow-plaintext',
    env: 'SLIPWAY_ALLOW_PLAINTEXT',
    value: '',
    fallback: 'false',
    help: 'serve the client API without TLS beyond loopback, for use behind a proxy that has TLS',
  },
  {
    flag: 'gateway-listen',
    env: 'SLIPWAY_GATEWAY_LISTEN',
    value: 'HOST:PORT',
    fallback: '127.0.0.1:8443',
    help: 'where provider instances connect',
  },
  {
    flag: 'gateway-names',
    env: 'SLIPWAY_GATEWAY_NAMES',
    value: 'NAMES',
    fallback: '',
    help: 'further names and addresses for the gateway certificate, by commas',
  },
  {
    flag: 'gateway-advertise',
    env: 'SLIPWAY_GATEWAY_ADVERTISE',
    value: 'HOST:PORT',
    fallback: '',
    help: 'what instances are told to connect to; default: where it listens',
  },
  {
    flag: 'replica-address',
    env: 'SLIPWAY_REPLICA_ADDRESS',
    value: 'HOST:PORT',
    fallback: '',
    help: "where other replicas reach this one's gateway; default: where it listens",
  },
  {
    flag: 'public-url',
    env: 'SLIPWAY_PUBLIC_URL',
    value: 'URL',
    fallback: '',
    help: 'the client API as booted machines reach it, to phone home; default: where it listens',
  },
  {
    flag: 'no-reflection',
    env: 'SLIPWAY_NO_REFLECTION',
    value: '',
    fallback: 'false',
    help: 'do not describe the API to callers',
  },
  {
    flag: 'migrate',
    env: 'SLIPWAY_MIGRATE',
    value: '',
    fallback: 'false',
    help: 'apply missing migrations at start (the embedded database always does)',
  },
  {
    flag: 'pool-size',
    env: 'SLIPWAY_POOL_SIZE',
    value: 'N',
    fallback: '10',
    help: 'database connections at most; half as many again serve tenants',
  },
  {
    flag: 'lease',
    env: 'SLIPWAY_LEASE',
    value: 'TIME',
    fallback: '15s',
    help: 'how long a lease is good for after the last heartbeat',
  },
  {
    flag: 'heartbeat',
    env: 'SLIPWAY_HEARTBEAT',
    value: 'TIME',
    fallback: '5s',
    help: 'how often instances are to send heartbeats; at most a third of the lease',
  },
  {
    flag: 'sweep',
    env: 'SLIPWAY_SWEEP',
    value: 'TIME',
    fallback: '1s',
    help: 'how often to look for work without being woken',
  },
  { flag: 'drain', env: 'SLIPWAY_DRAIN', value: 'TIME', fallback: '20s', help: 'how long a stop may take' },
  {
    flag: 'watch-heartbeat',
    env: 'SLIPWAY_WATCH_HEARTBEAT',
    value: 'TIME',
    fallback: '10s',
    help: 'how often a silent watch is sent a sign of life',
  },
  {
    flag: 'provider-certificate',
    env: 'SLIPWAY_PROVIDER_CERTIFICATE',
    value: 'TIME',
    fallback: '24h',
    help: 'how long provider certificates are good for',
  },
  {
    flag: 'change-retention',
    env: 'SLIPWAY_CHANGE_RETENTION',
    value: 'TIME',
    fallback: '24h',
    help: 'how long a watch can be resumed',
  },
  {
    flag: 'event-retention',
    env: 'SLIPWAY_EVENT_RETENTION',
    value: 'TIME',
    fallback: '2160h',
    help: 'how long timelines are kept',
  },
  {
    flag: 'auto-class-retention',
    env: 'SLIPWAY_AUTO_CLASS_RETENTION',
    value: 'TIME',
    fallback: '720h',
    help: 'how long classes that were made for the shape of an order are kept when nothing uses them',
  },
  {
    flag: 'orphan-grace',
    env: 'SLIPWAY_ORPHAN_GRACE',
    value: 'TIME',
    fallback: '5m',
    help: 'added to the times that providers tell of their own, before something counts as an orphan that may go',
  },
  {
    flag: 'orphan-restore-grace',
    env: 'SLIPWAY_ORPHAN_RESTORE_GRACE',
    value: 'TIME',
    fallback: '24h',
    help: 'how long after a restore of the database the policy removes no orphan',
  },
  {
    flag: 'orphan-removal-timeout',
    env: 'SLIPWAY_ORPHAN_REMOVAL_TIMEOUT',
    value: 'TIME',
    fallback: '10m',
    help: 'how long an instance may take to remove an orphan, before the order is given again',
  },
  {
    flag: 'max-message',
    env: 'SLIPWAY_MAX_MESSAGE',
    value: 'BYTES',
    fallback: '4194304',
    help: 'how large a message may be',
  },
  {
    flag: 'issuers-file',
    env: 'SLIPWAY_ISSUERS_FILE',
    value: 'FILE',
    fallback: '',
    help: 'OpenID Connect issuers that people sign in at, JSON',
  },
  { flag: 'log-level', env: 'SLIPWAY_LOG_LEVEL', value: 'LEVEL', fallback: 'info', help: logLevels.join(', ') },
  {
    flag: 'bootstrap-token-file',
    env: 'SLIPWAY_BOOTSTRAP_TOKEN_FILE',
    value: 'FILE',
    fallback: '',
    help: 'write the first client token there (0600) instead of printing it',
  },
]

type Flags = Readonly<Record<string, string | boolean | undefined>>
type Environment = Readonly<Record<string, string | undefined>>

/**
 * Reads all settings.
 *
 * @param flags by flag name; true for a bare flag.
 * @throws ConfigError.
 */
export function readConfig(mode: HubConfig['mode'], flags: Flags, env: Environment): HubConfig {
  const read = reader(flags, env)
  const databaseUrl = mode === 'dev' ? undefined : (nonEmpty(env['DATABASE_URL']) ?? secretFile(env, 'DATABASE_URL'))
  const dataDir = nonEmpty(read('data-dir')) ?? (mode === 'dev' ? '.slipway/dev' : undefined)
  if (databaseUrl === undefined && dataDir === undefined) {
    throw new ConfigError(
      'no database: set DATABASE_URL (or DATABASE_URL_FILE) to a PostgreSQL, or --data-dir for the embedded database',
    )
  }
  const api = hostPort(read('listen'), '--listen')
  const gateway = hostPort(read('gateway-listen'), '--gateway-listen')
  const tls = tlsFiles(read('tls-cert'), read('tls-key'))
  if (tls === undefined && !isLoopback(api.host) && !flagSet(read('allow-plaintext'), '--allow-plaintext')) {
    throw new ConfigError(
      `--listen ${read('listen')} would send tokens in the clear: give --tls-cert and --tls-key, or --allow-plaintext behind a proxy that has TLS`,
    )
  }
  const leaseMs = duration(read('lease'), '--lease', 1_000)
  const heartbeatMs = duration(read('heartbeat'), '--heartbeat', 100)
  if (heartbeatMs * 3 > leaseMs)
    throw new ConfigError(
      `--heartbeat ${read('heartbeat')} is over a third of --lease ${read('lease')}: one lost heartbeat would lose leases`,
    )
  const logLevel = logLevels.find((level) => level === read('log-level'))
  if (logLevel === undefined)
    throw new ConfigError(`--log-level must be one of ${logLevels.join(', ')}, but is «${read('log-level')}»`)
  return {
    mode,
    databaseUrl,
    dataDir: dataDir === undefined ? undefined : resolve(dataDir),
    poolSize: wholeNumber(read('pool-size'), '--pool-size', 2, 1_000),
    migrate: mode === 'dev' || databaseUrl === undefined || flagSet(read('migrate'), '--migrate'),
    apiHost: api.host,
    apiPort: api.port,
    tls,
    gatewayHost: gateway.host,
    gatewayPort: gateway.port,
    gatewayNames: [
      ...new Set(['localhost', '127.0.0.1', hostname(), gateway.host, ...read('gateway-names').split(',')]),
    ]
      .map((name) => name.trim())
      .filter(isCertificateName),
    gatewayAdvertise: read('gateway-advertise'),
    replicaAddress: optionalHostPort(read('replica-address'), '--replica-address'),
    publicUrl: read('public-url').replace(/\/+$/, ''),
    reflection: !flagSet(read('no-reflection'), '--no-reflection'),
    leaseMs,
    heartbeatMs,
    sweepMs: duration(read('sweep'), '--sweep', 20),
    drainMs: duration(read('drain'), '--drain', 0),
    watchHeartbeatMs: duration(read('watch-heartbeat'), '--watch-heartbeat', 100),
    providerCertificateMs: duration(read('provider-certificate'), '--provider-certificate', 10_000),
    changeRetentionMs: duration(read('change-retention'), '--change-retention', 1_000),
    eventRetentionMs: duration(read('event-retention'), '--event-retention', 1_000),
    autoClassRetentionMs: duration(read('auto-class-retention'), '--auto-class-retention', 1_000),
    orphanGraceMs: duration(read('orphan-grace'), '--orphan-grace', 0),
    orphanRestoreGraceMs: duration(read('orphan-restore-grace'), '--orphan-restore-grace', 0),
    orphanRemovalTimeoutMs: duration(read('orphan-removal-timeout'), '--orphan-removal-timeout', 1_000),
    maxMessageBytes: wholeNumber(read('max-message'), '--max-message', 65_536, 64 * 1024 * 1024),
    issuers: readIssuers(read('issuers-file')),
    logLevel,
    bootstrapTokenFile: nonEmpty(read('bootstrap-token-file')),
    replica: `${hostname()}-${process.pid}`,
  }
}

/** @throws ConfigError. */
function readIssuers(file: string): readonly IssuerConfig[] {
  if (file === '') return []
  try {
    return parseIssuers(JSON.parse(readFileSync(file, 'utf8')))
  } catch (error) {
    if (error instanceof IssuerConfigError) throw new ConfigError(`--issuers-file ${file}: ${error.message}`)
    throw new ConfigError(
      `--issuers-file: cannot read ${file} as JSON: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}

/** Where key-encryption keys come from. */
export interface KeySettings {
  /** One on each line. Secret. */
  readonly text: string
  /** The Transit engine that unwraps those lines that begin with `transit:`; see its options in secrets/transit.ts. */
  readonly transit: { readonly address: string; readonly token: string; readonly namespace?: string } | undefined
}

/** The key-encryption keys, and what unwraps those that are wrapped. @throws ConfigError. */
export function readKeys(config: Pick<HubConfig, 'databaseUrl' | 'dataDir'>, env: Environment): KeySettings {
  const address = nonEmpty(env['VAULT_ADDR'])
  const token = nonEmpty(env['VAULT_TOKEN']) ?? secretFile(env, 'VAULT_TOKEN')
  const namespace = nonEmpty(env['VAULT_NAMESPACE'])
  return {
    text: readKeyText(config, env),
    transit:
      address === undefined || token === undefined
        ? undefined
        : { address, token, ...(namespace !== undefined && { namespace }) },
  }
}

/** From SLIPWAY_KEY or SLIPWAY_KEY_FILE; beside an embedded database one is made at the first start. @throws ConfigError. */
function readKeyText(config: Pick<HubConfig, 'databaseUrl' | 'dataDir'>, env: Environment): string {
  const given = nonEmpty(env['SLIPWAY_KEY']) ?? secretFile(env, 'SLIPWAY_KEY')
  if (given !== undefined) return given
  if (config.databaseUrl !== undefined || config.dataDir === undefined) {
    throw new ConfigError(
      'no key: set SLIPWAY_KEY_FILE to a file with the key-encryption key (`openssl rand -hex 32` makes one), the same for every replica. Without it, what is sealed in the database cannot be read: keep it safe, and apart from backups.',
    )
  }
  const file = join(config.dataDir, 'key')
  if (!existsSync(file)) {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    writeFileSync(file, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600, flag: 'wx' })
  }
  return readFileSync(file, 'utf8')
}

/** A configuration to be shown: the database's password is left out. */
export function redactedConfig(config: HubConfig): Readonly<Record<string, unknown>> {
  if (config.databaseUrl === undefined) return { ...config }
  return {
    ...config,
    databaseUrl: config.databaseUrl
      .replace(/(:\/\/[^:@/]*):[^@]*@/, '$1:[redacted]@')
      .replace(/([?&]password=)[^&]*/, '$1[redacted]'),
  }
}

function reader(flags: Flags, env: Environment): (flag: string) => string {
  return (flag) => {
    const setting = settings.find((candidate) => candidate.flag === flag)
    if (setting === undefined) throw new Error(`there is no setting ${flag}`)
    const given = flags[flag]
    if (given !== undefined) return String(given)
    return nonEmpty(env[setting.env]) ?? setting.fallback
  }
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text
}

function secretFile(env: Environment, name: string): string | undefined {
  const file = nonEmpty(env[`${name}_FILE`])
  if (file === undefined) return undefined
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw new ConfigError(
      `${name}_FILE: cannot read ${file}: ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}

function hostPort(text: string, name: string): HostPort {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  if (host === undefined || port > 65_535)
    throw new ConfigError(`${name} must be HOST:PORT, for example 127.0.0.1:8080, but is «${text}»`)
  return { host: host === '' ? '0.0.0.0' : host, port }
}

function optionalHostPort(text: string, name: string): string {
  if (text !== '' && hostPort(text, name).port === 0)
    throw new ConfigError(`${name} must name a port that others can connect to, but is «${text}»`)
  return text
}

function tlsFiles(certFile: string, keyFile: string): HubConfig['tls'] {
  if (certFile === '' && keyFile === '') return undefined
  if (certFile === '' || keyFile === '') throw new ConfigError('--tls-cert and --tls-key go together')
  for (const file of [certFile, keyFile]) if (!existsSync(file)) throw new ConfigError(`there is no file ${file}`)
  return { certFile, keyFile }
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Milliseconds of a text like `15s`. */
export function duration(text: string, name: string, atLeastMs: number): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text)
  const ms = Math.round(Number(match?.[1]) * (units[match?.[2] ?? ''] ?? Number.NaN))
  if (!Number.isFinite(ms))
    throw new ConfigError(`${name} must be a time like 500ms, 15s, 10m or 24h, but is «${text}»`)
  if (ms < atLeastMs) throw new ConfigError(`${name} must be at least ${atLeastMs} ms, but is «${text}»`)
  return ms
}

function wholeNumber(text: string, name: string, min: number, max: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < min || value > max)
    throw new ConfigError(`${name} must be a whole number from ${min} to ${max}, but is «${text}»`)
  return value
}

function flagSet(text: string, name: string): boolean {
  if (text === 'true' || text === '1') return true
  if (text === 'false' || text === '0') return false
  throw new ConfigError(`${name} must be true or false, but is «${text}»`)
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\./.test(host)
}

function isCertificateName(name: string): boolean {
  return name !== '' && name !== '0.0.0.0' && name !== '::' && (isIP(name) !== 0 || /^[A-Za-z0-9.-]+$/.test(name))
}
