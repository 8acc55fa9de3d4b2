import type { Client } from '@grpc/grpc-js'
import type { Logger } from 'pino'
import { renew } from './enrol.js'
import type { Identity } from './identity.js'
import { rpcFailure } from './rpc-error.js'
import { sleep } from './timing.js'

export interface RenewalOptions {
  readonly identity: () => Identity
  /** The running connection; undefined while there is none. */
  readonly client: () => Client | undefined
  /** Stores it, and takes it into use for the next connection. */
  readonly onRenewed: (identity: Identity) => Promise<void>
  readonly log: Logger
}

/** Looked at by the time of day, in short waits: a machine that slept must not wake up with an expired certificate and a timer still to run. */
const lookEveryMs = 60_000
const minPauseMs = 200

/** Keeps the certificate fresh until the signal fires: from half of its life on, with jitter, and again and again where that fails. */
export async function keepRenewed(options: RenewalOptions, signal: AbortSignal): Promise<void> {
  const { log } = options
  while (!signal.aborted) {
    const current = options.identity()
    const lifeMs = current.notAfterMs - current.notBeforeMs
    const dueAtMs = current.notBeforeMs + lifeMs * (0.5 + Math.random() * 0.1)
    try {
      while (Date.now() < dueAtMs)
        await sleep(Math.min(lookEveryMs, Math.max(minPauseMs, dueAtMs - Date.now())), signal)
      const client = options.client()
      if (client !== undefined) {
        const next = await renew(client, current)
        await options.onRenewed(next)
        log.info({ notAfter: new Date(next.notAfterMs).toISOString() }, 'the certificate is renewed')
        continue
      }
    } catch (error) {
      if (signal.aborted) return
      log.warn({ error: rpcFailure(error).message }, 'the certificate could not be renewed yet')
    }
    await sleep(Math.max(minPauseMs, Math.min(lookEveryMs, (lifeMs / 20) * (0.5 + Math.random()))), signal).catch(
      () => undefined,
    )
  }
}
