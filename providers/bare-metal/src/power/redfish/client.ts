import type { BmcEnvironment } from '../driver.js'
import { BmcError, isBmcError, type BmcErrorKind } from '../errors.js'
import { BmcHttp, type HttpAnswer } from '../http.js'
import type { BmcSecret, RedfishSettings } from '../settings.js'
import { pause } from '../waiting.js'

/** A Redfish resource; only what is looked at is believed to be there. */
export type Resource = Readonly<Record<string, unknown>>

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly resource: Resource
}

interface Session {
  readonly token: string
  /** Where to delete it; absent where the BMC did not say. */
  readonly location: string | undefined
}

export interface Change {
  readonly method: 'POST' | 'PATCH' | 'DELETE'
  readonly path: string
  readonly body?: unknown
  readonly etag?: string
  /** For messages to people. */
  readonly what: string
}

const sessionsPath = '/redfish/v1/SessionService/Sessions'
const taskPauseMs = 500
const maxTaskPauseMs = 5_000

/**
 * A Redfish service (DMTF DSP0266): a session that is made when first needed and made anew where the BMC forgot it, answers as JSON, tasks
 * followed to their end. A BMC without sessions is logged in to with each call.
 */
export class RedfishClient {
  readonly #settings: RedfishSettings
  readonly #secret: BmcSecret
  readonly #http: BmcHttp
  #session: Session | 'basic' | undefined

