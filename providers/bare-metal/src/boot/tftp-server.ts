import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { encodeError, parseRequest, tftpError } from './tftp-packet.js'
import { TftpTransfer, type TransferStep } from './tftp-transfer.js'

export interface TftpServerOptions {
  readonly host: string
  readonly port: number
  /** All that there is, by name, in memory: there is no path that could lead elsewhere. */
  readonly files: ReadonlyMap<string, Buffer>
  readonly onRogue: (kind: string, address: string, message: string) => void
  readonly onSent: (address: string, file: string) => void
  readonly onError: (error: Error) => void
  /** How long to wait for an answer before the last datagrams are sent again. Default 1 000. */
  readonly retryMs?: number
}

const maxTransfers = 256
const maxPerClient = 8

/** Serves a handful of public files by TFTP, each transfer from a port of its own. */
export class TftpServer {
  readonly #options: TftpServerOptions
  readonly #socket: Socket
  readonly #transfers = new Set<Socket>()
  readonly #clients = new Map<string, number>()

  private constructor(options: TftpServerOptions, socket: Socket) {
    this.#options = options
    this.#socket = socket
  }

  /** @throws what binding throws. */
  static async listen(options: TftpServerOptions): Promise<TftpServer> {
    const socket = createSocket({ type: 'udp4' })
    socket.bind(options.port, options.host)
    await once(socket, 'listening')
    const server = new TftpServer(options, socket)
    socket.on('message', (bytes, from) => server.#begin(bytes, from))
    socket.on('error', options.onError)
    return server
  }

  get port(): number {
    return this.#socket.address().port
  }

  /** Transfers under way. */
  get active(): number {
    return this.#transfers.size
  }

  async close(): Promise<void> {
    for (const socket of [...this.#transfers]) this.#end(socket, '')
    await new Promise<void>((resolve) => this.#socket.close(() => resolve()))
  }

  #begin(bytes: Buffer, from: RemoteInfo): void {
    const request = parseRequest(bytes)
    if (request === undefined) return
    if (request.request === 'refused') {
      this.#options.onRogue('path-trick', from.address, `TFTP: ${request.message}`)
      return this.#refuse(encodeError(request.code, request.message), from)
    }
    // Firmware adds a slash, as if there were folders.
    const name = request.file.replace(/^\//, '')
    const data = this.#options.files.get(name)
    if (data === undefined) {
      const isTrick = /\.\.|[/\\%]/.test(name)
      if (isTrick) this.#options.onRogue('path-trick', from.address, `TFTP: ${name.slice(0, 100)}`)
      return this.#refuse(encodeError(tftpError.notFound, 'there is no such file'), from)
    }
    const running = this.#clients.get(from.address) ?? 0
    if (this.#transfers.size >= maxTransfers || running >= maxPerClient)
      return this.#refuse(encodeError(tftpError.undefined, 'too many transfers; try again later'), from)
    this.#clients.set(from.address, running + 1)
    this.#transfer(new TftpTransfer(data, request.options), from, name)
  }

  #transfer(transfer: TftpTransfer, client: RemoteInfo, name: string): void {
    const socket = createSocket({ type: 'udp4' })
    this.#transfers.add(socket)
    let timer: NodeJS.Timeout | undefined
    const take = (step: TransferStep): void => {
      if (!this.#transfers.has(socket)) return
      for (const bytes of step.send) socket.send(bytes, client.port, client.address, () => undefined)
      if (step.ended !== undefined) {
        clearTimeout(timer)
        if (step.ended === 'done') this.#options.onSent(client.address, name)
        // What was sent last may still be in the socket's queue.
        setImmediate(() => this.#end(socket, client.address))
        return
      }
      if (step.send.length === 0) return
      clearTimeout(timer)
      timer = setTimeout(() => take(transfer.timeout()), this.#options.retryMs ?? 1_000)
    }
    socket.on('message', (bytes, from) => {
      // RFC 1350: what comes from elsewhere is an error, and disturbs nothing.
      if (from.address === client.address && from.port === client.port) take(transfer.receive(bytes))
    })
    socket.on('error', (error) => {
      clearTimeout(timer)
      this.#options.onError(error)
      this.#end(socket, client.address)
    })
    socket.on('close', () => clearTimeout(timer))
    socket.bind(0, this.#options.host, () => take(transfer.start()))
  }

  #refuse(bytes: Buffer, { port, address }: RemoteInfo): void {
    this.#socket.send(bytes, port, address, () => undefined)
  }

  #end(socket: Socket, address: string): void {
    if (!this.#transfers.delete(socket)) return
    socket.close()
    const running = (this.#clients.get(address) ?? 1) - 1
    if (running > 0) this.#clients.set(address, running)
    else this.#clients.delete(address)
  }
}
