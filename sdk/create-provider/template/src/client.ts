import { ProviderError } from '@slipway/sdk'
import type { Config, Credentials } from './config.js'
import { toProviderError } from './errors.js'

// The API of your cloud, as far as the provider needs it. Replace what is in here, and keep what it promises.

/** A server, as the API shows it. */
export interface Server {
  readonly id: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly status: 'creating' | 'running' | 'off' | 'failed' | 'deleting'
  readonly ips: readonly string[]
}

export interface ServerType {
  readonly id: string
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskGib: number
  readonly available: boolean
  readonly images: readonly string[]
}

export interface ServerOrder {
  readonly name: string
  readonly type: string
  readonly image: string
  readonly location: string
  readonly labels: Readonly<Record<string, string>>
  readonly userData: string
}

type Page = { readonly servers: readonly Server[]; readonly next?: number }

/** How long one call may take before its outcome is in doubt. */
const callTimeoutMs = 10_000

/** A client under one configuration and credential. All of its functions throw {@link ProviderError} where the API refuses. */
export class Client {
  readonly #url: string
  readonly #token: string

  constructor({ url }: Config, { token }: Credentials) {
    this.#url = url.replace(/\/$/, '')
    this.#token = token
  }

  types(signal: AbortSignal): Promise<readonly ServerType[]> {
    return this.#call(signal, 'GET', '/types')
  }

  /** Begins to make a server. Names are unique: a taken one is refused. */
  create(order: ServerOrder, signal: AbortSignal): Promise<Server> {
    return this.#call(signal, 'POST', '/servers', order)
  }

  /** One server; `undefined`: it was looked up, and is not there. */
  async get(id: string, signal: AbortSignal): Promise<Server | undefined> {
    return this.#unlessMissing(this.#call<Server>(signal, 'GET', `/servers/${encodeURIComponent(id)}`))
  }

  /** All servers, or those with a label, page by page. It throws where a page cannot be read: what it has yielded is then not all. */
  async *list(label: string | undefined, signal: AbortSignal): AsyncGenerator<Server> {
    const filter = label === undefined ? '' : `&label=${encodeURIComponent(label)}`
    for (let page: number | undefined = 1; page !== undefined;) {
      const { servers, next }: Page = await this.#call(signal, 'GET', `/servers?page=${page}${filter}`)
      yield* servers
      page = next
    }
  }

  /** Begins to delete a server. Missing is success. */
  async delete(id: string, signal: AbortSignal): Promise<void> {
    await this.#unlessMissing(this.#call(signal, 'DELETE', `/servers/${encodeURIComponent(id)}`))
  }

  power(id: string, action: 'on' | 'off' | 'reboot', signal: AbortSignal): Promise<unknown> {
    return this.#call(signal, 'POST', `/servers/${encodeURIComponent(id)}/power`, { action })
  }

  async #call<Answer>(signal: AbortSignal, method: string, path: string, body?: object): Promise<Answer> {
    const response = await this.#send(signal, method, path, body)
    const answer = (await response.json().catch(() => ({}))) as { code?: string; message?: string }
    if (response.ok) return answer as Answer
    const retryAfter = response.headers.get('retry-after')
    throw toProviderError({
      status: response.status,
      code: answer.code ?? '',
      message: answer.message ?? `the API answers ${response.status}`,
      ...(retryAfter !== null && { retryAfterMs: Number(retryAfter) * 1_000 }),
    })
  }

  async #send(signal: AbortSignal, method: string, path: string, body?: object): Promise<Response> {
    try {
      return await fetch(this.#url + path, {
        method,
        headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' },
        signal: AbortSignal.any([signal, AbortSignal.timeout(callTimeoutMs)]),
        ...(body !== undefined && { body: JSON.stringify(body) }),
      })
    } catch (error) {
      // Not our time-out, but the end of the work that the call is for.
      signal.throwIfAborted()
      // What a call without an answer asked for may have happened: TIMEOUT makes the SDK look before it tries again.
      throw new ProviderError('TIMEOUT', `no answer from the API to ${method} ${path.split('?')[0]}`, { cause: error })
    }
  }

  async #unlessMissing<Answer>(call: Promise<Answer>): Promise<Answer | undefined> {
    try {
      return await call
    } catch (error) {
      if (error instanceof ProviderError && error.externalCode === 'not_found') return undefined
      throw error
    }
  }
}
