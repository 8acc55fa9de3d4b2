import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Answer, Handlers } from './calls.js'
import { gone } from './calls.js'
import { Checker, committedDescription, type Description } from './description.js'
import { Faults } from './faults.js'
import { Guests } from './guests.js'
import type { Ledger } from './ledger.js'
import { firewallHandlers, networkHandlers, placementGroupHandlers, sshKeyHandlers } from './networks.js'
import { otherHandlers } from './others.js'
import { primaryIpHandlers } from './primary-ips.js'
import { Project, quick, type Durations } from './project.js'
import { RateLimit } from './rate-limit.js'
import { Refusal } from './refusal.js'
import { serverActionHandlers } from './server-actions.js'
import { serverHandlers, vanish } from './servers.js'
import { volumeHandlers } from './volumes.js'
import type { ServerOrder } from './views.js'

const handlers: Handlers = {
  ...serverHandlers,
  ...serverActionHandlers,
  ...volumeHandlers,
  ...primaryIpHandlers,
  ...networkHandlers,
  ...firewallHandlers,
  ...placementGroupHandlers,
  ...sshKeyHandlers,
  ...otherHandlers,
}

const apiRoot = '/v1'
/** 64 characters, as the vendor's are. */
export const emulatorToken = 'emulated'.repeat(8)
export const readOnlyToken = 'readonly'.repeat(8)

export interface EmulatorOptions {
  readonly durations?: Partial<Durations>
  /** What both sides are checked against. Default: what is committed. */
  readonly description?: Description
  /** Calls an hour. Default 1 000 000, so that tests of other things do not wait. */
  readonly callsPerHour?: number
  /** Whether requests that the description does not know are let through, and only noted. For clients that are not ours. */
  readonly lenient?: boolean
}

/**
 * The Hetzner Cloud API on loopback, for tests: one project, with servers and what belongs to them, actions that take time, a rate limit, and faults on order.
 * Every request and every answer is checked against the description; see the provider's README for what is the vendor's word and what is assumed.
 */
export class Emulator {
  readonly project: Project
  readonly faults = new Faults()
  readonly rateLimit: RateLimit
  /** What was said on either side that the description does not know. */
  readonly violations: string[] = []
  readonly token = emulatorToken
  /** The tokens that may read and write; to be changed at any time. */
  readonly tokens = new Set([emulatorToken])
  /** The provider's `endpoint`. */
  readonly endpoint: string
  readonly #http: Server
  readonly #guests: Guests
  readonly #checker: Checker
  readonly #lenient: boolean

  private constructor(http: Server, options: EmulatorOptions) {
    this.#http = http
    this.#lenient = options.lenient ?? false
    this.project = new Project({ ...quick, ...options.durations }, this.faults)
    this.rateLimit = new RateLimit(options.callsPerHour ?? 1_000_000)
    this.#checker = new Checker(options.description ?? committedDescription())
    this.#guests = new Guests(this.project)
    this.endpoint = `http://127.0.0.1:${(http.address() as AddressInfo).port}${apiRoot}`
    http.on('request', (request, response) => {
      this.#serve(request, response).catch(() => response.destroy())
    })
  }

  /** Starts it on a free port. */
  static async start(options: EmulatorOptions = {}): Promise<Emulator> {
    const http = createServer()
    await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
    return new Emulator(http, options)
  }

  async close(): Promise<void> {
    this.#guests.stop()
    this.#http.closeAllConnections()
    await new Promise((resolve) => this.#http.close(resolve))
  }

  get ledger(): Ledger {
    return this.project.ledger
  }

  /** Operations that are described and not emulated. */
  get missing(): readonly string[] {
    return this.#checker.operations.filter((name) => handlers[name] === undefined)
  }

  /** Creates servers behind everybody's back. They run at once. @returns their ids. */
  plant(orders: readonly Partial<ServerOrder>[]): readonly number[] {
    return orders.map((order, index) => {
      const body = {
        name: `planted-${this.project.newId()}-${index}`,
        server_type: 'cx22',
        image: 'debian-12',
        location: 'fsn1',
        ...order,
      }
      const answer = handlers['POST /servers']?.({
        project: this.project,
        path: {},
        query: new URLSearchParams(),
        body,
      })
      const { server } = answer?.body as { server: { id: number } }
      const record = this.project.servers.get(server.id)
      this.project.dropActionsOf('server', server.id)
      if (record !== undefined) Object.assign(record.view, { status: 'running' })
      return server.id
    })
  }

  /** Deletes a server behind everybody's back. */
  vanish(id: number): void {
    const server = this.project.servers.get(id)
    if (server !== undefined) vanish(this.project, server.view)
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://emulator')
    const method = request.method ?? 'GET'
    const path = pathname.slice(apiRoot.length)
    const text = await bodyOf(request)
    const fault = this.faults.takeCallFault(method, path)
    await delay(this.faults.latencyMs / 2)
    if (fault === 'dropped') return this.#silence(method, path, response)
    const answer =
      this.#rateLimited() ??
      this.#refused(fault) ??
      this.#brokenListing(searchParams) ??
      this.#answer(request, method, path, searchParams, text)
    await delay(this.faults.latencyMs / 2)
    if (fault === 'lost') return this.#silence(method, path, response)
    this.ledger.calls.push({ atMs: Date.now(), method, path, status: answer.status })
    response.writeHead(answer.status, {
      // Clients read a body where a type is announced.
      ...(answer.body !== undefined && { 'content-type': 'application/json' }),
      ...this.rateLimit.headers(),
      ...linkOf(answer.body, `${this.endpoint}${path}`, searchParams),
    })
    response.end(answer.body === undefined ? undefined : JSON.stringify(answer.body))
  }

  /** The effect, if there was one, remains; the answer is never heard. */
  #silence(method: string, path: string, response: ServerResponse): void {
    this.ledger.calls.push({ atMs: Date.now(), method, path, status: undefined })
    response.destroy()
  }

