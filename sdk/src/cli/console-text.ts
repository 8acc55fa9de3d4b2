const esc = 0x1b
const bell = 0x07
const kept = new Set([0x09, 0x0a, 0x0d])
/** ECMA-48: what ends a control sequence, and which introducers begin a string that runs to its terminator. */
const stringIntroducers = new Set([0x50, 0x58, 0x5d, 0x5e, 0x5f])

type Where = 'text' | 'escape' | 'intermediate' | 'sequence' | 'string' | 'string-escape'

/**
 * Leaves terminal control out of a console's bytes, for files and pipes: escape sequences (ECMA-48) and control characters but tab, line feed and
 * carriage return. Everything else passes as it is, in any encoding. Sequences may be cut anywhere between two pieces.
 */
export class ControlStripper {
  #where: Where = 'text'

  strip(bytes: Uint8Array): Uint8Array {
    const left = new Uint8Array(bytes.length)
    let length = 0
    for (const byte of bytes) {
      if (this.#where === 'text' && byte !== esc) {
        if (byte >= 0x20 ? byte !== 0x7f : kept.has(byte)) left[length++] = byte
        continue
      }
      this.#where = next(this.#where, byte)
    }
    return left.subarray(0, length)
  }
}

function next(where: Where, byte: number): Where {
  if (where === 'string') return byte === bell ? 'text' : byte === esc ? 'string-escape' : 'string'
  // ESC \ ends a string; any other sequence breaks it off.
  if (where === 'string-escape' && byte === 0x5c) return 'text'
  if (byte === esc) return 'escape'
  if (where === 'escape' || where === 'string-escape') {
    if (byte === 0x5b) return 'sequence'
    if (stringIntroducers.has(byte)) return 'string'
    return byte >= 0x20 && byte <= 0x2f ? 'intermediate' : 'text'
  }
  if (where === 'intermediate') return byte >= 0x20 && byte <= 0x2f ? 'intermediate' : 'text'
  if (where === 'sequence') return byte >= 0x20 && byte <= 0x3f ? 'sequence' : 'text'
  return 'escape'
}
