import { create, type JsonObject } from '@bufbuild/protobuf'
import { OpenConsoleSchema, type ConsoleData, type OpenConsole } from '@slipway/proto/provider/v1'
import type { ConsoleOrder, ConsolePiece, ConsoleReader } from '../domain/console/console.js'
import { HubError } from '../domain/error/errors.js'
import type { Db } from '../store/database.js'
import { listConsoleSessions } from '../store/sessions.js'
import type { ConsoleLine, ConsoleSink } from './console-lines.js'
import { ConsolePipe, silence } from './console-pipe.js'

/** What a reader may be behind the provider, in bytes. */
export const consoleWindowBytes = 128 * 1024
/** How many instances are asked for a console that the ones before do not have. */
const maxInstances = 8

/**
 * Opens a console on a session, wherever that is.
 * @throws HubError where it cannot be reached, or may not be opened.
 */
export type OpenLine = (
  sessionId: string,
  order: OpenConsole,
  sink: ConsoleSink,
  signal: AbortSignal,
) => Promise<ConsoleLine>

export interface ConsoleDeskOptions {
  readonly db: Db
  readonly openLine: OpenLine
  /** How often to say that nothing came. */
  readonly silenceMs: number
  readonly readerIdleMs: number
  /** How many consoles may be read on this replica at once. */
  readonly maxReaders: number
}

/** Where consoles are asked for: it finds the instance that has one, and lets each reader read as fast as it can. */
export class ConsoleDesk implements ConsoleReader {
  readonly #options: ConsoleDeskOptions
  #readers = 0

  constructor(options: ConsoleDeskOptions) {
    this.#options = options
  }

  /** How many consoles are being read here. */
  get readers(): number {
    return this.#readers
  }

  /** An instance that has not the console is followed by the next one. */
  async *read(order: ConsoleOrder, signal: AbortSignal): AsyncGenerator<ConsolePiece | undefined> {
    const { db, maxReaders } = this.#options
    if (this.#readers >= maxReaders)
      throw new HubError('CONSOLE_BUSY', `${this.#readers} consoles are being read on this replica already`, {
        retryAfterMs: 5_000,
      })
    this.#readers += 1
    try {
      const items = [order.machineId, ...(order.requestId === undefined ? [] : [order.requestId])]
      const sessions = await listConsoleSessions(db, order.providerId, items, maxInstances)
      let refusal = new HubError('PROVIDER_OFFLINE', 'no instance of the provider is connected', {
        retryAfterMs: 1_000,
      })
      for (const sessionId of sessions) {
        const end = yield* this.#readFrom(sessionId, order, signal)
        if (end === undefined) return
        refusal = end
      }
      throw refusal
    } finally {
      this.#readers -= 1
    }
  }

  /** @returns why another instance is to be asked; undefined: all was told. */
  async *#readFrom(
    sessionId: string,
    order: ConsoleOrder,
    signal: AbortSignal,
  ): AsyncGenerator<ConsolePiece | undefined, HubError | undefined> {
    const { openLine, silenceMs, readerIdleMs } = this.#options
    let line: ConsoleLine | undefined
    const pipe = new ConsolePipe({
      windowBytes: consoleWindowBytes,
      readerIdleMs,
      grant: (bytes) => line?.credit(bytes),
      release: () => line?.close(),
    })
    let told = false
    try {
      line = await openLine(sessionId, toOpenConsole(order), pipe, signal)
      for (;;) {
        const piece = await pipe.next(signal, silenceMs)
        if (piece === undefined) return undefined
        if (piece === silence) yield undefined
        else {
          told = true
          yield toPiece(piece)
        }
      }
    } catch (error) {
      if (!told && error instanceof HubError && elsewhere.has(error.reason)) return error
      throw error
    } finally {
      pipe.close()
    }
  }
}

/** Refusals of one instance that say nothing of the others. */
const elsewhere: ReadonlySet<string> = new Set(['CONSOLE_ABSENT', 'PROVIDER_OFFLINE'])

function toPiece({ data, gap, lostBytes, position }: ConsoleData): ConsolePiece {
  const { log = '', offset = 0n } = position ?? {}
  return { data, gap, lostBytes, end: { log, offset: Number(offset) + data.length } }
}

function toOpenConsole({ machineId, externalId, providerData, start, follow }: ConsoleOrder): OpenConsole {
  const from =
    start === undefined
      ? { case: undefined }
      : 'after' in start
        ? { case: 'after' as const, value: { log: start.after.log, offset: BigInt(start.after.offset) } }
        : { case: 'tailLines' as const, value: start.tailLines }
  return create(OpenConsoleSchema, {
    streamId: crypto.randomUUID(),
    machineId,
    externalId,
    // What was stored as JSON holds nothing undefined.
    providerData: providerData as JsonObject,
    start: from,
    follow,
    creditBytes: consoleWindowBytes,
  })
}
