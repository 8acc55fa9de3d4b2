import type { Labels } from './facts.js'
import { HubError } from './error/errors.js'

/** One clause of a label selector. All must hold. */
export type LabelRequirement =
  | { readonly kind: 'exists'; readonly key: string }
  | { readonly kind: 'absent'; readonly key: string }
  | { readonly kind: 'in'; readonly key: string; readonly values: readonly string[] }
  /** True as well where there is no such label. */
  | { readonly kind: 'not-in'; readonly key: string; readonly values: readonly string[] }

export type LabelSelector = readonly LabelRequirement[]

const maxRequirements = 64
const maxValues = 100

type Token =
  | { readonly kind: 'word'; readonly text: string; readonly at: number }
  | { readonly kind: ',' | '(' | ')' | '=' | '!=' | '!'; readonly text: string; readonly at: number }
  | { readonly kind: 'end'; readonly text: ''; readonly at: number }

/**
 * Reads a label selector: clauses joined by commas, all of which must hold. A clause is `key`, `!key`, `key=value` (or `==`), `key!=value`,
 * `key in (a,b)` or `key notin (a,b)`. Nothing selects everything.
 *
 * @throws HubError INVALID_LABEL_SELECTOR, which says where.
 */
export function parseLabelSelector(text: string): LabelSelector {
  const reader = new TokenReader(text)
  const requirements: LabelRequirement[] = []
  if (reader.peek().kind === 'end') return requirements
  for (;;) {
    requirements.push(readRequirement(reader))
    if (requirements.length > maxRequirements) throw reader.wrong(reader.peek(), `at most ${maxRequirements} clauses`)
    const token = reader.next()
    if (token.kind === 'end') return requirements
    if (token.kind !== ',') throw reader.wrong(token, 'a comma or the end')
  }
}

/** Whether labels are selected. */
export function matchesLabels(selector: LabelSelector, labels: Labels): boolean {
  return selector.every((requirement) => {
    const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined
    switch (requirement.kind) {
      case 'exists':
        return value !== undefined
      case 'absent':
        return value === undefined
      case 'in':
        return value !== undefined && requirement.values.includes(value)
      case 'not-in':
        return value === undefined || !requirement.values.includes(value)
    }
  })
}

function readRequirement(reader: TokenReader): LabelRequirement {
  const first = reader.next()
  if (first.kind === '!') return { kind: 'absent', key: reader.word('a label key').text }
  if (first.kind !== 'word') throw reader.wrong(first, 'a label key')
  const key = first.text
  const token = reader.peek()
  if (token.kind === '=' || token.kind === '!=') {
    reader.next()
    // `key=` asks for the empty value.
    const value = reader.peek().kind === 'word' ? reader.next().text : ''
    return { kind: token.kind === '=' ? 'in' : 'not-in', key, values: [value] }
  }
  if (token.kind === 'word' && (token.text === 'in' || token.text === 'notin')) {
    reader.next()
    return { kind: token.text === 'in' ? 'in' : 'not-in', key, values: readValues(reader) }
  }
  return { kind: 'exists', key }
}

function readValues(reader: TokenReader): readonly string[] {
  const open = reader.next()
  if (open.kind !== '(') throw reader.wrong(open, 'an opening parenthesis')
  const values: string[] = []
  for (;;) {
    values.push(reader.word('a value').text)
    if (values.length > maxValues) throw reader.wrong(reader.peek(), `at most ${maxValues} values`)
    const token = reader.next()
    if (token.kind === ')') return values
    if (token.kind !== ',') throw reader.wrong(token, 'a comma or a closing parenthesis')
  }
}

class TokenReader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  peek(): Token {
    const before = this.#at
    const token = this.next()
    this.#at = before
    return token
  }

  next(): Token {
    const rest = /^\s*/.exec(this.#text.slice(this.#at))?.[0].length ?? 0
    const at = this.#at + rest
    const match = /^(?:(?<word>[A-Za-z0-9][A-Za-z0-9._/-]*)|(?<sign>!=|==|[,()=!]))/.exec(this.#text.slice(at))
    if (match === null) {
      if (at >= this.#text.length) return { kind: 'end', text: '', at }
      throw this.wrong({ kind: 'word', text: this.#text[at] ?? '', at }, 'a label key, a value or one of , ( ) = != !')
    }
    this.#at = at + match[0].length
    const sign = match.groups?.['sign']
    if (sign === undefined) return { kind: 'word', text: match[0], at }
    return { kind: sign === '==' ? '=' : (sign as ',' | '(' | ')' | '=' | '!=' | '!'), text: sign, at }
  }

  word(what: string): Token {
    const token = this.next()
    if (token.kind !== 'word') throw this.wrong(token, what)
    return token
  }

  wrong(token: Token, wanted: string): HubError {
    const found = token.kind === 'end' ? 'the end' : `«${token.text}»`
    return new HubError(
      'INVALID_LABEL_SELECTOR',
      `expected ${wanted} at position ${token.at + 1}, but found ${found}`,
      {
        metadata: { position: String(token.at + 1) },
      },
    )
  }
}
