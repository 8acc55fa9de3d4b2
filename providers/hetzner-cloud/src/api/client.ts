import createClient, { type Client } from 'openapi-fetch'
import type { Logger } from 'pino'
import { errorOf, isApiError, lostOf } from './errors.js'
import { pause } from './pause.js'
import { RateBudget, rateHeadersOf, type Urgency } from './rate-budget.js'
import type { paths } from './schema.js'

/** A project of the cloud, and how to speak to it. */
export interface ApiOptions {
  /** Where the API is, for example `https://api.hetzner.cloud/v1`. */
  readonly endpoint: string
  /** Secret. */
  readonly token: string
  /** How long one call may take, milliseconds. */
  readonly timeoutMs: number
  readonly log: Logger
  /** Default: one of its own. */
  readonly budget?: RateBudget
  /** Default: the platform's. */
  readonly fetch?: (request: Request) => Promise<Response>
}

/** How often a call is made that was refused without effect: too many calls, or a change at the same moment. */
const maxTries = 4
/** How often something is looked at that gives no answer. */
const maxLooks = 3
const basePauseMs = 250

/**
 * The API of one project: every call carries the token, waits for the rate budget, and ends within its time.
 * Calls throw an ApiError for what is refused, a ProviderError for what gets no answer, and the signal's reason.
 */
export class Api {
  readonly budget: RateBudget
  readonly #options: ApiOptions
  readonly #fetch: (request: Request) => Promise<Response>
  readonly #clients: Readonly<Record<Urgency, Client<paths>>>

  constructor(options: ApiOptions) {
    this.#options = options
    this.#fetch = options.fetch ?? ((request) => fetch(request))
    this.budget = options.budget ?? new RateBudget()
    this.#clients = {
      urgent: this.#client('urgent'),
      normal: this.#client('normal'),
      background: this.#client('background'),
    }
  }

  /** The operations, for calls of this urgency. See {@link answer}. */
  as(urgency: Urgency): Client<paths> {
    return this.#clients[urgency]
  }

  #client(urgency: Urgency): Client<paths> {
    const { endpoint, token } = this.#options
    return createClient<paths>({
      baseUrl: endpoint.replace(/\/+$/, ''),
      headers: { authorization: `Bearer ${token}`, 'user-agent': 'slipway-provider-hetzner-cloud' },
      fetch: (request) => this.#send(request, urgency),
    })
  }

  /** Makes a call, again where that can do no harm. @returns only good answers. */
  async #send(request: Request, urgency: Urgency): Promise<Response> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#once(request.clone(), urgency)
      } catch (thrown) {
        request.signal.throwIfAborted()
        if (!mayRepeat(request, thrown, attempt)) throw thrown
        this.#options.log.debug({ err: thrown, attempt }, 'a call is repeated')
      }
      await pause(basePauseMs * 2 ** attempt * (0.5 + Math.random() / 2), request.signal)
    }
  }

  async #once(request: Request, urgency: Urgency): Promise<Response> {
    const { signal } = request
    const { timeoutMs } = this.#options
    const call = `${request.method} ${new URL(request.url).pathname}`
    await this.budget.take(urgency, signal)
    const timeout = AbortSignal.timeout(timeoutMs)
    let headers: Headers | undefined
    try {
      const limited = new Request(request, { signal: AbortSignal.any([signal, timeout]) })
      const response = await this.#fetch(limited)
      // Read here, so that an answer that stops half-way is as lost as one that never comes.
      const body = await response.text()
      headers = response.headers
      if (!response.ok) throw errorOf(call, response.status, parsed(body), this.#retryAfterMs(response))
      return new Response(body === '' ? null : body, response)
    } catch (thrown) {
      signal.throwIfAborted()
      throw headers === undefined ? lostOf(call, timeout.aborted ? timeout.reason : thrown, timeoutMs) : thrown
    } finally {
      this.budget.done(headers && rateHeadersOf(headers))
    }
  }

  #retryAfterMs({ status, headers }: Response): number | undefined {
    const seconds = /^\d{1,6}$/.exec(headers.get('retry-after') ?? '')?.[0]
    if (status === 429) this.budget.exhausted()
    if (seconds !== undefined) return Number(seconds) * 1_000
    return status === 429 ? this.budget.nextInMs : undefined
  }
}

/** The body of an answer: `await answer(api.as('normal').GET('/servers', …))`. @throws what the call throws. */
export async function answer<Data>(call: Promise<{ readonly data?: Data | undefined }>): Promise<NonNullable<Data>> {
  const { data } = await call
  return data as NonNullable<Data>
}

/** The same, and undefined for what does not exist. */
export async function answerIfAny<Data>(
  call: Promise<{ readonly data?: Data | undefined }>,
): Promise<NonNullable<Data> | undefined> {
  try {
    return await answer(call)
  } catch (thrown) {
    if (isApiError(thrown, 'not_found')) return undefined
    throw thrown
  }
}

/** Whether a call can be made again at once without doing anything twice. */
function mayRepeat({ method }: Request, thrown: unknown, attempt: number): boolean {
  if (isApiError(thrown, 'rate_limit_exceeded', 'conflict')) return attempt < maxTries
  const isSilence = !isApiError(thrown) || [502, 503, 504].includes(thrown.status)
  return method === 'GET' && isSilence && attempt < maxLooks
}

function parsed(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}
