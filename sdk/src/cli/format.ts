import stringWidth from 'string-width'

// Values as people read them.

const units: readonly (readonly [string, number])[] = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
]

/** A span as its two largest units at most: `3d4h`, `12m`, `5s`. */
export function formatSpan(ms: number): string {
  const total = Math.max(0, Math.floor(ms / 1000) * 1000)
  const first = units.findIndex(([, size]) => total >= size)
  if (first < 0) return '0s'
  const [unit, size] = units[first] ?? ['s', 1000]
  const next = units[first + 1]
  const rest = next === undefined ? 0 : Math.floor((total % size) / next[1])
  return `${Math.floor(total / size)}${unit}${rest === 0 || next === undefined ? '' : `${rest}${next[0]}`}`
}

/** Millionths of a currency's unit, exactly: no floating point comes near money. */
export function formatMicros(micros: bigint, currency: string): string {
  const digits = micros.toString().padStart(7, '0')
  const whole = digits.slice(0, -6)
  const fraction = digits.slice(-6).replace(/0+$/, '').padEnd(2, '0')
  return `${whole}.${fraction} ${currency}`
}

/** Milliseconds of a text like `90s`, `15m`, `1h30m`, `2d`. Undefined for anything else. */
export function parseSpan(text: string): number | undefined {
  if (!/^(\d+(ms|s|m|h|d))+$/.test(text)) return undefined
  let total = 0
  for (const [, count, unit] of text.matchAll(/(\d+)(ms|s|m|h|d)/g)) {
    const size = unit === 'ms' ? 1 : (units.find(([name]) => name === unit)?.[1] ?? 0)
    total += Number(count) * size
  }
  return total
}

const binary: Readonly<Record<string, bigint>> = {
  '': 1n,
  Ki: 1024n,
  Mi: 1024n ** 2n,
  Gi: 1024n ** 3n,
  Ti: 1024n ** 4n,
  K: 1000n,
  M: 1000n ** 2n,
  G: 1000n ** 3n,
  T: 1000n ** 4n,
}

/** Bytes of a text like `4Gi` or `500M`. Undefined for anything else. */
export function parseBytes(text: string): bigint | undefined {
  const match = /^(\d+)([KMGT]i?)?B?$/.exec(text)
  const factor = binary[match?.[2] ?? '']
  return match?.[1] === undefined || factor === undefined ? undefined : BigInt(match[1]) * factor
}

/** Millionths of a decimal text like `0.0125`. Undefined for anything else. */
export function parseMicros(text: string): bigint | undefined {
  const match = /^(\d+)(?:\.(\d{1,6}))?$/.exec(text)
  return match?.[1] === undefined ? undefined : BigInt(match[1]) * 1_000_000n + BigInt((match[2] ?? '').padEnd(6, '0'))
}

/** Rows under headings, in columns as wide as they need be, without lines. */
export function formatTable(
  headings: readonly string[],
  rows: readonly (readonly string[])[],
  options: { readonly headings?: boolean } = {},
): string {
  const shown = options.headings === false ? rows : [headings, ...rows]
  const cells = shown.map((row) => headings.map((_, index) => clean(row[index] ?? '')))
  const widths = headings.map((_, index) => Math.max(0, ...cells.map((row) => stringWidth(row[index] ?? ''))))
  return cells
    .map((row) =>
      row
        .map((cell, index) =>
          index === row.length - 1 ? cell : cell + ' '.repeat((widths[index] ?? 0) - stringWidth(cell) + 2),
        )
        .join('')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('')
}

/** What would break a table, or play with a terminal, is shown and not done. */
export function clean(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ')
}
