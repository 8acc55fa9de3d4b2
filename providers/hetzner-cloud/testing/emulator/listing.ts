import { invalid } from './refusal.js'

interface Listed {
  readonly id: number
  readonly name?: string | null
  readonly created?: string
  readonly labels?: Readonly<Record<string, string>>
}

const usualPage = 25
const largestPage = 50

/**
 * One page of a listing as the query asks for it, under `key`.
 *
 * @param show what each item on the page is shown as. Default: itself.
 * @throws Refusal for a query that makes no sense.
 */
export function listed<Item extends Listed>(
  key: string,
  items: Iterable<Item>,
  query: URLSearchParams,
  show: (item: Item) => Item = (item) => item,
) {
  const matches = labelMatcher(query.get('label_selector') ?? '')
  const name = query.get('name')
  const found = [...items].filter((item) => matches(item.labels ?? {}) && (name === null || item.name === name))
  const sorted = sortedBy(found, query.getAll('sort'))
  const [page, size] = [numberOf(query, 'page', 1), Math.min(largestPage, numberOf(query, 'per_page', usualPage))]
  const last = Math.max(1, Math.ceil(sorted.length / size))
  return {
    [key]: sorted.slice((page - 1) * size, page * size).map(show),
    meta: {
      pagination: {
        page,
        per_page: size,
        previous_page: page > 1 ? page - 1 : null,
        next_page: page < last ? page + 1 : null,
        last_page: last,
        total_entries: sorted.length,
      },
    },
  }
}

/** The values of a query parameter; undefined: whatever there is. */
export function among(query: URLSearchParams, parameter: string): ReadonlySet<string> | undefined {
  return query.has(parameter) ? new Set(query.getAll(parameter)) : undefined
}

function numberOf(query: URLSearchParams, parameter: string, fallback: number): number {
  const text = query.get(parameter) ?? String(fallback)
  if (!/^[1-9]\d{0,8}$/.test(text)) throw invalid(parameter, 'must be a number from 1')
  return Number(text)
}

function sortedBy<Item extends Listed>(items: readonly Item[], orders: readonly string[]): readonly Item[] {
  const rules = (orders.length > 0 ? orders : ['id:asc']).map((order) => order.split(':'))
  const valueOf = (item: Item, field: string) => (item as Record<string, unknown>)[field] as string | number
  return [...items].sort((a, b) => {
    for (const [field = 'id', direction = 'asc'] of rules) {
      const [left, right] = [valueOf(a, field), valueOf(b, field)]
      if (left !== right) return (left < right ? -1 : 1) * (direction === 'desc' ? -1 : 1)
    }
    return 0
  })
}

type Labels = Readonly<Record<string, string>>
const labelKey = String.raw`[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?`
const labelValue = String.raw`(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?`

/** What a label selector selects. @throws Refusal for one that makes no sense. */
export function labelMatcher(selector: string): (labels: Labels) => boolean {
  const terms = selector.split(/,(?![^(]*\))/).map((term) => term.trim())
  const tests = terms.filter((term) => term !== '').map(termMatcher)
  return (labels) => tests.every((test) => test(labels))
}

function termMatcher(term: string): (labels: Labels) => boolean {
  const parts = new RegExp(
    `^(!?)(${labelKey})(?:\\s*(==|=|!=)\\s*(${labelValue})|\\s+(in|notin)\\s*\\(([^()]*)\\))?$`,
  ).exec(term)
  if (parts === null) throw invalid('label_selector', `cannot read "${term}"`)
  const [, not, key = '', operator, value = '', membership, list = ''] = parts
  if (not === '!' && (operator ?? membership) !== undefined) throw invalid('label_selector', `cannot read "${term}"`)
  const members = new Set(list.split(',').map((member) => member.trim()))
  const of = (labels: Labels) => (Object.hasOwn(labels, key) ? labels[key] : undefined)
  if (operator === '=' || operator === '==') return (labels) => of(labels) === value
  if (operator === '!=') return (labels) => of(labels) !== value
  if (membership === 'in') return (labels) => members.has(of(labels) ?? '\0')
  if (membership === 'notin') return (labels) => !members.has(of(labels) ?? '\0')
  return (labels) => (of(labels) === undefined) === (not === '!')
}

/** @throws Refusal for labels that the vendor's rules do not allow. */
export function checkLabels(labels: Labels | undefined): void {
  for (const [key, value] of Object.entries(labels ?? {})) {
    const [name = '', prefix] = key.split('/').reverse()
    const isNamed = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/.test(name) && key.split('/').length <= 2
    const isPrefixed =
      prefix === undefined ||
      (prefix.length <= 253 && /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/.test(prefix))
    if (!isNamed || !isPrefixed || prefix === 'hetzner.cloud') throw invalid('labels', `the key ${key} is not allowed`)
    if (!/^([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?$/.test(value))
      throw invalid('labels', `the value of ${key} is not allowed`)
  }
}
