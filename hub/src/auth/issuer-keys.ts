import {
  createLocalJWKSet,
  errors,
  type CryptoKey,
  type FlattenedJWSInput,
  type JSONWebKeySet,
  type JWSHeaderParameters,
  type JWK,
} from 'jose'
import type { Logger } from 'pino'
import { HubError } from '../domain/error/errors.js'
import type { IssuerConfig } from '../domain/sign-in/issuer.js'

// The keys that issuers sign with. Nothing is fetched but from the issuers that are configured, whatever a token says about itself.

export interface KeyTiming {
  /** Keys that are older are fetched again before they are used. */
  readonly refreshMs: number
  /** Keys are used for so long where they cannot be fetched again. */
  readonly staleMs: number
  /** At least so long between two tries. */
  readonly cooldownMs: number
  readonly timeoutMs: number
}

const defaultTiming: KeyTiming = {
  refreshMs: 10 * 60_000,
  staleMs: 24 * 3_600_000,
  cooldownMs: 5_000,
  timeoutMs: 5_000,
}
/** A discovery document or key set that is larger is no honest one. */
const maxBodyBytes = 512 * 1024

interface Known {
  readonly find: ReturnType<typeof createLocalJWKSet>
  readonly readAt: number
}

/** The keys of one issuer. Fetched when first needed, and anew as they get old or a token names one that is not among them. */
export class IssuerKeys {
  readonly #issuer: IssuerConfig
  readonly #log: Logger
  readonly #timing: KeyTiming
  #known: Known | undefined
  #triedAt = Number.NEGATIVE_INFINITY
  #lastError: unknown
  #loading: Promise<void> | undefined

  constructor(issuer: IssuerConfig, log: Logger, timing: Partial<KeyTiming> = {}) {
    this.#issuer = issuer
    this.#log = log
    this.#timing = { ...defaultTiming, ...timing }
  }

  /**
   * The key that a token says it is signed with.
   *
   * @throws HubError ISSUER_UNAVAILABLE where the issuer does not answer, and a JOSEError where it has no such key.
   */
  async find(header: JWSHeaderParameters, token: FlattenedJWSInput): Promise<CryptoKey> {
    const askedAt = performance.now()
    const known = await this.#fresh()
    try {
      return await known.find(header, token)
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey) || known.readAt >= askedAt) throw error
    }
    // It may be a new one. Whoever makes key ids up causes a fetch once in a while, and no more.
    await this.#load()
    return (this.#known ?? known).find(header, token)
  }

  async #fresh(): Promise<Known> {
    const known = this.#known
    const ageMs = known === undefined ? Number.POSITIVE_INFINITY : performance.now() - known.readAt
    if (known !== undefined && ageMs < this.#timing.refreshMs) return known
    try {
      await this.#load()
    } catch (error) {
      if (known === undefined || ageMs >= this.#timing.staleMs) throw error
      return known
    }
    if (this.#known === undefined) throw this.#unavailable()
    return this.#known
  }

  /** Fetches the keys, once for all who wait for them. @throws HubError ISSUER_UNAVAILABLE where that fails, or has to wait. */
  async #load(): Promise<void> {
    this.#loading ??= this.#tryLoading().finally(() => (this.#loading = undefined))
    return this.#loading
  }

  async #tryLoading(): Promise<void> {
    if (performance.now() - this.#triedAt < this.#timing.cooldownMs) throw this.#unavailable()
    this.#triedAt = performance.now()
    try {
      const keys = await this.#fetchKeys()
      this.#known = { find: createLocalJWKSet(keys), readAt: performance.now() }
      this.#lastError = undefined
    } catch (error) {
      this.#lastError = error
      this.#log.warn({ err: error, issuer: this.#issuer.name }, "an issuer's keys cannot be fetched")
      throw this.#unavailable()
    } finally {
      this.#triedAt = performance.now()
    }
  }

  #unavailable(): HubError {
    const why = this.#lastError === undefined ? 'its keys were fetched a moment ago' : 'its keys cannot be fetched'
    const retryAfterMs = Math.max(100, Math.ceil(this.#triedAt + this.#timing.cooldownMs - performance.now()))
    return new HubError(
      'ISSUER_UNAVAILABLE',
      `the issuer ${this.#issuer.name} cannot be asked now: ${why}; try again`,
      {
        retryAfterMs,
        cause: this.#lastError,
      },
    )
  }

  async #fetchKeys(): Promise<JSONWebKeySet> {
    const { issuer } = this.#issuer
    // OpenID Connect Discovery 1.0, section 4.
    const discovered = await this.#fetchJson(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)
    if (discovered['issuer'] !== issuer)
      throw new Error(`the issuer calls itself «${String(discovered['issuer'])}», and not «${issuer}»`)
    const keys = await this.#fetchJson(this.#keysUrl(discovered['jwks_uri']))
    if (!Array.isArray(keys['keys'])) throw new Error('the key set has no keys')
    const all: readonly unknown[] = keys['keys']
    return { keys: all.filter(isPublicSigningKey) }
  }

  /** What an issuer says of where its keys are is believed within its own origin and those that are configured. */
  #keysUrl(given: unknown): string {
    const url = typeof given === 'string' && URL.canParse(given) ? new URL(given) : undefined
    const { issuer, keyOrigins } = this.#issuer
    if (url === undefined) throw new Error('the issuer does not say where its keys are')
    if (url.origin !== new URL(issuer).origin && !keyOrigins.includes(url.origin))
      throw new Error(`the issuer's keys are at ${url.origin}: add that to its keyOrigins where it is right`)
    return url.toString()
  }

  async #fetchJson(url: string): Promise<Readonly<Record<string, unknown>>> {
    const response = await fetch(url, {
      redirect: 'error',
      signal: AbortSignal.timeout(this.#timing.timeoutMs),
      headers: { accept: 'application/json, application/jwk-set+json' },
    })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw new Error(`${url} answers with ${response.status}`)
    }
    const content: unknown = JSON.parse(await readBody(response))
    if (typeof content !== 'object' || content === null || Array.isArray(content))
      throw new Error(`${url} is no JSON object`)
    return content as Readonly<Record<string, unknown>>
  }
}

async function readBody(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  const body: AsyncIterable<Uint8Array> | undefined = response.body ?? undefined
  for await (const chunk of body ?? []) {
    bytes += chunk.byteLength
    if (bytes > maxBodyBytes) throw new Error(`${response.url} is over ${maxBodyBytes} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Keys to check signatures with. A shared secret in a key set, or a private key, is a mistake of the issuer's. */
function isPublicSigningKey(key: unknown): key is JWK {
  if (typeof key !== 'object' || key === null) return false
  const { kty, use, d } = key as Readonly<Record<string, unknown>>
  return kty !== 'oct' && (use === undefined || use === 'sig') && d === undefined
}
