import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { AgentApi } from './agent-api.js'
import type { BootApi } from './boot-api.js'
import { HttpRefusal, sendRefusal } from './http-answer.js'

export interface HttpServerOptions {
  readonly boot: BootApi
  readonly agent: AgentApi
  readonly host: string
  readonly port: number
  /** PEM. With it only agents are served, and over TLS alone. */
  readonly tls?: { readonly cert: string; readonly key: string }
  readonly onRogue: (kind: string, address: string, message: string) => void
  readonly onError: (error: unknown) => void
}

const maxConnections = 2_000
const maxHeaderBytes = 8 * 1024

/** The HTTP side of network boot. */
export class BootHttpServer {
  readonly #options: HttpServerOptions
  readonly #server: Server

  private constructor(options: HttpServerOptions) {
    this.#options = options
    const handle = (request: IncomingMessage, response: ServerResponse): void => void this.#handle(request, response)
    const limits = {
      maxHeaderSize: maxHeaderBytes,
      headersTimeout: 10_000,
      requestTimeout: 60_000,
      keepAliveTimeout: 30_000,
    }
    const { tls } = options
    this.#server = tls === undefined ? createServer(limits, handle) : createTlsServer({ ...limits, ...tls }, handle)
    this.#server.maxConnections = maxConnections
    this.#server.on('clientError', (_error, socket) => socket.destroy())
  }

  /** @throws what listening throws, for example that the port is taken. */
  static async listen(options: HttpServerOptions): Promise<BootHttpServer> {
    const server = new BootHttpServer(options)
    server.#server.listen(options.port, options.host)
    await once(server.#server, 'listening')
    server.#server.on('error', options.onError)
    return server
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = request.url ?? ''
    const [path = ''] = url.split('?')
    const address = request.socket.remoteAddress ?? 'unknown'
    try {
      const { boot, agent, tls } = this.#options
      if (AgentApi.owns(path)) {
        if (request.method === 'GET' && path.startsWith('/agent/v1/images/')) {
          agent.authenticate(request)
          if (await boot.image(path, response)) return
        }
        return await agent.handle(path, request, response)
      }
      if (tls !== undefined) throw new HttpRefusal(404, 'there is nothing here')
      await boot.handle(url, request, response)
    } catch (thrown) {
      this.#refuse(request, response, address, thrown)
    }
  }

  #refuse(request: IncomingMessage, response: ServerResponse, address: string, thrown: unknown): void {
    if (!(thrown instanceof HttpRefusal)) {
      // A client that went away is no defect.
      if (!request.destroyed || request.complete) this.#options.onError(thrown)
      return sendRefusal(response, 500, 'this cannot be answered now')
    }
    if (thrown.rogue !== undefined) {
      const what = (request.url ?? '').replace(/\/boot\/t\/[^/]*/, '/boot/t/…').slice(0, 200)
      this.#options.onRogue(thrown.rogue, address, `${request.method} ${what}: ${thrown.message}`)
    }
    sendRefusal(response, thrown.status, thrown.message)
  }
}
