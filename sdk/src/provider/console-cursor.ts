import { randomUUID } from 'node:crypto'
import type { ConsoleChunk, ConsolePosition } from './console.js'

/** A piece of a console as the hub is told of it: each byte once and in order, and what is missing said. */
export interface ConsolePiece {
  readonly position: ConsolePosition
  readonly bytes: Uint8Array
  readonly gap: boolean
  /** 0: not known, or none. */
  readonly lostBytes: number
}

const logPattern = /^[A-Za-z0-9._-]{1,64}$/

/** Follows where a console's stream is, from what an author gives to what is told. */
export class ConsoleCursor {
  #at: ConsolePosition | undefined
  readonly #ownLog = `live-${randomUUID()}`

  constructor(after?: ConsolePosition) {
    this.#at = after
  }

  /**
   * Takes what comes next. Bare bytes are of a log that is this stream's own: nobody can go on from it later.
   *
   * @returns undefined where all of it was told before.
   * @throws TypeError for a position that cannot be.
   */
  take(given: ConsoleChunk | Uint8Array): ConsolePiece | undefined {
    const chunk = given instanceof Uint8Array ? this.#ownChunk(given) : given
    const { log, offset } = chunk.position
    if (!logPattern.test(log) || !Number.isSafeInteger(offset) || offset < 0)
      throw new TypeError(`"${log}", ${offset} is no position of a console; see ConsolePosition`)
    const at = this.#at
    const same = at?.log === log
    const known = same ? Math.max(0, at.offset - offset) : 0
    if (same && known > 0 && known >= chunk.bytes.length) return undefined
    const start = offset + known
    const lostBytes = same ? Math.max(0, start - at.offset) : 0
    const gap = at !== undefined && (same ? lostBytes > 0 : chunk.continues !== true)
    const bytes = chunk.bytes.subarray(known)
    if (bytes.length === 0 && !gap && same) return undefined
    this.#at = { log, offset: start + bytes.length }
    return { position: { log, offset: start }, bytes, gap, lostBytes }
  }

  #ownChunk(bytes: Uint8Array): ConsoleChunk {
    const offset = this.#at?.log === this.#ownLog ? this.#at.offset : 0
    return { position: { log: this.#ownLog, offset }, bytes }
  }
}

/** The first bytes of a piece, and what is left of it. */
export function splitPiece(piece: ConsolePiece, bytes: number): readonly [ConsolePiece, ConsolePiece | undefined] {
  if (piece.bytes.length <= bytes) return [piece, undefined]
  const { log, offset } = piece.position
  return [
    { ...piece, bytes: piece.bytes.subarray(0, bytes) },
    { position: { log, offset: offset + bytes }, bytes: piece.bytes.subarray(bytes), gap: false, lostBytes: 0 },
  ]
}