  constructor(settings: RedfishSettings, secret: BmcSecret, environment: BmcEnvironment) {
    this.#settings = settings
    this.#secret = secret
    this.#http = new BmcHttp({
      tls: settings.tls,
      timeoutMs: settings.timeoutMs,
      ...(environment.allowAddress !== undefined && { allowAddress: environment.allowAddress }),
    })
  }

  async get(path: string, what: string, signal: AbortSignal): Promise<Answer> {
    return this.#loggedIn('GET', { path, what }, signal)
  }

  /** Changes something, and waits for the task where the BMC makes one of it. @throws BmcError where it refuses, or the task fails. */
  async change(change: Change, signal: AbortSignal): Promise<Answer> {
    const answer = await this.#loggedIn(change.method, change, signal)
    return answer.status === 202 ? this.#finish(answer, change.what, signal) : answer
  }

  /** Logs out: BMCs have few sessions, and some never forget one. */
  async close(signal: AbortSignal): Promise<void> {
    const session = this.#session
    this.#session = undefined
    if (typeof session === 'object' && session.location !== undefined) {
      const path = session.location
      const headers = { 'x-auth-token': session.token }
      await this.#send('DELETE', { path, what: 'to end the session' }, headers, signal).catch(() => undefined)
    }
    this.#http.close()
  }

  async #loggedIn(method: string, call: Omit<Change, 'method'>, signal: AbortSignal): Promise<Answer> {
    const kept = this.#session
    const answer = await this.#send(method, call, await this.#authorization(signal), signal)
    if (answer.status !== 401) return accepted(answer, call.what)
    this.#session = undefined
    // A session that was kept may have been forgotten; one that was just made, or a password, is refused for good.
    if (kept === undefined || kept === 'basic') throw refusedLogin()
    return accepted(await this.#send(method, call, await this.#authorization(signal), signal), call.what)
  }

  async #authorization(signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
    this.#session ??= await this.#logIn(signal)
    if (this.#session !== 'basic') return { 'x-auth-token': this.#session.token }
    const login = Buffer.from(`${this.#secret.username}:${this.#secret.password}`).toString('base64')
    return { authorization: `Basic ${login}` }
  }

  async #logIn(signal: AbortSignal): Promise<Session | 'basic'> {
    const { username, password } = this.#secret
    const body = { UserName: username, Password: password }
    const what = 'to open a session'
    const answer = await this.#send('POST', { path: sessionsPath, body, what }, {}, signal)
    const token = answer.headers['x-auth-token']
    if (answer.status >= 200 && answer.status < 300 && token !== undefined)
      return { token, location: this.#local(answer.headers['location']) ?? pathOf(answer.resource['@odata.id']) }
    if (answer.status === 401 || answer.status === 400 || answer.status === 403) {
      // Some without sessions refuse the unknown path before they look whether it is there; what they think of the login is seen then.
      if (answer.status !== 401 || !hasBasic(answer)) throw refusedLogin(answer)
      return 'basic'
    }
    if ([404, 405, 501].includes(answer.status)) return 'basic'
    throw refusal(answer, what)
  }

  async #send(
    method: string,
    { path, body, etag, what }: Omit<Change, 'method'>,
    authorization: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Answer> {
    const url = new URL(path, this.#settings.endpoint)
    // What a BMC answers must not lead its login elsewhere.
    if (url.origin !== new URL(this.#settings.endpoint).origin)
      throw new BmcError('protocol', `the BMC leads to another host, ${url.host}; nothing was sent there`)
    const headers = {
      'odata-version': '4.0',
      ...authorization,
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...(etag !== undefined && { 'if-match': etag }),
    }
    const text = body === undefined ? {} : { body: JSON.stringify(body) }
    const changes = method !== 'GET' && path !== sessionsPath
    const answer = await this.#http.call({ method, url, headers, what, changes, ...text }, signal)
    return { status: answer.status, headers: answer.headers, resource: parseResource(answer) }
  }

  async #finish(first: Answer, what: string, signal: AbortSignal): Promise<Answer> {
    const monitor = this.#local(first.headers['location']) ?? pathOf(first.resource['@odata.id'])
    if (monitor === undefined) return first
    for (let pauseMs = taskPauseMs; ; pauseMs = Math.min(maxTaskPauseMs, pauseMs * 1.5)) {
      await pause(retryAfterMs(first) ?? pauseMs, signal)
      const answer = await this.get(monitor, `how far it is, ${what}`, signal).catch((error: unknown) => {
        // A monitor may be gone as soon as its task has ended.
        if (isBmcError(error, 'unsupported') && error.said === '404') return undefined
        throw error
      })
      if (answer === undefined) return first
      const state = answer.resource['TaskState']
      if (answer.status !== 202 && (typeof state !== 'string' || state === 'Completed')) return answer
      if (typeof state === 'string' && ['Exception', 'Killed', 'Cancelled', 'Interrupted', 'Suspended'].includes(state))
        throw new BmcError(
          'refused',
          `the BMC was asked ${what}, and its task ended as ${state}: ${saidOf(answer.resource)}`,
        )
    }
  }

  /** A path on the BMC itself, of an address that it gave. */
  #local(address: string | undefined): string | undefined {
    if (address === undefined) return undefined
    const url = new URL(address, this.#settings.endpoint)
    return `${url.pathname}${url.search}`
  }
}

function parseResource({ body, status }: HttpAnswer): Resource {
  if (body.trim() === '') return {}
  try {
    const value: unknown = JSON.parse(body)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Resource
  } catch {
    // Refusals are often HTML; their status says enough.
  }
  if (status >= 200 && status < 300)
    throw new BmcError('protocol', 'the BMC answered with something that is no Redfish')
  return {}
}

function accepted(answer: Answer, what: string): Answer {
  if (answer.status >= 200 && answer.status < 300) return answer
  if (answer.status === 401) throw refusedLogin(answer)
  throw refusal(answer, what)
}

function refusedLogin(answer?: Answer): BmcError {
  // Redfish does not tell a wrong password from an unknown user, on purpose.
  const said = answer === undefined ? '' : saidOf(answer.resource)
  return new BmcError(
    'wrong-password',
    `the BMC refuses the user name or the password${said === '' ? '' : `: ${said}`}`,
    {
      said: String(answer?.status ?? 401),
    },
  )
}

const kinds: Readonly<Record<number, BmcErrorKind>> = {
  403: 'privilege',
  404: 'unsupported',
  405: 'unsupported',
  409: 'busy',
  429: 'busy',
  501: 'unsupported',
  503: 'busy',
}

function refusal(answer: Answer, what: string): BmcError {
  const { status, resource } = answer
  const said = saidOf(resource)
  const full = /SessionLimitExceeded/.test(said)
  const kind = full ? 'sessions-exhausted' : (kinds[status] ?? (status >= 300 && status < 400 ? 'protocol' : 'refused'))
  const waitMs = retryAfterMs(answer)
  return new BmcError(kind, `the BMC was asked ${what} and answered ${status}${said === '' ? '' : `: ${said}`}`, {
    said: String(status),
    ...(waitMs !== undefined && { retryAfterMs: waitMs }),
  })
}

/** What a Redfish error says for people; DSP0266, section "Error responses". */
function saidOf(resource: Resource): string {
  const error = objectOf(resource['error']) ?? resource
  const details = listOf(error['@Message.ExtendedInfo']).flatMap((item) => textOf(objectOf(item)?.['Message']) ?? [])
  const ids = listOf(error['@Message.ExtendedInfo']).flatMap((item) => textOf(objectOf(item)?.['MessageId']) ?? [])
  const words = details.length > 0 ? details.join(' ') : (textOf(error['message']) ?? ids.join(' '))
  return (ids.length > 0 && details.length > 0 ? `${words} (${ids.join(', ')})` : words).slice(0, 500)
}

function hasBasic({ headers }: Answer): boolean {
  return /\bbasic\b/i.test(headers['www-authenticate'] ?? '')
}

function retryAfterMs({ headers }: Answer): number | undefined {
  const seconds = Number(headers['retry-after'])
  return headers['retry-after'] !== undefined && Number.isFinite(seconds) && seconds >= 0
    ? Math.min(seconds, 60) * 1_000
    : undefined
}

export function objectOf(value: unknown): Resource | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Resource) : undefined
}

export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

export function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}

/** A path on the BMC, as resources refer to each other. */
export function pathOf(value: unknown): string | undefined {
  const path = textOf(value)
  return path?.startsWith('/') === true && !path.startsWith('//') ? path : undefined
}

/** The path that an `{"@odata.id": …}` gives. */
export function linkOf(value: unknown): string | undefined {
  return pathOf(objectOf(value)?.['@odata.id'])
}
