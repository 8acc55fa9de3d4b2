/** Who has a machine left alone, why, and since when. */
export interface Pause {
  readonly by: string
  /** Begun by the system, which may end it. What a person began only a person ends. */
  readonly bySystem: boolean
  readonly reason: string
  readonly at: Date
}

/** The two reasons for which a machine is left alone. They combine. */
export interface Pauses {
  /** Somebody is at work on it, or something is wrong with it. */
  readonly maintenance: Pause | null
  /** A person stopped it on purpose, wherever it was in its life. */
  readonly hold: Pause | null
  /** Since when either holds without a gap. */
  readonly pausedAt: Date | null
}

/** What a change of pauses means. */
export interface PauseChange {
  readonly pauses: Pauses
  /** Set where the machine is left alone no more: for how long it was. Every deadline is put off by it. */
  readonly resumedAfterMs: number | undefined
  /** It is left alone from now on, and was not before. */
  readonly begins: boolean
}

export const noPauses: Pauses = { maintenance: null, hold: null, pausedAt: null }

/** Begins maintenance. A person takes over what the system began; the system leaves as it is what is on already. */
export function beginMaintenance(before: Pauses, pause: Pause): PauseChange {
  const { maintenance } = before
  const taken = maintenance === null || (maintenance.bySystem && !pause.bySystem)
  if (!taken) return settle(before, before, pause.at)
  return settle(before, { ...before, maintenance: { ...pause, at: maintenance?.at ?? pause.at } }, pause.at)
}

/**
 * Ends maintenance.
 *
 * @param ender who does. The system ends only what it began itself, and under the same name.
 */
export function endMaintenance(before: Pauses, ender: Pick<Pause, 'by' | 'bySystem'>, now: Date): PauseChange {
  const { maintenance } = before
  const may = maintenance !== null && (!ender.bySystem || (maintenance.bySystem && maintenance.by === ender.by))
  return settle(before, may ? { ...before, maintenance: null } : before, now)
}

/** Holds a machine. One that is held already is left as it is. */
export function beginHold(before: Pauses, pause: Pause): PauseChange {
  return settle(before, before.hold === null ? { ...before, hold: pause } : before, pause.at)
}

/** Ends a hold. */
export function endHold(before: Pauses, now: Date): PauseChange {
  return settle(before, { ...before, hold: null }, now)
}

/** A deadline after a pause: as far away as it was when the pause began. */
export function putOff(deadline: Date, pausedMs: number): Date {
  return new Date(deadline.getTime() + pausedMs)
}

function settle(before: Pauses, after: Pauses, now: Date): PauseChange {
  const paused = after.maintenance !== null || after.hold !== null
  const pausedAt = paused ? (before.pausedAt ?? now) : null
  const resumed = before.pausedAt !== null && !paused
  return {
    pauses: { ...after, pausedAt },
    // A clock that was set back makes no deadline come sooner.
    resumedAfterMs: resumed ? Math.max(0, now.getTime() - (before.pausedAt?.getTime() ?? 0)) : undefined,
    begins: paused && before.pausedAt === null,
  }
}
