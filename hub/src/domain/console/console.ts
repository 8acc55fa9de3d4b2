import type { JsonObject } from '../facts.js'
import type { ConsolePosition } from './position.js'

/** A console that somebody wants to see. */
export interface ConsoleOrder {
  readonly providerId: string
  readonly machineId: string
  /** The request that the machine serves. */
  readonly requestId?: string
  readonly externalId: string
  readonly providerData: JsonObject
  /** Absent: from the first byte that there is. */
  readonly start?: { readonly after: ConsolePosition } | { readonly tailLines: number }
  readonly follow: boolean
}

/** Bytes of a console. They may hold secrets: they are neither stored nor logged. */
export interface ConsolePiece {
  readonly data: Uint8Array
  /** Bytes are missing before it. */
  readonly gap: boolean
  /** How many, where that is known; else 0. */
  readonly lostBytes: bigint
  /** The place after its last byte. */
  readonly end: ConsolePosition
}

/** Where consoles are read. */
export interface ConsoleReader {
  /**
   * Reads a console until its end; undefined where nothing came for a while.
   *
   * @throws HubError PROVIDER_OFFLINE, CONSOLE_ABSENT, CONSOLE_BUSY, CONSOLE_FAILED, SLOW_CONSUMER; the signal's reason.
   */
  read(order: ConsoleOrder, signal: AbortSignal): AsyncIterable<ConsolePiece | undefined>
}
