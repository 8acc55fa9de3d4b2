import { sql } from 'kysely'
import { randomBytes } from 'node:crypto'
import type { Db } from '../src/store/database.js'

// Canaries: made-up secrets that are planted, and looked for wherever they must not be.

/** A text that occurs nowhere by chance, with characters that encodings change. */
export function canary(): string {
  return `canary/${randomBytes(12).toString('hex')}+${randomBytes(6).toString('base64')}?`
}

/** All forms in which a text may hide: as it is, in JSON and in JSON within JSON, base64 at each of its three offsets, hexadecimal, and URL-encoded. */
export function disguises(text: string): readonly string[] {
  const bytes = Buffer.from(text)
  const base64 = [0, 1, 2].flatMap((offset) => {
    // What stands before and after shares digits with it: those at the ends are left out.
    const whole = Buffer.concat([Buffer.alloc(offset), bytes, Buffer.alloc(3)]).toString('base64')
    const inner = whole.slice(offset === 0 ? 0 : offset + 1, whole.length - 6)
    return [inner, inner.replaceAll('+', '-').replaceAll('/', '_')]
  })
  return [
    ...new Set([
      text,
      inJson(text),
      inJson(inJson(text)),
      ...base64,
      bytes.toString('hex'),
      bytes.toString('hex').toUpperCase(),
      urlEncoded(text, encodeURIComponent),
      urlEncoded(text, encodeURI),
    ]),
  ]
}

/** As it is where it cannot be encoded: half a surrogate pair cannot. */
function urlEncoded(text: string, encode: (text: string) => string): string {
  try {
    return encode(text)
  } catch (error) {
    if (error instanceof URIError) return text
    throw error
  }
}

const inJson = (text: string) => JSON.stringify(text).slice(1, -1)

/** Where any of the canaries is found, in whatever disguise. Empty where none is. */
export function findCanaries(canaries: readonly string[], haystacks: Readonly<Record<string, string>>): string[] {
  return canaries.flatMap((planted, index) =>
    disguises(planted).flatMap((disguise, form) =>
      Object.entries(haystacks)
        .filter(([, hay]) => hay.includes(disguise))
        .map(([name]) => `canary ${index} (form ${form}) in ${name}`),
    ),
  )
}

/** Every row of every table, as text by table; bytea as hexadecimal digits and as what they say. */
export async function dumpRows(db: Db): Promise<Record<string, string>> {
  const tables = await sql<{ name: string }>`
    select table_name as name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'
  `.execute(db)
  const dump: Record<string, string> = {}
  for (const { name } of tables.rows) {
    const rows = await sql<Record<string, unknown>>`select * from ${sql.table(name)}`.execute(db)
    dump[`table ${name}`] = rows.rows
      .flatMap((row) => Object.values(row))
      .map((value) =>
        Buffer.isBuffer(value) ? `${value.toString('hex')} ${value.toString('latin1')}` : JSON.stringify(value),
      )
      .join('\n')
  }
  return dump
}
