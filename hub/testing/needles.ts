import { disguises } from './canary.js'

// Secrets that are looked for in whatever a hub wrote or answered, all of them in one pass.

/** Shorter ones occur by chance, or are words that tests use for names as well. */
const minimumChars = 12
/** Of a longer text its middle stands for all of it. */
const longestChars = 64
/** Fewer different characters make no secret: padding is that. */
const minimumDistinct = 6

interface Form {
  readonly bytes: Buffer
  readonly what: string
}

/** What was found: which secret, and where. Never the secret itself. */
export interface Finding {
  readonly what: string
  readonly where: string
  /** How far into it, in bytes. */
  readonly at: number
}

/** A set of secrets in every disguise, to be searched for at once. Each form is kept under its first four bytes; a text is gone through once, whatever their number. */
export class Needles {
  readonly #known = new Set<string>()
  readonly #forms = new Map<number, Form[]>()
  /** Whether any form begins with four bytes of that hash. */
  readonly #maybe = new Uint8Array(65_536)

  /** How many secrets. */
  get size(): number {
    return this.#known.size
  }

  /** Adds a secret, and says what it is. Texts that are too short or too plain to be told from chance are left out. */
  add(what: string, text: string): void {
    const middle = Math.max(0, Math.floor((text.length - longestChars) / 2))
    const cut = text.length > longestChars ? text.slice(middle, middle + longestChars) : text
    // Half a surrogate pair is written as another character.
    const needle = cut.replace(/^[\uDC00-\uDFFF]|[\uD800-\uDBFF]$/g, '')
    if (needle.length < minimumChars || new Set(needle).size < minimumDistinct || this.#known.has(needle)) return
    this.#known.add(needle)
    for (const [index, disguise] of disguises(needle).entries())
      this.#addForm({ bytes: Buffer.from(disguise), what: `${what} (form ${index})` })
  }

  /** Adds every text in a value, however deep. */
  addAll(what: string, value: unknown): void {
    if (typeof value === 'string') this.add(what, value)
    else if (value !== null && typeof value === 'object')
      for (const [key, inner] of Object.entries(value)) this.addAll(`${what}.${key}`, inner)
  }

  /** Each needle that occurs, once for each form of it. */
  search(where: string, hay: string | Uint8Array): readonly Finding[] {
    const bytes = typeof hay === 'string' ? Buffer.from(hay) : Buffer.from(hay.buffer, hay.byteOffset, hay.byteLength)
    const found = new Map<Form, Finding>()
    let word = 0
    for (let end = 0; end < bytes.length; end++) {
      word = (word << 8) | (bytes[end] ?? 0)
      if (this.#maybe[hashOf(word)] === 0 || end < 3) continue
      const start = end - 3
      for (const form of this.#forms.get(word) ?? [])
        if (
          !found.has(form) &&
          start + form.bytes.length <= bytes.length &&
          form.bytes.compare(bytes, start, start + form.bytes.length) === 0
        )
          found.set(form, { what: form.what, where, at: start })
    }
    return [...found.values()]
  }

  #addForm(form: Form): void {
    const word = form.bytes.readInt32BE(0)
    this.#maybe[hashOf(word)] = 1
    const others = this.#forms.get(word)
    if (others === undefined) this.#forms.set(word, [form])
    else others.push(form)
  }
}

/** Sixteen bits of a word (Fibonacci hashing). */
const hashOf = (word: number): number => Math.imul(word, 0x9e3779b1) >>> 16
