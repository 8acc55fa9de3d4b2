import { setTimeout as sleep } from 'node:timers/promises'
import { Code } from '@connectrpc/connect'
import { SlipwayError } from './errors.js'

const firstPauseMs = 100
const longestPauseMs = 5_000
/** Answers after which a console goes on from its last position. */
const passing = new Set(['DRAINING', 'SLOW_CONSUMER', 'DATABASE_UNAVAILABLE', 'PROVIDER_OFFLINE', 'CONSOLE_BUSY'])

interface Message {
  readonly data: Uint8Array
  readonly position: string
  readonly gap: boolean
  readonly lostBytes: bigint
}

/** What comes of a console that is followed. */
export type ConsoleUpdate =
  | {
      readonly kind: 'data'
      readonly data: Uint8Array
      /** Bytes are missing before these. */
      readonly gap: boolean
      /** How many, where that is known; else 0. */
      readonly lostBytes: bigint
      /** Go on after here. */
      readonly position: string
    }
  /** The stream broke, and is opened again. */
  | { readonly kind: 'interrupted'; readonly error: SlipwayError }

/**
 * Reads a console over broken connections, restarted hubs and providers that come back, each byte once: it goes on from the last position. What was
 * never shown at all is not waited for.
 *
 * @param open begins a stream, after a position or, where that is empty, where the caller wants it to begin.
 * @throws SlipwayError for anything that trying again cannot cure.
 */
export async function* followConsole(
  open: (position: string, signal: AbortSignal) => AsyncIterable<Message>,
  outer: AbortSignal,
): AsyncGenerator<ConsoleUpdate> {
  const signal = AbortSignal.any([outer])
  let position = ''
  let shown = false
  let failures = 0
  while (!signal.aborted) {
    try {
      for await (const { data, gap, lostBytes, ...message } of open(position, signal)) {
        failures = 0
        shown = true
        if (message.position !== '') position = message.position
        if (data.length > 0 || gap) yield { kind: 'data', data, gap, lostBytes, position }
      }
      return
    } catch (thrown) {
      if (signal.aborted) return
      const error = SlipwayError.of(thrown)
      if (!shown || !isPassing(error)) throw error
      if (failures === 0) yield { kind: 'interrupted', error }
      failures++
      const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(failures, 6)) * (0.5 + Math.random() / 2)
      await sleep(Math.max(error.retryAfterMs ?? 0, pauseMs), undefined, { signal }).catch(() => undefined)
    }
  }
}

/** Whether going on is worth trying. What was broken off, and not by us, is a cut like any other. */
function isPassing(error: SlipwayError): boolean {
  if (passing.has(error.reason)) return true
  if (error.reason === 'CONSOLE_FAILED') return error.retryAfterMs !== undefined
  return error.unavailable || error.code === Code.Canceled || error.code === Code.DeadlineExceeded
}
