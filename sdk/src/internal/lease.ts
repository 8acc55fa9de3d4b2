import { monotonicMs } from './timing.js'

/** The share of the lease after which its holder begins nothing new, to have stopped well before anybody else may begin. */
const actingShare = 2 / 3

/**
 * The holder's own view of its lease, on its own monotonic clock, counted from when each sign of life was sent and not from when it was answered. So it ends
 * before the hub's view does, also in a process that was stopped and goes on without knowing.
 */
export class Lease {
  #durationMs = 0
  #aliveAtMs = Number.NEGATIVE_INFINITY

  /** A sign of life was sent at this time, and reached the hub as far as can be told. */
  renew(sentAtMs: number, durationMs = this.#durationMs): void {
    this.#durationMs = durationMs
    this.#aliveAtMs = Math.max(this.#aliveAtMs, sentAtMs)
  }

  get durationMs(): number {
    return this.#durationMs
  }

  /** Whether something new may be begun. */
  mayAct(nowMs = monotonicMs()): boolean {
    return nowMs - this.#aliveAtMs < this.#durationMs * actingShare
  }

  /** Whether something may be begun on the word of the hub, given to what was sent at this time. */
  covers(sentAtMs: number, nowMs = monotonicMs()): boolean {
    return nowMs - sentAtMs < this.#durationMs * actingShare
  }

  /** How long something that was told to the hub at this time, and stored by it, may still be begun, in milliseconds; 0: no more. */
  leftMs(sentAtMs: number, nowMs = monotonicMs()): number {
    return Math.max(0, Math.min(sentAtMs, this.#aliveAtMs) + this.#durationMs * actingShare - nowMs)
  }

  /** Whether the hub may have given away all that is held. */
  hasExpired(nowMs = monotonicMs()): boolean {
    return nowMs - this.#aliveAtMs >= this.#durationMs
  }
}
