import type { AddressInfo } from 'node:net'
import { createServer, type Server as TlsServer, type TLSSocket } from 'node:tls'
import { ServerCredentials, type ConnectionInjector, type Server as GrpcServer } from '@grpc/grpc-js'
import type { Logger } from 'pino'
import type { Authority } from '../auth/authority.js'

const handshakeTimeoutMs = 10_000
const maxConnections = 20_000
/** setTimeout takes no more. */
const maxTimerMs = 2 ** 31 - 1

export interface Listener {
  readonly host: string
  readonly port: number
  close(): Promise<void>
}

/**
 * Listens with TLS and hands connections to grpc-js. Client certificates are asked for and checked, but not demanded: Enroll has none yet.
 * One that is presented and is not of our authority ends the connection. (grpc-js itself can only demand or not ask.)
 */
export async function listen(
  server: GrpcServer,
  authority: Authority,
  options: { readonly host: string; readonly port: number; readonly names: readonly string[] },
  log: Logger,
): Promise<Listener> {
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure())
  const context = await secureContext(authority, options.names)
  const tls = createServer({
    ...context,
    requestCert: true,
    rejectUnauthorized: false,
    handshakeTimeout: handshakeTimeoutMs,
  })
  tls.maxConnections = maxConnections
  tls.on('secureConnection', (socket) => accept(socket, injector, log))
  tls.on('tlsClientError', (error, socket) => {
    log.debug({ err: error, remote: socket.remoteAddress }, 'TLS handshake failed')
    socket.destroy()
  })
  const renewal = renewBefore(tls, context.notAfter, authority, options.names, log)
  await new Promise<void>((resolve, reject) => {
    tls.once('error', reject)
    tls.listen(options.port, options.host, () => {
      tls.off('error', reject)
      resolve()
    })
  })
  tls.on('error', (error) => log.error({ err: error }, 'gateway listener failed'))
  const address = tls.address() as AddressInfo
  return {
    host: address.address,
    port: address.port,
    close: async () => {
      renewal.stop()
      await new Promise<void>((resolve) => {
        tls.close(() => resolve())
        injector.destroy()
      })
    },
  }
}

function accept(socket: TLSSocket, injector: ConnectionInjector, log: Logger): void {
  const presented = socket.getPeerCertificate().raw !== undefined
  if (presented && !socket.authorized) {
    log.info(
      { remote: socket.remoteAddress, why: socket.authorizationError },
      'refused a client certificate that is not valid here',
    )
    socket.destroy()
    return
  }
  socket.setNoDelay(true)
  injector.injectConnection(socket)
}

async function secureContext(authority: Authority, names: readonly string[]) {
  const certificate = await authority.issueGatewayCertificate([...names])
  return {
    cert: certificate.certificatePem,
    key: certificate.keyPem,
    ca: authority.caDer.map((der) => toPem(der)),
    minVersion: 'TLSv1.3' as const,
    ALPNProtocols: ['h2'],
    notAfter: certificate.notAfter,
  }
}

/** Replaces the listener's certificate at two thirds of its life, for as long as the process lives. */
function renewBefore(
  tls: TlsServer,
  firstNotAfter: Date,
  authority: Authority,
  names: readonly string[],
  log: Logger,
): { stop: () => void } {
  let timer: NodeJS.Timeout | undefined
  let stopped = false
  const schedule = (notAfter: Date): void => {
    if (stopped) return
    const inMs = Math.min(maxTimerMs, Math.max(60_000, ((notAfter.getTime() - Date.now()) * 2) / 3))
    timer = setTimeout(() => void renew(), inMs)
    timer.unref()
  }
  const renew = async (): Promise<void> => {
    try {
      const context = await secureContext(authority, names)
      tls.setSecureContext(context)
      schedule(context.notAfter)
    } catch (error) {
      log.error({ err: error }, 'cannot renew the gateway certificate; trying again')
      schedule(new Date(Date.now() + 90_000))
    }
  }
  schedule(firstNotAfter)
  return {
    stop: () => {
      stopped = true
      clearTimeout(timer)
    },
  }
}

function toPem(der: Uint8Array): string {
  const body = Buffer.from(der)
    .toString('base64')
    .replace(/(.{64})/g, '$1\n')
  return `-----BEGIN CERTIFICATE-----\n${body}\n-----END CERTIFICATE-----\n`
}
