import { create } from '@bufbuild/protobuf'
import {
  CloseConsoleSchema,
  ConsoleCreditSchema,
  type ConsoleClosed,
  type ConsoleData,
  type HubMessage,
  type OpenConsole,
} from '@slipway/proto/provider/v1'
import { HubError } from '../domain/error/errors.js'
import { providerLeft } from './console-ends.js'

/** How many consoles one session carries, and how many of them may be of one machine. */
export const maxConsoles = 32
export const maxConsolesOfMachine = 8

/** Where a console's bytes go. */
export interface ConsoleSink {
  data(piece: ConsoleData): void
  /** The end, as the instance told it. Nothing follows. */
  closed(closed: ConsoleClosed): void
  /** The end for another reason. Nothing follows. */
  failed(error: HubError): void
}

/** An open console, as its reader's side steers it. */
export interface ConsoleLine {
  /** So many more bytes may be sent. */
  credit(bytes: number): void
  close(): void
}

interface Open {
  readonly machineId: string
  readonly sink: ConsoleSink
  creditBytes: number
}

/** The consoles that are open on one session. */
export class ConsoleLines {
  readonly #send: (body: HubMessage['body']) => void
  readonly #violation: (message: string) => void
  readonly #open = new Map<string, Open>()

  constructor(send: (body: HubMessage['body']) => void, violation: (message: string) => void) {
    this.#send = send
    this.#violation = violation
  }

  get count(): number {
    return this.#open.size
  }

  /** Asks the instance for a console. @throws HubError CONSOLE_BUSY where too many are open. */
  open(order: OpenConsole, sink: ConsoleSink): ConsoleLine {
    const { streamId, machineId } = order
    const ofMachine = [...this.#open.values()].filter((open) => open.machineId === machineId).length
    if (ofMachine >= maxConsolesOfMachine)
      throw new HubError('CONSOLE_BUSY', `${ofMachine} look at this console already, which is the most that may`, {
        retryAfterMs: 5_000,
      })
    if (this.#open.size >= maxConsoles)
      throw new HubError(
        'CONSOLE_BUSY',
        `${this.#open.size} consoles of this provider's instance are open already, which is the most that may be`,
        { retryAfterMs: 5_000 },
      )
    this.#open.set(streamId, { machineId, sink, creditBytes: order.creditBytes })
    this.#send({ case: 'openConsole', value: order })
    return {
      credit: (bytes) => {
        const open = this.#open.get(streamId)
        if (open === undefined) return
        open.creditBytes += bytes
        this.#send({ case: 'consoleCredit', value: create(ConsoleCreditSchema, { streamId, bytes }) })
      },
      close: () => {
        if (this.#open.delete(streamId))
          this.#send({ case: 'closeConsole', value: create(CloseConsoleSchema, { streamId }) })
      },
    }
  }

  /** What comes for a stream that is over was under way when it was closed. */
  data(piece: ConsoleData): void {
    const open = this.#open.get(piece.streamId)
    if (open === undefined) return
    open.creditBytes -= piece.data.length
    if (open.creditBytes < 0) {
      this.#violation(
        `console ${piece.streamId} was sent ${-open.creditBytes} bytes beyond its credit; send no more than ConsoleCredit allows`,
      )
      return
    }
    open.sink.data(piece)
  }

  closed(closed: ConsoleClosed): void {
    const open = this.#open.get(closed.streamId)
    this.#open.delete(closed.streamId)
    open?.sink.closed(closed)
  }

  /** The session is over. */
  over(): void {
    const all = [...this.#open.values()]
    this.#open.clear()
    for (const { sink } of all) sink.failed(providerLeft('the session of the instance that showed the console ended'))
  }
}
