import { ProviderError, type FailureCode } from '@slipway/sdk'
import { answer, type Api } from './client.js'
import { ActionFailed } from './errors.js'
import type { Urgency } from './rate-budget.js'
import type { Action } from './types.js'

/** Actions asked for in one call. */
const batchSize = 25
const firstPauseMs = 400
const maxPauseMs = 5_000
/** Those due within this are asked for along with what is due now. */
const gatherMs = 150
/** Why asking may fail for a moment. After anything else, a token that is refused for one, waiting is of no use. */
const passing: ReadonlySet<FailureCode> = new Set(['UNAVAILABLE', 'TIMEOUT', 'RATE_LIMITED', 'CONFLICT'])
/** How often an action may be missing from answers before it is given up. */
const maxMisses = 5

interface Waiter {
  readonly resolve: (action: Action) => void
  readonly reject: (error: Error) => void
}

interface Watched {
  readonly id: number
  readonly urgency: Urgency
  readonly waiters: Set<Waiter>
  dueAtMs: number
  pauseMs: number
  misses: number
}

/**
 * Waits for actions, all that are waited for in one call where that is possible: `GET /actions?id=1&id=2`. Each is asked for again after a pause that
 * grows, so that a hundred servers that are being made cost a few calls a second and not hundreds.
 */
export class Actions {
  readonly #api: Api
  readonly #watched = new Map<number, Watched>()
  #timer: NodeJS.Timeout | undefined
  #asking = false

  constructor(api: Api) {
    this.#api = api
  }

  /**
   * Waits until all of these have ended well.
   *
   * @throws ProviderError of code TIMEOUT where they do not end in time, {@link ActionFailed} for the first that fails, and the signal's reason.
   */
  async finished(
    actions: readonly Pick<Action, 'id' | 'command' | 'status' | 'error'>[],
    options: { readonly timeoutMs: number; readonly signal: AbortSignal; readonly urgency: Urgency },
  ): Promise<void> {
    const timeout = AbortSignal.timeout(options.timeoutMs)
    const signal = AbortSignal.any([options.signal, timeout])
    const giveUp = new AbortController()
    try {
      await Promise.all(
        actions.map(async (action) => {
          const ended =
            action.status === 'running'
              ? await this.#ended(action.id, options.urgency, AbortSignal.any([signal, giveUp.signal]))
              : action
          if (ended.status === 'error') throw new ActionFailed(ended)
        }),
      )
    } catch (thrown) {
      options.signal.throwIfAborted()
      if (!timeout.aborted) throw thrown
      const what = actions.map(({ id, command }) => `${command} ${id}`).join(', ')
      throw new ProviderError('TIMEOUT', `did not end within ${options.timeoutMs} ms: ${what}`, { cause: thrown })
    } finally {
      giveUp.abort()
    }
  }

  #ended(id: number, urgency: Urgency, signal: AbortSignal): Promise<Action> {
    return new Promise((resolve, reject) => {
      const watched = this.#watch(id, urgency)
      const leave = (): void => {
        signal.removeEventListener('abort', onAbort)
        watched.waiters.delete(waiter)
        if (watched.waiters.size === 0) this.#watched.delete(id)
      }
      const onAbort = (): void => {
        leave()
        reject(signal.reason as Error)
      }
      const waiter: Waiter = {
        resolve: (action) => {
          leave()
          resolve(action)
        },
        reject: (error) => {
          leave()
          reject(error)
        },
      }
      watched.waiters.add(waiter)
      if (signal.aborted) return onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      this.#schedule()
    })
  }

  #watch(id: number, urgency: Urgency): Watched {
    const known = this.#watched.get(id)
    if (known !== undefined) return known
    const watched = {
      id,
      urgency,
      waiters: new Set<Waiter>(),
      dueAtMs: performance.now() + firstPauseMs,
      pauseMs: firstPauseMs,
      misses: 0,
    }
    this.#watched.set(id, watched)
    return watched
  }

  #schedule(): void {
    clearTimeout(this.#timer)
    if (this.#asking || this.#watched.size === 0) return
    const dueAtMs = Math.min(...[...this.#watched.values()].map((watched) => watched.dueAtMs))
    this.#timer = setTimeout(() => void this.#ask(), Math.max(0, dueAtMs - performance.now()))
  }

  async #ask(): Promise<void> {
    this.#asking = true
    try {
      const byNow = performance.now() + gatherMs
      const due = [...this.#watched.values()].filter(({ dueAtMs }) => dueAtMs <= byNow)
      for (let at = 0; at < due.length; at += batchSize) await this.#askFor(due.slice(at, at + batchSize))
    } finally {
      this.#asking = false
      this.#schedule()
    }
  }

  async #askFor(batch: readonly Watched[]): Promise<void> {
    const urgency = batch.some((watched) => watched.urgency === 'urgent') ? 'urgent' : 'normal'
    try {
      const query = { id: batch.map(({ id }) => id) }
      const { actions } = await answer(this.#api.as(urgency).GET('/actions', { params: { query } }))
      const byId = new Map(actions.map((action) => [action.id, action]))
      for (const watched of batch) this.#take(watched, byId.get(watched.id))
    } catch (thrown) {
      const error = ProviderError.from(thrown)
      for (const watched of batch) {
        if (passing.has(error.code)) this.#later(watched, error.retryAfterMs)
        else for (const waiter of [...watched.waiters]) waiter.reject(error)
      }
    }
  }

  #take(watched: Watched, action: Action | undefined): void {
    if (action === undefined && ++watched.misses >= maxMisses) {
      const message = `action ${watched.id} is not known to the API`
      const error = new ProviderError('INTERNAL', message, { externalCode: 'not_found' })
      for (const waiter of [...watched.waiters]) waiter.reject(error)
    } else if (action === undefined || action.status === 'running') this.#later(watched)
    else for (const waiter of [...watched.waiters]) waiter.resolve(action)
  }

  #later(watched: Watched, atLeastMs = 0): void {
    watched.pauseMs = Math.min(maxPauseMs, watched.pauseMs * 1.5)
    watched.dueAtMs = performance.now() + Math.max(atLeastMs, watched.pauseMs * (0.8 + Math.random() * 0.4))
  }
}
