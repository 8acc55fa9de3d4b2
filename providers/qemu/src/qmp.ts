import { open, constants } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { ProviderError } from '@slipway/sdk'

/** An answer larger than this is no answer. */
const maxLineBytes = 1024 * 1024

/** Something that QEMU said by itself, for example `POWERDOWN`. */
export interface QmpEvent {
  readonly event: string
  readonly data: unknown
}

export interface QmpOptions {
  /** For connecting and for each command. Default 5 000. */
  readonly timeoutMs?: number
  readonly onEvent?: (event: QmpEvent) => void
}

interface Waiter {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

/**
 * A connection to one QEMU's monitor. QEMU talks to one client at a time, so keep it short.
 *
 * All failures are ProviderErrors: UNAVAILABLE where nobody listens or the connection broke, TIMEOUT where no answer came, INTERNAL
 * where QEMU refused the command.
 */
export class QmpClient {
  readonly #socket: Socket
  readonly #timeoutMs: number
  readonly #onEvent: (event: QmpEvent) => void
  readonly #waiters = new Map<number, Waiter>()
  #greeting: Waiter | undefined
  #unread = ''
  #nextId = 1
  #failure: ProviderError | undefined

  private constructor(socket: Socket, options: QmpOptions) {
    this.#socket = socket
    this.#timeoutMs = options.timeoutMs ?? 5_000
    this.#onEvent = options.onEvent ?? (() => undefined)
    socket.setEncoding('utf8')
    socket.on('data', (text: string) => this.#read(text))
    socket.on('error', (error) =>
      this.#fail(new ProviderError('UNAVAILABLE', `the QEMU monitor: ${error.message}`, { cause: error })),
    )
    socket.on('close', () => this.#fail(new ProviderError('UNAVAILABLE', 'the QEMU monitor closed the connection')))
  }

  /**
   * Connects to a socket in a folder, and takes part in the handshake. The folder is reached through a descriptor, because the path of
   * a socket may have no more than 107 bytes, and the path of a folder more.
   */
  static async connect(folder: string, socketName: string, options: QmpOptions = {}): Promise<QmpClient> {
    const directory = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY)
    try {
      const client = new QmpClient(connect(join('/proc/self/fd', String(directory.fd), socketName)), options)
      try {
        await client.#shakeHands()
      } catch (error) {
        client.close()
        throw error
      }
      return client
    } finally {
      await directory.close()
    }
  }

  /** Runs a command and gives what it returned. */
  async execute(command: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    const id = this.#nextId++
    return this.#within(`the answer to ${command}`, (waiter) => {
      this.#waiters.set(id, waiter)
      this.#socket.write(
        `${JSON.stringify({ execute: command, ...(args !== undefined && { arguments: args }), id })}\n`,
      )
    }).finally(() => this.#waiters.delete(id))
  }

  close(): void {
    this.#socket.destroy()
  }

  async #shakeHands(): Promise<void> {
    await this.#within('the greeting', (waiter) => (this.#greeting = waiter))
    await this.execute('qmp_capabilities')
  }

  #within(what: string, start: (waiter: Waiter) => void): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure)
      const timer = setTimeout(
        () =>
          settle(reject)(
            new ProviderError('TIMEOUT', `${what} of the QEMU monitor did not come within ${this.#timeoutMs} ms`),
          ),
        this.#timeoutMs,
      )
      const settle =
        <Value>(then: (value: Value) => void) =>
        (value: Value) => {
          clearTimeout(timer)
          then(value)
        }
      start({ resolve: settle(resolve), reject: settle(reject) })
    })
  }

  #read(text: string): void {
    this.#unread += text
    for (let end = this.#unread.indexOf('\n'); end >= 0; end = this.#unread.indexOf('\n')) {
      const line = this.#unread.slice(0, end)
      this.#unread = this.#unread.slice(end + 1)
      this.#take(line)
    }
    if (this.#unread.length > maxLineBytes) this.#protocolError('a line has no end')
  }

  #take(line: string): void {
    let message: unknown
    try {
      message = JSON.parse(line)
    } catch {
      return this.#protocolError('a line is no JSON')
    }
    if (!isObject(message)) return this.#protocolError('a message is no object')
    if ('QMP' in message) {
      this.#greeting?.resolve(undefined)
    } else if (typeof message['event'] === 'string') {
      this.#onEvent({ event: message['event'], data: message['data'] })
    } else if (typeof message['id'] === 'number') {
      this.#answer(this.#waiters.get(message['id']), message)
    } else if ('error' in message) {
      this.#protocolError(`an error without an id: ${JSON.stringify(message['error'])}`)
    }
  }

  #answer(waiter: Waiter | undefined, message: Readonly<Record<string, unknown>>): void {
    const error = message['error']
    if (!isObject(error)) return waiter?.resolve(message['return'])
    const [kind, words] = [error['class'], error['desc']].map((value) =>
      typeof value === 'string' ? value : 'unknown',
    )
    waiter?.reject(
      new ProviderError('INTERNAL', `QEMU refused: ${words}`, { ...(kind !== undefined && { externalCode: kind }) }),
    )
  }

  #protocolError(what: string): void {
    this.#fail(new ProviderError('UNAVAILABLE', `the QEMU monitor does not speak QMP: ${what}`))
    this.#socket.destroy()
  }

  #fail(error: ProviderError): void {
    this.#failure ??= error
    this.#greeting?.reject(this.#failure)
    for (const waiter of this.#waiters.values()) waiter.reject(this.#failure)
    this.#waiters.clear()
  }
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
}
