import { ProviderError, type Context, type RateBudgetState, type WorkContext } from '@slipway/sdk'
import { Actions } from './api/actions.js'
import { answer, answerIfAny, Api } from './api/client.js'
import { isApiError } from './api/errors.js'
import { pause } from './api/pause.js'
import { RateBudget, type Urgency } from './api/rate-budget.js'
import type { Action, Server } from './api/types.js'
import { Catalogue } from './catalogue.js'
import type { Config, Credentials } from './config.js'
import { ownershipKeyOf } from './labels.js'

export type Ctx = Context<Config, Credentials>
export type Work = WorkContext<Config, Credentials>

/** What is kept of an action to wait for it later, also in another process. */
export type PendingAction = { readonly id: number; readonly command: string }

/** How long a thing may be busy between two looks. */
const busyPauseMs = { first: 500, most: 5_000 }

/** The project under one configuration and one token. */
export class Cloud {
  readonly api: Api
  readonly actions: Actions
  readonly catalogue: Catalogue
  readonly #config: Config

  constructor(config: Config, { apiToken }: Credentials, log: Ctx['log'], budget: RateBudget) {
    const { endpoint, callTimeoutMs } = config
    this.#config = config
    this.api = new Api({ endpoint, token: apiToken, timeoutMs: callTimeoutMs, log, budget })
    this.actions = new Actions(this.api)
    this.catalogue = new Catalogue(this.api)
  }

  /** A server; undefined: there is none of this id. */
  async server(id: number, urgency: Urgency, signal: AbortSignal): Promise<Server | undefined> {
    const params = { path: { id } }
    return (await answerIfAny(this.api.as(urgency).GET('/servers/{id}', { params, signal })))?.server
  }

  /** The same. @throws ProviderError that is not retried where it is gone: trying again finds the same stored id, and nothing behind it. */
  async existing(id: number, urgency: Urgency, signal: AbortSignal): Promise<Server> {
    const server = await this.server(id, urgency, signal)
    if (server !== undefined && server.status !== 'deleting') return server
    throw new ProviderError('INTERNAL', `server ${id} has vanished`, { externalCode: 'not_found', retryable: false })
  }

  /** The server of this name, if it carries this ownership key; `foreign` where it carries another or none. */
  async serverNamed(
    name: string,
    ownershipKey: string,
    urgency: Urgency,
    signal: AbortSignal,
  ): Promise<Server | 'foreign' | undefined> {
    const params = { query: { name } }
    const [server] = (await answer(this.api.as(urgency).GET('/servers', { params, signal }))).servers
    if (server === undefined) return undefined
    return ownershipKeyOf(server.labels) === ownershipKey ? server : 'foreign'
  }

  /** Waits for actions, by id where that is all that is known of them. @throws as {@link Actions.finished} does. */
  async finished(
    actions: readonly (PendingAction | Action)[],
    urgency: Urgency,
    signal: AbortSignal,
    timeoutMs = this.#config.actionTimeoutMs,
  ): Promise<void> {
    const known = actions.map((action) =>
      'status' in action ? action : { ...action, status: 'running' as const, error: null },
    )
    await this.actions.finished(known, { timeoutMs, signal, urgency })
  }

  /**
   * Makes a change as soon as nothing else works on the thing.
   *
   * @param what the change, for people.
   * @throws ProviderError of code CONFLICT where it is not free in time; else what the call throws.
   */
  async whenFree<Result>(what: string, signal: AbortSignal, call: () => Promise<Result>): Promise<Result> {
    const deadlineMs = performance.now() + this.#config.actionTimeoutMs
    for (let pauseMs = busyPauseMs.first; ; pauseMs = Math.min(busyPauseMs.most, pauseMs * 1.5)) {
      try {
        return await call()
      } catch (thrown) {
        if (!isApiError(thrown, 'locked', 'conflict')) throw thrown
        if (performance.now() + pauseMs > deadlineMs)
          throw new ProviderError('CONFLICT', `${what}: still locked: ${thrown.message}`, {
            externalCode: thrown.apiCode,
            cause: thrown,
          })
      }
      await pause(pauseMs * (0.8 + Math.random() * 0.4), signal)
    }
  }
}

/** The clouds of a process: one for each configuration and credential, and one rate budget for all, because all are of one project. */
export class Clouds {
  readonly #budget = new RateBudget()
  readonly #open = new WeakMap<Config, Cloud>()

  /** As the answers of the API tell of it. */
  get rateBudget(): RateBudgetState {
    return { name: 'api', ...this.#budget.state }
  }

  for({ config, credentials, log }: Ctx): Cloud {
    const known = this.#open.get(config)
    if (known !== undefined) return known
    const cloud = new Cloud(config, credentials, log, this.#budget)
    this.#open.set(config, cloud)
    return cloud
  }
}
