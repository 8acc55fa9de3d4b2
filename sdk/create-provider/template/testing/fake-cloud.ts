import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server as HttpServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Server, ServerOrder, ServerType } from '../src/client.js'

// A cloud that is not there: enough of the API to test against. Let it behave as the real one does, above all where that is inconvenient.

export const goodToken = 'a-token-that-is-good'
export const otherToken = 'another-token-that-is-good'

const createMs = 150
const deleteMs = 100
const pageSize = 50

export const types: readonly ServerType[] = [
  { id: 'small', vcpus: 2, memoryMib: 4_096, diskGib: 40, available: true, images: ['debian-13', 'ubuntu-24.04'] },
  { id: 'large', vcpus: 8, memoryMib: 32_768, diskGib: 240, available: true, images: ['debian-13'] },
]

/** What is wrong with the cloud right now. */
export interface Faults {
  /** The next create is refused with that code. */
  readonly refuse?: 'out_of_stock' | 'limit_reached' | 'unavailable'
  /** The next create takes effect, or does not, and the connection breaks before its answer. */
  readonly breakOff?: 'before' | 'after'
  /** The next server fails while it is made. */
  readonly fail?: boolean
  readonly throttled?: boolean
  readonly lockedOut?: boolean
  readonly createMs?: number
  readonly deleteMs?: number
  /** Listings fail after their first page. */
  readonly listBreaks?: boolean
}

interface Kept extends Omit<Server, 'status'> {
  power: 'on' | 'off'
  reboots: number
  readonly runsAtMs: number
  readonly fails: boolean
  goneAtMs?: number
}

/** What an endpoint answers: a status, a body, and for some refusals when to come again. */
interface Answer {
  readonly status: number
  readonly body: unknown
  readonly retryAfterSeconds?: number
}

/** The fake. Start one for each test. */
export class FakeCloud {
  readonly servers = new Map<string, Kept>()
  faults: Faults = {}
  calls = 0
  writes = 0
  /** The most servers that ever lived at once, by the value of a label. */
  readonly maxLive = new Map<string, number>()
  readonly #http: HttpServer
  readonly #keyLabel: string

  private constructor(keyLabel: string) {
    this.#keyLabel = keyLabel
    this.#http = createServer((request, response) => void this.#serve(request, response))
  }

