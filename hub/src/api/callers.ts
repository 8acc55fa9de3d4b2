import type { Logger } from 'pino'
import { HubError } from '../domain/error/errors.js'
import { authenticateClient, noteTokenUse, recheckTokens, type Identity } from '../store/client-tokens.js'
import type { Db } from '../store/database.js'
import type { Wake } from '../store/wake.js'

const cacheMs = 3_000
const maxCached = 1_000
const recheckEveryMs = 5_000
const noteEveryMs = 10_000

/** A stream that is open for somebody. */
interface Held {
  readonly identity: Identity
  cut: (reason: HubError) => void
}

function tokenInvalid(): HubError {
  return new HubError(
    'TOKEN_INVALID',
    'the bearer token is unknown, damaged, expired or revoked; log in with another one',
  )
}

/**
 * Who calls. What is known of a token is believed for a few seconds, and forgotten as soon as anybody's access changes; what streams rest on is looked at again then and from
 * time to time, and they are cut where it is gone.
 */
export class Callers {
  readonly #db: Db
  readonly #log: Logger
  readonly #cache = new Map<string, { readonly identity: Identity; readonly until: number }>()
  readonly #held = new Set<Held>()
  readonly #used = new Map<string, Date>()
  readonly #unlisten: () => void
  readonly #timers: readonly NodeJS.Timeout[]
  /** Grows whenever access changes: what was read before is not kept. */
  #changes = 0

  constructor(deps: { readonly db: Db; readonly wake: Wake; readonly log: Logger }) {
    this.#db = deps.db
    this.#log = deps.log
    this.#unlisten = deps.wake.on('access', () => {
      this.#changes += 1
      this.#cache.clear()
      void this.#recheck()
    })
    this.#timers = [
      setInterval(() => void this.#recheck(), recheckEveryMs),
      setInterval(() => void this.#noteUse(), noteEveryMs),
    ]
    for (const timer of this.#timers) timer.unref()
  }

  /** Whose token it is. @throws HubError TOKEN_INVALID. */
  async identify(token: string): Promise<Identity> {
    const cached = this.#cache.get(token)
    if (cached !== undefined && cached.until > performance.now() && !isOver(cached.identity)) return cached.identity
    this.#cache.delete(token)
    const changes = this.#changes
    const identity = await authenticateClient(this.#db, token)
    if (identity === undefined) throw tokenInvalid()
    this.#used.set(identity.tokenId, new Date())
    if (changes === this.#changes) {
      if (this.#cache.size >= maxCached) this.#cache.clear()
      this.#cache.set(token, { identity, until: performance.now() + cacheMs })
    }
    return identity
  }

  /** Passes on what a stream says for as long as its caller may hear it. @throws HubError TOKEN_INVALID, ACCESS_CHANGED. */
  async *whileAllowed<Message>(identity: Identity, messages: AsyncIterable<Message>): AsyncGenerator<Message> {
    let reason: HubError | undefined
    const held: Held = { identity, cut: (why) => (reason = why) }
    const iterator = messages[Symbol.asyncIterator]()
    this.#held.add(held)
    try {
      for (;;) {
        if (reason !== undefined) throw reason
        const next = await new Promise<IteratorResult<Message>>((resolve, reject) => {
          held.cut = reject
          iterator.next().then(resolve, reject)
        })
        held.cut = (why) => (reason = why)
        if (next.done === true) return
        yield next.value
      }
    } finally {
      this.#held.delete(held)
      // It may be waiting for something to say: the end of the call ends that.
      iterator.return?.().catch(() => undefined)
    }
  }

  async stop(): Promise<void> {
    this.#unlisten()
    for (const timer of this.#timers) clearInterval(timer)
    await this.#noteUse()
  }

  async #recheck(): Promise<void> {
    const held = [...this.#held]
    if (held.length === 0) return
    try {
      const still = await recheckTokens(this.#db, [...new Set(held.map(({ identity }) => identity.tokenId))])
      for (const entry of held) {
        const { identity } = entry
        const now = still.get(identity.tokenId)
        if (now === undefined) entry.cut(tokenInvalid())
        else if (JSON.stringify(now.grants) !== JSON.stringify(identity.grants))
          entry.cut(new HubError('ACCESS_CHANGED', 'what you may see has changed; watch again'))
      }
    } catch (error) {
      // What is known stays as it is until the database answers: that is asked again soon.
      this.#log.warn({ err: error }, 'cannot look after tokens now')
    }
  }

  async #noteUse(): Promise<void> {
    const used = new Map(this.#used)
    this.#used.clear()
    try {
      await noteTokenUse(this.#db, used)
    } catch (error) {
      this.#log.debug({ err: error }, 'when tokens were used was not noted')
    }
  }
}

function isOver({ expiresAt }: Identity): boolean {
  return expiresAt !== null && expiresAt.getTime() <= Date.now()
}
