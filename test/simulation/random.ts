/** A seeded source of chance (sfc32, by Chris Doty-Humphrey, public domain). The same seed gives the same numbers for ever. */
export class Random {
  readonly #state: [number, number, number, number]

  constructor(seed: number) {
    this.#state = [0x9e3779b9, 0x243f6a88, 0xb7e15162, seed ^ 0xdeadbeef]
    for (let round = 0; round < 15; round++) this.next()
  }

  /** From 0 up to, and without, 1. */
  next(): number {
    const [a, b, c, d] = this.#state
    const sum = (a + b + d) | 0
    this.#state[0] = b ^ (b >>> 9)
    this.#state[1] = (c + (c << 3)) | 0
    this.#state[2] = ((c << 21) | (c >>> 11)) + sum
    this.#state[3] = (d + 1) | 0
    return (sum >>> 0) / 4_294_967_296
  }

  /** A whole number from 0 up to, and without, `below`. */
  int(below: number): number {
    return Math.floor(this.next() * below)
  }

  between(low: number, high: number): number {
    return low + this.next() * (high - low)
  }

  chance(share: number): boolean {
    return this.next() < share
  }

  pick<T>(from: readonly T[]): T {
    const found = from[this.int(from.length)]
    if (found === undefined) throw new Error('nothing to pick from')
    return found
  }

  fill(bytes: Uint8Array): void {
    for (let index = 0; index < bytes.length; index++) bytes[index] = this.int(256)
  }
}
