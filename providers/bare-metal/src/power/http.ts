import { Agent as HttpAgent, request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http'
import { Agent, request as httpsRequest, type AgentOptions } from 'node:https'
import { isIP } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect, type ConnectionOptions } from 'node:tls'
import { resolveBmcAddress } from './address.js'
import { BmcError, isBmcError } from './errors.js'
import type { TlsSettings } from './settings.js'
import { underSignals } from './waiting.js'

export interface HttpCall {
  readonly method: string
  readonly url: URL
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** For messages to people: no secrets. */
  readonly what: string
  /** Whether it changes something, so that a lost answer leaves that in doubt. */
  readonly changes: boolean
}

export interface HttpAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** Far more than any answer that is needed has. */
const maxBodyBytes = 1024 * 1024

export interface HttpOptions {
  readonly tls: TlsSettings
  readonly timeoutMs: number
  readonly allowAddress?: (ip: string) => boolean
}

/**
 * HTTP calls to one BMC, over one connection. Names are resolved once for each call, checked, and connected to as they were checked; redirects are
 * not followed.
 */
export class BmcHttp {
  readonly #options: HttpOptions
  readonly #https: PinningAgent
  readonly #http = new HttpAgent({ keepAlive: true, maxSockets: 1 })

  constructor(options: HttpOptions) {
    this.#options = options
    this.#https = new PinningAgent(options.tls, { keepAlive: true, maxSockets: 1, maxCachedSessions: 0 })
  }

  /**
   * Calls, and gives whatever was answered, refusals too.
   * @throws BmcError `unreachable` (in doubt where the call changes something and was sent), `tls-identity`, `address-forbidden`, `protocol`; the
   * signal's reason.
   */
  async call(call: HttpCall, signal: AbortSignal): Promise<HttpAnswer> {
    const { timeoutMs, allowAddress } = this.#options
    const { ip } = await resolveBmcAddress(call.url.hostname, allowAddress)
    const progress = { sent: false, reused: false }
    const late = AbortSignal.timeout(timeoutMs)
    const send = (): Promise<HttpAnswer> => underSignals([signal, late], (both) => this.#send(call, ip, both, progress))
    try {
      return await send().catch((error: unknown) => {
        // The BMC may close a connection that we kept just when we use it again; for what only looks that is no loss.
        if (call.changes || !progress.reused || !lostCodes.has(codeOf(error))) throw error
        return send()
      })
    } catch (error) {
      signal.throwIfAborted()
      throw explain(error, call, progress.sent, timeoutMs)
    }
  }

  close(): void {
    this.#https.destroy()
    this.#http.destroy()
  }

  #send(call: HttpCall, ip: string, signal: AbortSignal, progress: Progress): Promise<HttpAnswer> {
    const { url, method, body } = call
    const secure = url.protocol === 'https:'
    const bare = unbracket(url.hostname)
    const headers = {
      host: url.host,
      accept: 'application/json',
      'accept-encoding': 'identity',
      ...call.headers,
      ...(body !== undefined && { 'content-length': String(Buffer.byteLength(body)) }),
    }
    const options = { method, host: ip, port: url.port, path: `${url.pathname}${url.search}`, headers, signal }
    const names = isIP(bare) === 0 ? { servername: bare } : {}
    return new Promise((resolve, reject) => {
      const request: ClientRequest = secure
        ? httpsRequest({ ...options, ...names, agent: this.#https })
        : httpRequest({ ...options, agent: this.#http })
      request.once('socket', () => {
        progress.sent = true
        progress.reused = request.reusedSocket
      })
      request.once('error', reject)
      request.once('response', (response) => {
        readBody(response).then((text) => {
          resolve({ status: response.statusCode ?? 0, headers: flatten(response.headers), body: text })
        }, reject)
      })
      request.end(body)
    })
  }
}

/** How far a call came. */
interface Progress {
  sent: boolean
  /** It went over a connection that was there before. */
  reused: boolean
}

/** Checks who answers before anything is sent to it: by the certificate's fingerprint where one was given, else as TLS does. */
class PinningAgent extends Agent {
  readonly #tls: TlsSettings

  constructor(tls: TlsSettings, options: AgentOptions) {
    super(options)
    this.#tls = tls
  }

  override createConnection(
    options: ConnectionOptions,
    done: (error: Error | null, socket?: Duplex) => void,
  ): undefined {
    const { fingerprint, ca } = this.#tls
    const pinned = fingerprint !== undefined
    const socket = connect({
      host: options.host ?? '',
      port: Number(options.port),
      ...(options.servername !== undefined && options.servername !== '' && { servername: options.servername }),
      ...(ca !== undefined && { ca }),
      rejectUnauthorized: !pinned,
    })
    socket.once('error', (error: Error) => done(error))
    socket.once('secureConnect', () => {
      const seen = socket.getPeerCertificate().fingerprint256.replaceAll(':', '').toLowerCase()
      if (!pinned || seen === fingerprint) return done(null, socket)
      socket.destroy()
      done(new BmcError('tls-identity', `the BMC shows another certificate than was pinned: its SHA-256 is ${seen}`))
    })
    return undefined
  }
}

async function readBody(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.length
    if (bytes > maxBodyBytes) {
      response.destroy()
      throw new BmcError('protocol', `the BMC's answer has more than ${maxBodyBytes} bytes`)
    }
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

function flatten(headers: IncomingMessage['headers']): Readonly<Record<string, string>> {
  const pairs = Object.entries(headers).flatMap(([name, value]) =>
    value === undefined ? [] : [[name, Array.isArray(value) ? value.join(', ') : value] as const],
  )
  return Object.fromEntries(pairs)
}

/** What OpenSSL and Node say of certificates that they do not accept. */
const identityCodes = /^(ERR_TLS_|CERT_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_|INVALID_CA|PATH_LENGTH_|HOSTNAME_MISMATCH)/
/** Nobody was there: nothing was sent. */
const unsentCodes: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EHOSTDOWN',
  'ENETDOWN',
])

function explain(thrown: unknown, { what, url, changes }: HttpCall, sent: boolean, timeoutMs: number): BmcError {
  if (isBmcError(thrown)) return thrown
  const { code, name, message } = thrown as NodeJS.ErrnoException
  const said = code ?? name
  if (code !== undefined && identityCodes.test(code))
    return new BmcError('tls-identity', `the BMC at ${url.host} shows a certificate that is not trusted: ${message}`, {
      said,
      cause: thrown,
    })
  const inDoubt = changes && sent && !unsentCodes.has(said)
  const late = name === 'TimeoutError' || name === 'AbortError'
  const why = late ? `no answer within ${timeoutMs} ms` : message
  return new BmcError('unreachable', `the BMC at ${url.host} was asked ${what}: ${why}`, {
    inDoubt,
    said,
    cause: thrown,
  })
}

const lostCodes: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE'])

function codeOf(error: unknown): string {
  return error instanceof Error ? ((error as NodeJS.ErrnoException).code ?? '') : ''
}

function unbracket(host: string): string {
  return host.startsWith('[') ? host.slice(1, -1) : host
}
