import { agedLevel } from './priority.js'

/**
 * Whose turn it is, where several workspaces compete for one provider: start-time fair queueing. Each workspace has a pass, the virtual time up to which it has been served,
 * and each item that is taken moves it on by 1/weight; the lowest goes next. Who comes, or comes back, begins at the provider's clock: what it did not use before is not owed
 * to it, and what others took while they were alone is not held against them. So nobody who waits gets less than its part, and nothing is left undone that could be done.
 *
 * The statement that claims work does the same in the database; a test holds one against the other.
 */
export interface Item {
  readonly id: string
  readonly workspace: string
  /** -1, 0 or 1. */
  readonly priority: number
  /** Since when it waits. */
  readonly dueAtMs: number
}

export interface ShareState {
  /** Up to where each workspace has been served. */
  readonly passes: ReadonlyMap<string, number>
  /** Up to where the provider has come. */
  readonly clock: number
}

export const untouchedShares: ShareState = { passes: new Map(), clock: 0 }

export interface ShareTurn {
  /** In the order in which they are given out. */
  readonly taken: readonly Item[]
  readonly state: ShareState
}

interface Tagged {
  readonly item: Item
  readonly level: number
  readonly tag: number
}

/**
 * Gives out up to so many items: those of the highest priority first, as they have aged, and among equals by fair share.
 *
 * @param weightOf of a workspace; more than 0.
 */
export function takeTurn(
  state: ShareState,
  waiting: readonly Item[],
  credit: number,
  weightOf: (workspace: string) => number,
  nowMs: number,
): ShareTurn {
  const due = waiting.filter(({ dueAtMs }) => dueAtMs <= nowMs)
  const workspaces = [...new Set(due.map(({ workspace }) => workspace))]
  const tagged = workspaces.flatMap((workspace) => {
    const start = Math.max(state.passes.get(workspace) ?? 0, state.clock)
    return due
      .filter((item) => item.workspace === workspace)
      .map((item) => ({ item, level: agedLevel(item.priority, nowMs - item.dueAtMs) }))
      .sort((one, other) => other.level - one.level || compareAge(one.item, other.item))
      .map((aged, index): Tagged => ({ ...aged, tag: start + index / weightOf(workspace) }))
  })
  const taken = tagged
    .sort((one, other) => other.level - one.level || one.tag - other.tag || compareAge(one.item, other.item))
    .slice(0, credit)
  // Whoever is alone takes nothing away from anybody.
  const next = workspaces.length > 1 ? charged(state, taken, weightOf) : state
  return { taken: taken.map(({ item }) => item), state: next }
}

function charged(state: ShareState, taken: readonly Tagged[], weightOf: (workspace: string) => number): ShareState {
  const passes = new Map(state.passes)
  let { clock } = state
  for (const { item, tag } of taken) {
    const end = tag + 1 / weightOf(item.workspace)
    passes.set(item.workspace, Math.max(passes.get(item.workspace) ?? 0, end))
    clock = Math.max(clock, tag)
  }
  return { passes, clock }
}

function compareAge(one: Item, other: Item): number {
  return one.dueAtMs - other.dueAtMs || (one.id < other.id ? -1 : Number(one.id !== other.id))
}