  #rateLimited(): Answer | undefined {
    if (this.rateLimit.take()) return undefined
    return refusal(new Refusal(429, 'rate_limit_exceeded', 'limit of requests per hour reached'))
  }

  #brokenListing(query: URLSearchParams): Answer | undefined {
    if (!this.faults.breakListings || Number(query.get('page') ?? 1) < 2) return undefined
    return refusal(new Refusal(503, 'unavailable', 'planted: this page cannot be read'))
  }

  #refused(fault: ReturnType<Faults['takeCallFault']>): Answer | undefined {
    if (typeof fault !== 'object') return undefined
    return refusal(new Refusal(fault.status, fault.code, fault.message ?? `planted: ${fault.code}`))
  }

  #answer(request: IncomingMessage, method: string, path: string, query: URLSearchParams, text: string): Answer {
    try {
      this.#authenticate(request, method)
      if (path === '/datacenters' || path.startsWith('/datacenters/')) gone()
      const match = this.#checker.match(method, path)
      const handler = match && handlers[match.operation.name]
      if (match === undefined || handler === undefined) {
        this.violations.push(`${method} ${path}: not described`)
        throw new Refusal(404, 'not_found', 'not found')
      }
      const body = parsed(text)
      const faults = match.operation.refusesRequest({ path: match.path, query, body })
      if (faults.length > 0) this.#violated(`request ${match.operation.name}: ${faults.join('; ')}`)
      this.project.settle()
      const answer = handler({ project: this.project, path: match.path, query, body })
      const copy = {
        status: answer.status,
        body: answer.body === undefined ? undefined : parsed(JSON.stringify(answer.body)),
      }
      const own = match.operation.refusesAnswer(copy.status, copy.body)
      if (own.length > 0) this.violations.push(`answer ${match.operation.name} ${copy.status}: ${own.join('; ')}`)
      return copy
    } catch (thrown) {
      if (thrown instanceof Refusal) return refusal(thrown)
      this.violations.push(`${method} ${path}: the emulator failed: ${String(thrown)}`)
      return refusal(new Refusal(500, 'server_error', 'the emulator failed'))
    }
  }

  #violated(what: string): void {
    this.violations.push(what)
    if (!this.#lenient) throw new Refusal(422, 'invalid_input', what)
  }

  #authenticate({ headers }: IncomingMessage, method: string): void {
    const token = /^Bearer (.+)$/.exec(headers.authorization ?? '')?.[1]
    if (token === undefined) throw new Refusal(401, 'unauthorized', 'token is required')
    const isKnown = this.tokens.has(token) || token === readOnlyToken
    if (!isKnown || this.faults.refuseTokens)
      throw new Refusal(401, 'unauthorized', 'the token you have provided is invalid')
    if (token === readOnlyToken && method !== 'GET')
      throw new Refusal(401, 'token_readonly', 'the token is only allowed to perform GET requests')
  }
}

function refusal({ status, body }: Refusal): Answer {
  return { status, body }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

function parsed(text: string): unknown {
  if (text.trim() === '') return undefined
  try {
    return JSON.parse(text)
  } catch {
    throw new Refusal(400, 'json_error', 'invalid JSON input')
  }
}

interface Paged {
  readonly meta?: {
    readonly pagination: {
      readonly previous_page: number | null
      readonly next_page: number | null
      readonly last_page: number | null
    }
  }
}

function linkOf(body: unknown, url: string, query: URLSearchParams): Record<string, string> {
  const pagination = ((body ?? {}) as Paged).meta?.pagination
  if (pagination === undefined) return {}
  const { previous_page: prev, next_page: next, last_page: last } = pagination
  const links = Object.entries({ prev, next, last }).flatMap(([rel, page]) => {
    const changed = new URLSearchParams(query)
    changed.set('page', String(page))
    return page === null ? [] : [`<${url}?${changed.toString()}>; rel="${rel}"`]
  })
  return { Link: links.join(', ') }
}
