/** A create that was sent, and whose outcome is not known. */
export interface Doubt {
  /** Since when, on the monotonic clock. */
  readonly sinceMs: number
  /** How long it may be under way at most. */
  readonly timeoutMs: number
}

/** A create that somebody else left in doubt. */
export interface InheritedDoubt {
  /** Since when this process knows of it, on the monotonic clock: it was sent before. */
  readonly sinceMs: number
}

/** What is in doubt of an item. */
export interface Doubts {
  /** Effects of this process, by step. */
  readonly own: ReadonlyMap<string, Doubt>
  readonly inherited: InheritedDoubt | undefined
}

interface Memory extends Doubts {
  readonly fence: bigint
}

const maxMemories = 10_000

/** What this process remembers of items between two claims. Losing it costs waiting, and never a second machine. */
export class DoubtMemory {
  readonly #memories = new Map<string, Memory>()

  remember(itemId: string, fence: bigint, { own, inherited }: Doubts): void {
    this.#memories.delete(itemId)
    this.#memories.set(itemId, { fence, own: new Map(own), inherited })
    const [oldest] = this.#memories.keys()
    if (this.#memories.size > maxMemories && oldest !== undefined) this.#memories.delete(oldest)
  }

  /** What was in doubt when this process let go of the item; undefined where somebody else may have held it since. */
  recall(itemId: string, fence: bigint): Doubts | undefined {
    const memory = this.#memories.get(itemId)
    return memory !== undefined && memory.fence + 1n === fence ? memory : undefined
  }

  forget(itemId: string): void {
    this.#memories.delete(itemId)
  }
}
