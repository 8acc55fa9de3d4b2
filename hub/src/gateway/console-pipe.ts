import type { ConsoleClosed, ConsoleData } from '@slipway/proto/provider/v1'
import { HubError } from '../domain/error/errors.js'
import type { ConsoleSink } from './console-lines.js'
import { consoleEndError } from './console-ends.js'

export interface PipeOptions {
  /** The provider may send so many bytes before anything was read. */
  readonly windowBytes: number
  /** A reader who takes nothing of what is there for this long is cut off, so that nobody waits for it. */
  readonly readerIdleMs: number
  /** More bytes may be sent. */
  readonly grant: (bytes: number) => void
  /** Nothing more is wanted: the reader is gone, or was cut off. */
  readonly release: () => void
}

/** What {@link ConsolePipe.next} gives where nothing came. */
export const silence = Symbol('silence')

/**
 * The reader's end of a console. It holds no more than its window: credit goes back only for what was read, in helpings of half a window,
 * so that a slow reader holds up the one who sends, and nobody's memory.
 */
export class ConsolePipe implements ConsoleSink {
  readonly #options: PipeOptions
  readonly #pieces: ConsoleData[] = []
  #readBytes = 0
  #end: HubError | 'done' | undefined
  #released = false
  #wake: (() => void) | undefined
  #idle: NodeJS.Timeout | undefined

  constructor(options: PipeOptions) {
    this.#options = options
  }

  data(piece: ConsoleData): void {
    if (this.#end !== undefined) return
    this.#pieces.push(piece)
    this.#watchReader()
    this.#wake?.()
  }

  closed(closed: ConsoleClosed): void {
    this.#finish(consoleEndError(closed) ?? 'done')
  }

  failed(error: HubError): void {
    this.#finish(error)
  }

  /**
   * The next piece, in order; {@link silence} where none came in time; undefined after the last one.
   *
   * @throws HubError once all that came before it was read.
   */
  async next(signal: AbortSignal, silenceMs: number): Promise<ConsoleData | typeof silence | undefined> {
    clearTimeout(this.#idle)
    this.#idle = undefined
    if (this.#pieces.length === 0 && this.#end === undefined) await this.#wait(signal, silenceMs)
    const piece = this.#pieces.shift()
    if (piece !== undefined) {
      this.#credit(piece.data.length)
      return piece
    }
    if (this.#end === 'done') return undefined
    if (this.#end !== undefined) throw this.#end
    signal.throwIfAborted()
    return silence
  }

  /** The reader is gone. */
  close(): void {
    this.#finish('done')
    this.#pieces.length = 0
    this.#release()
  }

  #wait(signal: AbortSignal, silenceMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', wake)
        this.#wake = undefined
        resolve()
      }
      const timer = setTimeout(wake, silenceMs)
      signal.addEventListener('abort', wake)
      this.#wake = wake
      if (signal.aborted) wake()
    })
  }

  #credit(bytes: number): void {
    this.#readBytes += bytes
    if (this.#readBytes < this.#options.windowBytes / 2 || this.#end !== undefined) return
    const granted = this.#readBytes
    this.#readBytes = 0
    this.#options.grant(granted)
  }

  #watchReader(): void {
    this.#idle ??= setTimeout(() => {
      this.#pieces.length = 0
      this.#finish(
        new HubError('SLOW_CONSUMER', 'the console was read too slowly; go on from the last position', {
          retryAfterMs: 100,
        }),
      )
      this.#release()
    }, this.#options.readerIdleMs).unref()
  }

  #finish(end: HubError | 'done'): void {
    this.#end ??= end
    this.#wake?.()
    if (this.#pieces.length === 0) clearTimeout(this.#idle)
  }

  #release(): void {
    clearTimeout(this.#idle)
    if (this.#released) return
    this.#released = true
    this.#options.release()
  }
}
