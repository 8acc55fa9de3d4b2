/** Time, as the supervisor is given it. */
export interface Clock {
  /** Milliseconds that only go forward. */
  monotonicMs(): number
  /** Milliseconds since the epoch, for people. */
  epochMs(): number
  /** Runs something later. @returns what prevents it. */
  after(ms: number, run: () => void): () => void
  /** Between 0 and 1. */
  random(): number
}

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  epochMs: () => Date.now(),
  after: (ms, run) => {
    const timer = setTimeout(run, ms)
    return () => clearTimeout(timer)
  },
  random: () => Math.random(),
}
