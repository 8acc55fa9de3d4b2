import { sql } from 'kysely'
import { secretVersionId, UnsealError, type Keyring, type SecretPurpose } from '../secrets/keyring.js'
import type { Db, Tx } from './database.js'
import type { Tables } from './tables.js'

// Everything in the database that is sealed, for wrapping it anew under another key-encryption key. A test holds this list against the columns that there are.

/** A column of sealed values. */
export interface SealedColumn {
  readonly table: keyof Tables
  readonly column: string
  readonly purpose: SecretPurpose
  /** The table's primary key, with the types of its columns. */
  readonly key: readonly (readonly [column: string, type: 'uuid' | 'bigint'])[]
  /** What a value is bound to, by its row's key. */
  readonly idOf: (key: readonly string[]) => string
}

const byPart = (index: number) => (key: readonly string[]) => key[index] ?? ''

export const sealedColumns: readonly SealedColumn[] = [
  {
    table: 'certificate_authorities',
    column: 'key_sealed',
    purpose: 'authority.key',
    key: [['id', 'uuid']],
    idOf: byPart(0),
  },
  {
    table: 'provider_credentials',
    column: 'sealed',
    purpose: 'provider.credentials',
    key: [
      ['provider_id', 'uuid'],
      ['config_version', 'bigint'],
    ],
    idOf: byPart(0),
  },
  {
    table: 'secret_versions',
    column: 'sealed',
    purpose: 'secret.data',
    key: [
      ['organization_id', 'uuid'],
      ['secret_id', 'uuid'],
      ['version', 'bigint'],
    ],
    idOf: ([organizationId = '', secretId = '', version = '']) =>
      secretVersionId(organizationId, secretId, Number(version)),
  },
  {
    table: 'host_secrets',
    column: 'user_data_sealed',
    purpose: 'host.user-data',
    key: [
      ['organization_id', 'uuid'],
      ['host_id', 'uuid'],
    ],
    idOf: byPart(1),
  },
  {
    table: 'host_set_secrets',
    column: 'user_data_sealed',
    purpose: 'host-set.user-data',
    key: [
      ['organization_id', 'uuid'],
      ['host_set_id', 'uuid'],
    ],
    idOf: byPart(1),
  },
  ...(
    [
      ['user_data_sealed', 'request.user-data'],
      ['phone_home_token_sealed', 'request.phone-home'],
    ] as const
  ).map(([column, purpose]): SealedColumn => ({
    table: 'machine_request_secrets',
    column,
    purpose,
    key: [
      ['provider_id', 'uuid'],
      ['request_id', 'uuid'],
    ],
    idOf: byPart(1),
  })),
]

export interface RewrapPage {
  readonly rewrapped: number
  /** What cannot be opened with the keys that are here, by why. */
  readonly failures: readonly string[]
  /** The key of the last row, or undefined where there is no more. */
  readonly last: readonly string[] | undefined
}

/** Wraps the next values of a column, in the order of their rows' keys, under the active key. What is wrapped by it already is not touched. */
export async function rewrapPage(
  tx: Tx,
  keyring: Keyring,
  sealed: SealedColumn,
  after: readonly string[] | undefined,
  limit: number,
): Promise<RewrapPage> {
  const value = sql.ref(sealed.column)
  const names = sealed.key.map(([name]) => sql.ref(name))
  const ofRow = (key: readonly string[]) =>
    sql.join(sealed.key.map(([, type], index) => sql`${key[index] ?? ''}::${sql.raw(type)}`))
  const found = await sql<{ key: string[]; value: Buffer }>`
    select array[${sql.join(names.map((name) => sql`${name}::text`))}] as key, ${value} as value
    from ${sql.table(sealed.table)}
    where ${value} is not null
      and (get_byte(${value}, 0) <> 2 or substring(${value} from 2 for 8) <> ${Buffer.from(keyring.activeKeyId, 'hex')})
      and ${after === undefined ? sql`true` : sql`(${sql.join(names)}) > (${ofRow(after)})`}
    order by ${sql.join(names)}
    limit ${limit}
    for update
  `.execute(tx)
  const failures: string[] = []
  let rewrapped = 0
  for (const row of found.rows) {
    try {
      const wrapped = keyring.rewrap(sealed.purpose, sealed.idOf(row.key), row.value)
      if (wrapped === undefined) continue
      await sql`
        update ${sql.table(sealed.table)} set ${value} = ${wrapped} where (${sql.join(names)}) = (${ofRow(row.key)})
      `.execute(tx)
      rewrapped += 1
    } catch (error) {
      if (!(error instanceof UnsealError)) throw error
      failures.push(`${sealed.table}.${sealed.column}: ${error.message}`)
    }
  }
  return { rewrapped, failures, last: found.rows.length < limit ? undefined : found.rows.at(-1)?.key }
}

export interface KeyUse {
  readonly keyId: string
  readonly where: string
  readonly count: number
}

/** How many values each key-encryption key wraps, by table and column. */
export async function countKeyUse(db: Db): Promise<readonly KeyUse[]> {
  const uses: KeyUse[] = []
  for (const { table, column } of sealedColumns) {
    const value = sql.ref(column)
    const result = await sql<{ keyId: string; count: number }>`
      select encode(substring(${value} from 2 for 8), 'hex') as "keyId", count(*) as count
      from ${sql.table(table)} where ${value} is not null group by 1 order by 1
    `.execute(db)
    uses.push(...result.rows.map((row) => ({ ...row, where: `${table}.${column}` })))
  }
  return uses
}
