import { readFileSync } from 'node:fs'
import { createServer as createHttp1, type RequestListener, type Server as Http1Server } from 'node:http'
import {
  createSecureServer,
  createServer as createHttp2,
  type Http2SecureServer,
  type Http2Server,
  type ServerHttp2Session,
} from 'node:http2'
import { createServer as createTcp, type AddressInfo, type Server as TcpServer, type Socket } from 'node:net'
import type { Logger } from 'pino'
import type { ApiConfig } from './context.js'

// HTTP/1.1 and HTTP/2 on one port: told apart by the client's first bytes, or by ALPN under TLS.

const http2Limits = { maxConcurrentStreams: 250, maxHeaderListSize: 32 * 1024 }
const firstByteTimeoutMs = 10_000
const pingMs = 20_000
const maxConnections = 10_000
const preface = 'PRI * HTTP/2'

type Handler = Parameters<typeof createHttp2>[1]

export interface ApiListener {
  readonly url: string
  readonly port: number
  /** Takes no new connections, lets calls end, and cuts what is left at the deadline. */
  close(deadlineMs: number): Promise<void>
}

export async function listen(config: ApiConfig, handler: Handler, log: Logger): Promise<ApiListener> {
  const sessions = new Set<ServerHttp2Session>()
  const sockets = new Set<Socket>()
  const server = config.tls === undefined ? plaintext(handler, sessions) : secure(config.tls, handler, sessions)
  const entry: TcpServer | Http2SecureServer = server.entry
  entry.maxConnections = maxConnections
  entry.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', (error) => log.debug({ err: error }, 'connection broke'))
  })
  await new Promise<void>((resolve, reject) => {
    entry.once('error', reject)
    entry.listen(config.apiPort, config.apiHost, () => {
      entry.off('error', reject)
      resolve()
    })
  })
  entry.on('error', (error: Error) => log.error({ err: error }, 'client API listener failed'))
  const { port, address } = entry.address() as AddressInfo
  const host =
    address === '0.0.0.0' || address === '::' ? 'localhost' : address.includes(':') ? `[${address}]` : address
  return {
    url: `${config.tls === undefined ? 'http' : 'https'}://${host}:${port}`,
    port,
    close: async (deadlineMs) => {
      const closed = new Promise<void>((resolve) => entry.close(() => resolve()))
      server.http1?.closeIdleConnections()
      // close() of the server alone would go on taking streams on connections that are open.
      for (const session of sessions) session.close()
      const timer = setTimeout(() => {
        for (const session of sessions) session.destroy()
        for (const socket of sockets) socket.destroy()
      }, deadlineMs)
      await closed
      clearTimeout(timer)
      for (const socket of sockets) socket.destroy()
    },
  }
}

function watchSessions(server: Http2Server | Http2SecureServer, sessions: Set<ServerHttp2Session>): void {
  server.on('session', (session) => {
    sessions.add(session)
    // Nothing else notices a peer that is gone without a word.
    const timer = setInterval(() => {
      let answered = false
      session.ping((error) => {
        answered = error === null
      })
      setTimeout(() => {
        if (!answered && !session.destroyed) session.destroy()
      }, pingMs / 2).unref()
    }, pingMs)
    timer.unref()
    session.on('close', () => {
      clearInterval(timer)
      sessions.delete(session)
    })
    session.on('error', () => session.destroy())
  })
}

function plaintext(
  handler: Handler,
  sessions: Set<ServerHttp2Session>,
): { readonly entry: TcpServer; readonly http1: Http1Server } {
  const http2 = createHttp2({ settings: http2Limits, maxSessionMemory: 32 }, handler)
  watchSessions(http2, sessions)
  const http1 = createHttp1(
    { requestTimeout: 60_000, headersTimeout: 15_000, keepAliveTimeout: 30_000 },
    handler as unknown as RequestListener,
  )
  // It takes its connections from us and never listens itself; but only this makes it keep track of them, for its timeouts and for a stop.
  http1.emit('listening')
  const entry = createTcp({ noDelay: true }, (socket) => {
    socket.setTimeout(firstByteTimeoutMs, () => socket.destroy())
    socket.once('readable', () => {
      const first = socket.read() as Buffer | null
      if (first === null) return
      socket.setTimeout(0)
      socket.removeAllListeners('timeout')
      socket.unshift(first)
      const isHttp2 = preface.startsWith(first.subarray(0, preface.length).toString('latin1'))
      ;(isHttp2 ? http2 : http1).emit('connection', socket)
    })
  })
  return { entry, http1 }
}

function secure(
  tls: NonNullable<ApiConfig['tls']>,
  handler: Handler,
  sessions: Set<ServerHttp2Session>,
): { readonly entry: Http2SecureServer; readonly http1?: undefined } {
  const entry = createSecureServer(
    {
      allowHTTP1: true,
      cert: readFileSync(tls.certFile),
      key: readFileSync(tls.keyFile),
      minVersion: 'TLSv1.2',
      handshakeTimeout: firstByteTimeoutMs,
      settings: http2Limits,
      maxSessionMemory: 32,
    },
    handler as never,
  )
  watchSessions(entry, sessions)
  return { entry }
}
