/** How far behind the newest packet one may come and still be taken. IPMI 2.0 (section 6.12.13) asks for at least 16. */
const windowSize = 32

/** Tells packets that are new from those that were seen before, or are too old to tell. */
export class SequenceWindow {
  #highest = 0
  /** Bit n: highest − n was seen. */
  #seen = 0

  /** Takes a verified packet's number, once. @returns false for a replay. */
  accept(sequence: number): boolean {
    // Zero is for packets outside a session alone.
    if (!Number.isInteger(sequence) || sequence <= 0 || sequence > 0xffff_ffff) return false
    const ahead = sequence - this.#highest
    if (ahead > 0) {
      this.#seen = ahead >= windowSize ? 1 : ((this.#seen << ahead) | 1) >>> 0
      this.#highest = sequence
      return true
    }
    const behind = -ahead
    if (behind >= windowSize) return false
    const bit = (1 << behind) >>> 0
    if ((this.#seen & bit) !== 0) return false
    this.#seen = (this.#seen | bit) >>> 0
    return true
  }
}
