/** What a machine in a waiting state waits for. */
export interface MachineWait {
  /** For people. */
  readonly message: string
  readonly since: Date
  /** After it the wait has failed. */
  readonly until: Date
}

/** What a holder says of a wait. */
export interface WaitFacts {
  readonly operation: string
  readonly operationGeneration: number
  readonly timeoutMs: number
  readonly message: string
}

const leastWaitMs = 1_000
const longestWaitMs = 30 * 24 * 3_600_000

/** The wait that follows from what a holder says now. One that is on already keeps its deadline, however often it is said. */
export function nextWait(before: MachineWait | null, said: WaitFacts, now: Date): MachineWait {
  if (before !== null) return { ...before, message: said.message }
  const timeoutMs = Math.min(longestWaitMs, Math.max(leastWaitMs, said.timeoutMs))
  return { message: said.message, since: now, until: new Date(now.getTime() + timeoutMs) }
}

/** Whether the time of a wait is over, and something may be concluded from it. */
export interface WaitClock {
  readonly now: Date
  /** Null: no instance of its provider is connected, and silence proves nothing. */
  readonly connectedSince: Date | null
  /** The hub has only just come back: nothing is concluded before. */
  readonly graceUntil: Date
  /** At least this long after a provider has come back before a deadline fires. */
  readonly reconnectGraceMs: number
}

/** Whether nothing was heard in time of a machine that is not paused. */
export function isWaitOver(until: Date, clock: WaitClock): boolean {
  if (clock.connectedSince === null) return false
  const earliest = Math.max(clock.graceUntil.getTime(), clock.connectedSince.getTime() + clock.reconnectGraceMs)
  return clock.now.getTime() >= Math.max(until.getTime(), earliest)
}
