// Texts that a request may hold and that no database can keep: PostgreSQL has no NUL in text or jsonb, and half a surrogate pair is no character. And documents that are
// nested deeper than anybody writes them: clients read messages of a hundred levels at most, of which each of a document's takes three, and what is taken from one caller is
// answered to others within other messages.

const maxDepth = 24

/** A field with such a value. */
export interface UnstorableField {
  readonly field: string
  readonly description: string
}

const nul = 'must not hold the character NUL (U+0000)'
const surrogate = 'must not hold half a surrogate pair, which is no character'
const tooDeep = `must not be nested deeper than ${maxDepth} levels`

/** The first field of a message whose value cannot be kept; undefined where there is none. */
export function findUnstorable(message: object): UnstorableField | undefined {
  return inValue(message, [])
}

function inValue(value: unknown, path: readonly string[]): UnstorableField | undefined {
  if (typeof value === 'string') return inText(value, path)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return undefined
  if (path.length > maxDepth) return { field: fieldOf(path.slice(0, 4)), description: tooDeep }
  const isMessage = '$typeName' in value
  for (const [key, inner] of Object.entries(value)) {
    if (isMessage && key.startsWith('$')) continue
    const next = [...path, nameOf(key, value, isMessage)]
    // Keys of maps and of documents are texts of the caller's.
    const found = (isMessage ? undefined : inText(key, next)) ?? inValue(inner, next)
    if (found !== undefined) return found
  }
  return undefined
}

function inText(text: string, path: readonly string[]): UnstorableField | undefined {
  if (text.includes('\0')) return { field: fieldOf(path), description: nul }
  return /\p{Surrogate}/u.test(text) ? { field: fieldOf(path), description: surrogate } : undefined
}

/** Fields are named as in the contract; what callers have named is left as it is. */
function nameOf(key: string, value: object, isMessage: boolean): string {
  if (Array.isArray(value)) return `[${key}]`
  return isMessage ? `.${key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}` : `["${key.slice(0, 64)}"]`
}

/** A key with a NUL in it is named without. */
const fieldOf = (path: readonly string[]): string =>
  path
    .join('')
    .replace(/^\./, '')
    .replaceAll('\0', '')
    .replaceAll(/\p{Surrogate}/gu, '')
