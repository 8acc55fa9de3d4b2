/** A create that was sent, and whose outcome is not known. */
export interface Doubt {
  /** Since when, on the monotonic clock. */
  readonly sinceMs: number
  /** How long it may be under way at most. */
  readonly timeoutMs: number
}

interface Memory {
  readonly fence: bigint
  readonly doubts: ReadonlyMap<string, Doubt>
}

const maxMemories = 10_000

/** What this process remembers of items between two claims. Losing it costs waiting, and never a second machine. */
export class DoubtMemory {
  readonly #memories = new Map<string, Memory>()

  remember(itemId: string, fence: bigint, doubts: ReadonlyMap<string, Doubt>): void {
    this.#memories.delete(itemId)
    this.#memories.set(itemId, { fence, doubts: new Map(doubts) })
    const [oldest] = this.#memories.keys()
    if (this.#memories.size > maxMemories && oldest !== undefined) this.#memories.delete(oldest)
  }

  /** What was in doubt when this process let go of the item; undefined where somebody else may have held it since. */
  recall(itemId: string, fence: bigint): ReadonlyMap<string, Doubt> | undefined {
    const memory = this.#memories.get(itemId)
    return memory !== undefined && memory.fence + 1n === fence ? memory.doubts : undefined
  }

  forget(itemId: string): void {
    this.#memories.delete(itemId)
  }
}
