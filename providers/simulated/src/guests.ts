import type { Logger } from 'pino'
import type { PendingBoot, World, WorldState } from './world.js'

export interface GuestsOptions {
  readonly log: Logger
  /** How often it looks who has booted. Default 100. */
  readonly tickMs?: number
  /** How long a boot that another process ordered is left to that process. Default 3 000. */
  readonly takeoverMs?: number
}

const firstRetryMs = 250
const maxRetryMs = 15_000
const requestTimeoutMs = 10_000
const maxAtOnce = 32

interface Guest {
  tries: number
  notBeforeMs: number
  isCalling: boolean
}

/**
 * The booted machines of a world, as far as they do something by themselves: each phones home once, as a machine would, and
 * tries until it succeeds or is deleted. What is pending is in the ledger, so that a restart of the process forgets none.
 */
export class Guests<State extends WorldState> {
  readonly #world: World<State>
  readonly #log: Logger
  readonly #tickMs: number
  readonly #takeoverMs: number
  readonly #guests = new Map<string, Guest>()
  readonly #stopping = new AbortController()
  #timer: NodeJS.Timeout | undefined
  #calls = 0

  constructor(world: World<State>, { log, tickMs = 100, takeoverMs = 3_000 }: GuestsOptions) {
    this.#world = world
    this.#log = log
    this.#tickMs = tickMs
    this.#takeoverMs = takeoverMs
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#tick(), this.#tickMs).unref()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#stopping.abort(new Error('stopped'))
  }

  #tick(): void {
    try {
      const { rules, ledger } = this.#world
      const nowMs = this.#world.now()
      const state = this.#world.settled()
      for (const boot of rules.pendingBoots(state, nowMs)) {
        const graceMs = boot.by === ledger.writer ? 0 : this.#takeoverMs
        if (boot.dueAtMs + graceMs <= nowMs) this.#phone(boot, nowMs)
      }
      for (const [bootId, guest] of this.#guests)
        if (!guest.isCalling && !rules.mayBoot(state, bootId, nowMs)) this.#forget(bootId)
    } catch (error) {
      this.#log.error({ err: error }, 'the simulated world cannot be read')
    }
  }

  #phone(boot: PendingBoot, nowMs: number): void {
    const { bootId } = boot.plan
    const guest = this.#guests.get(bootId) ?? { tries: 0, notBeforeMs: 0, isCalling: false }
    this.#guests.set(bootId, guest)
    if (guest.isCalling || guest.notBeforeMs > nowMs || this.#calls >= maxAtOnce) return
    guest.isCalling = true
    guest.tries++
    this.#calls++
    void this.#call(boot, guest)
      .catch((error: unknown) => {
        const delayMs = Math.min(maxRetryMs, firstRetryMs * 2 ** Math.min(guest.tries - 1, 10))
        guest.notBeforeMs = this.#world.now() + delayMs
        if (this.#stopping.signal.aborted) return
        this.#log.warn(
          { machine: boot.id, tries: guest.tries, retryMs: delayMs, why: sayWhy(error) },
          'could not phone home',
        )
      })
      .finally(() => {
        guest.isCalling = false
        this.#calls--
      })
  }

  /** @throws where the hub can't be reached or does not take it. */
  async #call(boot: PendingBoot, guest: Guest): Promise<void> {
    const { bootId, hostname, phoneHomeUrl } = boot.plan
    const token = this.#world.readSecret(bootId)
    if (token === undefined) throw new Error('its token is not there any more')
    const response = await fetch(phoneHomeUrl, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ hostname, addresses: boot.addresses }),
      // The token is for this address alone.
      redirect: 'error',
      signal: AbortSignal.any([this.#stopping.signal, AbortSignal.timeout(requestTimeoutMs)]),
    })
    await response.body?.cancel()
    if (!response.ok) throw new Error(`the hub answered ${response.status}`)
    if (this.#stopping.signal.aborted) return
    const { rules, ledger } = this.#world
    ledger.commit((state, nowMs) =>
      rules.mayBoot(state, bootId, nowMs) ? rules.phonedHome(boot, guest.tries) : undefined,
    )
    this.#forget(bootId)
  }

  #forget(bootId: string): void {
    this.#guests.delete(bootId)
    this.#world.dropSecret(bootId)
  }
}

function sayWhy(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message
}
