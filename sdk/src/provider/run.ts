import { hostname } from 'node:os'
import { pino, type DestinationStream, type Logger } from 'pino'
import { enrol } from '../internal/enrol.js'
import { parseGateway, type GatewayAddress } from '../internal/grpc.js'
import { loadIdentity, saveIdentity, type Identity } from '../internal/identity.js'
import { parseJoinToken } from '../internal/join-token.js'
import { keepRenewed } from '../internal/renewal.js'
import { FinalError, rpcFailure } from '../internal/rpc-error.js'
import { backOffMs, sleep } from '../internal/timing.js'
import { Engine } from './engine.js'
import type { AnyDefinition } from './settings.js'
import type { RunOptions } from './types.js'

const defaultCapacity = 10

/** What must never be in a log line, wherever a provider's author puts it. */
const secretKeys = [
  'credentials',
  'joinToken',
  'userData',
  'phoneHomeToken',
  'phoneHomePathUrl',
  'password',
  'secret',
  'token',
  'apiKey',
  'authorization',
  'keyPem',
]

/** The logger of a provider process: JSON lines on stdout, with secrets left out. */
export function makeLogger(
  level = 'info',
  destination: DestinationStream = pino.destination({ fd: 1, sync: true }),
): Logger {
  const paths = secretKeys.flatMap((key) => [key, `*.${key}`, `*.*.${key}`])
  return pino({ level, timestamp: pino.stdTimeFunctions.isoTime, redact: { paths, censor: '[secret]' } }, destination)
}

/** Runs a provider until the signal fires. @throws FinalError where going on makes no sense. */
export async function runProvider(definition: AnyDefinition, options: RunOptions): Promise<void> {
  const log = (options.log ?? makeLogger()).child({ family: definition.family })
  const capacity = options.capacity ?? definition.capacity ?? defaultCapacity
  if (!Number.isInteger(capacity) || capacity < 0 || capacity > 10_000) {
    throw new FinalError('CAPACITY_INVALID', `a capacity is a whole number from 0 to 10000, not ${capacity}`)
  }
  const gateway = parseGateway(options.gateway)
  const instanceName = options.instanceName ?? hostname()
  let identity = await identify(gateway, { ...options, instanceName }, log)
  if (identity === undefined) return
  const engine = new Engine({
    definition,
    gateway,
    identity: () => identity ?? unreachable(),
    instanceName,
    capacity,
    log,
  })
  const renewal = {
    identity: () => identity ?? unreachable(),
    client: () => engine.session.client,
    onRenewed: async (next: Identity) => {
      await saveIdentity(options.stateDir, next)
      identity = next
    },
    log,
  }
  await serveEngine(engine, (signal) => keepRenewed(renewal, signal), options.signal)
  log.info('stopped')
}

/** Runs an engine until the signal fires, then stops it in good order. @throws FinalError where going on makes no sense. */
export async function serveEngine(
  engine: Engine,
  renewing: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const ended = new AbortController()
  const stopped = new Promise<void>((resolve) => {
    if (signal?.aborted === true) resolve()
    signal?.addEventListener('abort', () => resolve(), { once: true })
  })
  const serving = engine.session.run(ended.signal)
  const beside = [engine.lookAround(), renewing(ended.signal)]
  try {
    await Promise.race([serving, stopped])
    await engine.stop()
  } finally {
    engine.abandon('this instance has ended')
    ended.abort(new Error('ended'))
    await Promise.all(beside)
  }
  await serving
}

/** The identity kept in the state folder, else a new one for the join token. Undefined: stopped before there was one. */
async function identify(
  gateway: GatewayAddress,
  options: RunOptions & { readonly instanceName: string },
  log: Logger,
): Promise<Identity | undefined> {
  const stored = await loadIdentity(options.stateDir)
  if (stored !== undefined && stored.notAfterMs > Date.now()) {
    if (options.joinToken !== undefined)
      log.info({ provider: stored.provider }, 'enrolled already: the join token is not used')
    return stored
  }
  if (options.joinToken === undefined) {
    throw new FinalError(
      'JOIN_TOKEN_MISSING',
      stored === undefined
        ? `there is no identity in ${options.stateDir} yet; start once with a join token, made with \`slipway provider token\``
        : `the certificate in ${options.stateDir} expired at ${new Date(stored.notAfterMs).toISOString()}; start once with a new join token`,
    )
  }
  const token = parseJoinToken(options.joinToken)
  for (let attempt = 0; options.signal?.aborted !== true; attempt += 1) {
    try {
      const identity = await enrol(gateway, token, options.instanceName)
      await saveIdentity(options.stateDir, identity)
      log.info({ provider: identity.provider, notAfter: new Date(identity.notAfterMs).toISOString() }, 'enrolled')
      return identity
    } catch (error) {
      if (error instanceof FinalError) throw error
      log.warn({ error: rpcFailure(error).message }, 'not enrolled yet; trying again')
      await sleep(500 + backOffMs(attempt, 250, 30_000), options.signal).catch(() => undefined)
    }
  }
  return undefined
}

function unreachable(): never {
  throw new Error('no identity')
}
