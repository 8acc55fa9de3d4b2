/** The first pause, and the longest. */
const baseMs = 1_000
const capMs = 5 * 60_000

/**
 * How long to wait before the next try: doubled with each failure in a row, capped at five minutes, with full jitter above half so that what failed together is
 * not tried together.
 *
 * @param attempt failures in a row, from 1.
 * @param atLeastMs what the other side asked for.
 */
export function retryDelayMs(attempt: number, atLeastMs: number, random: () => number = Math.random): number {
  const exponent = Math.min(Math.max(attempt, 1) - 1, 20)
  const ceiling = Math.min(capMs, baseMs * 2 ** exponent)
  return Math.max(atLeastMs, Math.round(ceiling / 2 + random() * (ceiling / 2)))
}