  /** @param keyLabel the label that tells servers of one owner apart. */
  static async start(keyLabel: string): Promise<FakeCloud> {
    const cloud = new FakeCloud(keyLabel)
    cloud.#http.listen(0, '127.0.0.1')
    await once(cloud.#http, 'listening')
    return cloud
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`
  }

  async stop(): Promise<void> {
    this.#http.closeAllConnections()
    this.#http.close()
    await once(this.#http, 'close')
  }

  /** Servers that exist now. */
  live(): Kept[] {
    return [...this.servers.values()].filter(({ goneAtMs = Infinity }) => goneAtMs > Date.now())
  }

  /** Makes a server that runs, past the API. */
  plant(name: string, labels: Readonly<Record<string, string>>): string {
    return this.#make({ name, labels }, Date.now(), false).id
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const answer = await this.#answer(request)
    if (answer === undefined) {
      response.destroy()
      return
    }
    const { status, body, retryAfterSeconds } = answer
    response.writeHead(status, {
      'content-type': 'application/json',
      ...(retryAfterSeconds !== undefined && { 'retry-after': String(retryAfterSeconds) }),
    })
    response.end(JSON.stringify(body))
  }

  /** @returns `undefined` where the connection is to break. */
  async #answer(request: IncomingMessage): Promise<Answer | undefined> {
    const { method = '', headers } = request
    this.calls += 1
    if (method !== 'GET') this.writes += 1
    const refused = this.#refusal(headers.authorization?.replace('Bearer ', ''))
    if (refused !== undefined) return refused
    const url = new URL(request.url ?? '/', 'http://cloud')
    const [, collection, id, verb] = url.pathname.split('/')
    if (collection === 'types') return { status: 200, body: types }
    if (id !== undefined) return this.#one(id, method, verb, request)
    return method === 'POST' ? this.#create(await bodyOf<ServerOrder>(request)) : this.#list(url)
  }

  #refusal(token: string | undefined): Answer | undefined {
    if (this.faults.lockedOut === true || (token !== goodToken && token !== otherToken))
      return refusal(401, 'unauthorized', 'the token is not accepted')
    if (this.faults.throttled !== true) return undefined
    return { ...refusal(429, 'too_many', 'too many calls; try again in a moment'), retryAfterSeconds: 1 }
  }

  /** What is asked of one server. */
  async #one(id: string, method: string, verb: string | undefined, request: IncomingMessage): Promise<Answer> {
    const server = this.live().find((each) => each.id === id)
    if (server === undefined) return refusal(404, 'not_found', `there is no server ${id}`)
    if (method === 'DELETE') server.goneAtMs ??= Date.now() + (this.faults.deleteMs ?? deleteMs)
    if (verb === 'power') switchPower(server, (await bodyOf<{ action: string }>(request)).action)
    return { status: 200, body: shown(server) }
  }

  async #create(order: ServerOrder): Promise<Answer | undefined> {
    const { refuse, breakOff, fail = false, createMs: ms = createMs, ...lasting } = this.faults
    this.faults = { ...lasting, createMs: ms }
    if (refuse === 'unavailable') return refusal(503, refuse, 'the API is down for the moment')
    if (refuse !== undefined) return refusal(422, refuse, `no ${order.type} is to be had: ${refuse}`)
    if (breakOff === 'before') return undefined
    const known = types.find(({ id }) => id === order.type)
    if (known?.images.includes(order.image) !== true) return refusal(422, 'invalid', 'there is no such type or image')
    if (this.live().some(({ name }) => name === order.name))
      return refusal(409, 'name_taken', `there is a server ${order.name} already`)
    const made = this.#make(order, Date.now() + ms, fail)
    if (breakOff !== 'after') return { status: 201, body: shown(made) }
    await delay(100)
    return undefined
  }

  #list(url: URL): Answer {
    const page = Number(url.searchParams.get('page') ?? 1)
    if (page > 1 && this.faults.listBreaks === true) return refusal(503, 'unavailable', 'the page cannot be read')
    const [key, value] = url.searchParams.get('label')?.split('=') ?? []
    const all = this.live().filter(({ labels }) => key === undefined || labels[key] === value)
    const servers = all.slice((page - 1) * pageSize, page * pageSize).map(shown)
    return { status: 200, body: { servers, ...(all.length > page * pageSize && { next: page + 1 }) } }
  }

  #make({ name, labels }: Pick<ServerOrder, 'name' | 'labels'>, runsAtMs: number, fails: boolean): Kept {
    const id = `srv-${randomBytes(5).toString('hex')}`
    const kept: Kept = { id, name, labels, ips: ['198.51.100.7'], power: 'on', reboots: 0, runsAtMs, fails }
    this.servers.set(id, kept)
    const key = labels[this.#keyLabel] ?? ''
    const alike = this.live().filter((each) => each.labels[this.#keyLabel] === key).length
    this.maxLive.set(key, Math.max(alike, this.maxLive.get(key) ?? 0))
    return kept
  }
}

function refusal(status: number, code: string, message: string): Answer {
  return { status, body: { code, message } }
}

function shown({ id, name, labels, ips, power, runsAtMs, fails, goneAtMs }: Kept): Server {
  const status = runsAtMs > Date.now() ? 'creating' : fails ? 'failed' : power === 'on' ? 'running' : 'off'
  return { id, name, labels, ips, status: goneAtMs === undefined ? status : 'deleting' }
}

function switchPower(server: Kept, action: string): void {
  if (action === 'reboot') server.reboots += 1
  else server.power = action === 'on' ? 'on' : 'off'
}

async function bodyOf<Body>(request: IncomingMessage): Promise<Body> {
  let text = ''
  for await (const chunk of request.setEncoding('utf8')) text += String(chunk)
  return JSON.parse(text) as Body
}
