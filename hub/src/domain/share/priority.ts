// Priorities: what goes first where not all can go at once, and who may say so.

export const priorities = ['LOW', 'NORMAL', 'HIGH'] as const
export type Priority = (typeof priorities)[number]

/** What has waited for so long goes as if it were of the next higher priority: nothing waits for ever. */
export const ageingMs = 300_000

const lowest = -1

/** As it is stored: -1, 0 or 1. */
export function priorityLevel(priority: Priority): number {
  return priorities.indexOf(priority) + lowest
}

/** @throws RangeError for a level that there is not. */
export function priorityOf(level: number): Priority {
  const priority = priorities[level - lowest]
  if (priority === undefined) throw new RangeError(`there is no priority level ${level}`)
  return priority
}

/** What goes by after having waited: at most the highest. */
export function agedLevel(level: number, waitedMs: number): number {
  return Math.min(priorities.length - 1 + lowest, level + Math.floor(waitedMs / ageingMs))
}

/** What a workspace's orders may be. */
export interface PriorityRange {
  /** Of orders that say nothing: whoever may order may have it, or less. */
  readonly priority: number
  /** The highest, for those who may put their orders first. */
  readonly maxPriority: number
}

/** Whether somebody may order with a priority. @param mayPrioritize whether its roles let it put orders first. */
export function allowsPriority(range: PriorityRange, level: number, mayPrioritize: boolean): boolean {
  return level <= (mayPrioritize ? range.maxPriority : range.priority)
}
