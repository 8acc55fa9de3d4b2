import { appendFileSync } from 'node:fs'
import { clone, toBinary, type DescField, type DescMessage, type Message } from '@bufbuild/protobuf'
import { reflect, type ReflectMessage } from '@bufbuild/protobuf/reflect'
import { ConnectError, type Interceptor } from '@connectrpc/connect'
import { sql } from 'kysely'
import { UnsealError, type Keyring } from '../src/secrets/keyring.js'
import type { Db } from '../src/store/database.js'
import { sealedColumns } from '../src/store/sealed-values.js'
import { Needles, type Finding } from './needles.js'

// Whatever a hub of a test is told in confidence, or tells somebody once, is looked for at the end in everything that it wrote and answered. Which fields are secret
// stands in the contract (`debug_redact`); what the hub made by itself is read from its sealed columns.

/** What is kept of answers before it is searched and dropped. */
const keptBytes = 4 * 1024 * 1024
/** Of each table. A test that writes more has the newest searched. */
const tableBytes = 24 * 1024 * 1024
const sealedRows = 500

/** Purposes whose text is nobody's secret alone: user-data of a request may be its class's, which is there to be read. */
const notSecret = new Set(['request.user-data'])

/** Of our own tokens what is secret: all of it but the prefix and the id that names it. */
export const secretPart = (token: string): string => /^sw[a-z]_[0-9a-f]+_(.+)$/s.exec(token)?.[1] ?? token

/** Looks on at one hub, or at several on one database. */
export class Witness {
  readonly needles = new Needles()
  readonly #findings: Finding[] = []
  #answers: Uint8Array[] = []
  #answerBytes = 0
  #bytes = 0
  #ms = 0

  /** How much was searched, in bytes. */
  get bytes(): number {
    return this.#bytes
  }

  /** Notes the secrets of every request, and keeps every answer without those that it is there to give. */
  readonly interceptor: Interceptor = (next) => async (request) => {
    const bearer = request.header.get('authorization')?.replace(/^bearer +/i, '') ?? ''
    this.needles.add('token of a call', secretPart(bearer))
    const name = request.method.name
    if (!request.stream) this.#note(request.method.input, request.message)
    try {
      const response = await next(request)
      this.keep([...response.header, ...response.trailer].join('\n'))
      if (!response.stream) {
        this.#note(response.method.output, response.message)
        return response
      }
      return { ...response, message: this.#following(response.method.output, response.message) }
    } catch (thrown) {
      this.#keepError(name, thrown)
      throw thrown
    }
  }

  /** Keeps something that was answered, to be searched. */
  keep(answer: string | Uint8Array): void {
    const bytes = typeof answer === 'string' ? Buffer.from(answer) : answer
    this.#answers.push(bytes)
    this.#answerBytes += bytes.byteLength
    if (this.#answerBytes > keptBytes) this.#searchAnswers()
  }

  /** Searches a text. */
  search(where: string, text: string | Uint8Array): void {
    this.#bytes += typeof text === 'string' ? Buffer.byteLength(text) : text.byteLength
    const began = performance.now()
    this.#findings.push(...this.needles.search(where, text))
    this.#ms += performance.now() - began
  }

  /** Searches all rows, after noting what is sealed in them. */
  async searchDatabase(db: Db, keyring: Keyring | undefined): Promise<void> {
    if (keyring !== undefined) for (const column of sealedColumns) await noteSealed(db, keyring, column, this.needles)
    this.#searchAnswers()
    const tables = await sql<{ name: string }>`
      select table_name as name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'
    `.execute(db)
    for (const { name } of tables.rows) for (const text of await rowsOf(db, name)) this.search(`table ${name}`, text)
  }

  /** @throws where anything secret was found. Tells how much was searched, in the file that SLIPWAY_CANARY_TOTALS names. */
  finish(): void {
    this.#searchAnswers()
    const totals = process.env['SLIPWAY_CANARY_TOTALS']
    const found = new Set(this.#findings.map(({ what, where }) => `${what} in ${where}`))
    const sum = { hubs: 1, secrets: this.needles.size, bytes: this.#bytes, ms: this.#ms, found: found.size }
    if (totals !== undefined && totals !== '') appendFileSync(totals, `${JSON.stringify(sum)}\n`)
    if (found.size > 0) throw new Error(`secrets were found where they must not be: ${[...found].join('; ')}`)
  }

  async *#following(desc: DescMessage, messages: AsyncIterable<Message>): AsyncGenerator<Message> {
    try {
      for await (const message of messages) {
        this.#note(desc, message)
        yield message
      }
    } catch (thrown) {
      this.#keepError(desc.name, thrown)
      throw thrown
    }
  }

  /** Takes the secrets out of a message; what is left is kept where it is an answer. */
  #note(desc: DescMessage, message: Message): void {
    const isAnswer = !desc.name.endsWith('Request')
    if (!holdsSecrets(desc)) {
      if (isAnswer) this.keep(toBinary(desc, message))
      return
    }
    const rest = clone(desc, message)
    takeSecrets(reflect(desc, rest), this.needles)
    if (isAnswer) this.keep(toBinary(desc, rest))
  }

  #keepError(method: string, thrown: unknown): void {
    const error = ConnectError.from(thrown)
    const details = error.details.map((detail) => ('value' in detail ? detail.value : detail))
    this.keep(`${method}: ${error.rawMessage}\n${JSON.stringify(details, plain)}\n${[...error.metadata].join('\n')}`)
  }

  #searchAnswers(): void {
    const all = Buffer.concat(this.#answers)
    this.#answers = []
    this.#answerBytes = 0
    this.search('an answer', all)
  }
}

const plain = (_key: string, value: unknown) => (typeof value === 'bigint' ? String(value) : value)

const isSecret = (field: DescField): boolean => field.proto.options?.debugRedact === true

const known = new Map<DescMessage, boolean>()

/** Whether the contract calls anything in it secret, however deep. */
export function holdsSecrets(desc: DescMessage): boolean {
  const before = known.get(desc)
  if (before !== undefined) return before
  known.set(desc, false)
  const found = desc.fields.some((field) => isSecret(field) || (field.message != null && holdsSecrets(field.message)))
  known.set(desc, found)
  return found
}

function takeSecrets(message: ReflectMessage, needles: Needles): void {
  for (const field of message.fields) {
    if (!message.isSet(field)) continue
    if (isSecret(field)) {
      needles.addAll(`${message.desc.name}.${field.name}`, secretsIn(message, field))
      message.clear(field)
    } else if (field.fieldKind === 'message' && field.message.typeName !== 'google.protobuf.Struct')
      takeSecrets(message.get(field), needles)
    else if (field.fieldKind === 'list' && field.listKind === 'message')
      for (const item of message.get(field)) takeSecrets(item as ReflectMessage, needles)
    else if (field.fieldKind === 'map' && field.mapKind === 'message')
      for (const item of message.get(field).values()) takeSecrets(item as ReflectMessage, needles)
  }
}

/** The value of a field as plain data. */
function secretsIn(message: ReflectMessage, field: DescField): unknown {
  const isDocument = field.fieldKind === 'message'
  // A document is plain JSON in its message, and a wrapped one in what reflects it.
  const value: unknown = isDocument
    ? (message.message as unknown as Record<string, unknown>)[field.localName]
    : message.get(field)
  return typeof value === 'string' ? secretPart(value) : value
}

async function noteSealed(
  db: Db,
  keyring: Keyring,
  { table, column, key, purpose, idOf }: (typeof sealedColumns)[number],
  needles: Needles,
): Promise<void> {
  if (notSecret.has(purpose)) return
  const names = key.map(([name]) => sql`${sql.ref(name)}::text`)
  const { rows } = await sql<{ key: string[]; value: Buffer }>`
    select array[${sql.join(names)}] as key, ${sql.ref(column)} as value from ${sql.table(table)}
    where ${sql.ref(column)} is not null limit ${sealedRows}
  `.execute(db)
  for (const row of rows) {
    const text = open(() => keyring.open(purpose, idOf(row.key), row.value).toString('utf8'))
    if (text === undefined) continue
    needles.addAll(`what is sealed in ${table}.${column}`, parsed(text))
  }
}

/** Undefined for what tests have tampered with, or sealed with another key. */
function open(work: () => string): string | undefined {
  try {
    return work()
  } catch (error) {
    if (error instanceof UnsealError) return undefined
    throw error
  }
}

/** A document, or a text. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return secretPart(text)
  }
}

/** Rows as JSON, and their bytea as what they say, the newest as far as there is room. */
async function rowsOf(db: Db, table: string): Promise<readonly (string | Buffer)[]> {
  const { rows } = await sql<{ row: string }>`
    with newest as (
      select row, sum(length(row)) over (order by at desc) as sofar
      from (select to_jsonb(t)::text as row, ctid as at from ${sql.table(table)} t) found
    ) select row from newest where sofar <= ${tableBytes}
  `.execute(db)
  const text = rows.map(({ row }) => row).join('\n')
  const bytes = [...text.matchAll(/\\\\x((?:[0-9a-f]{2}){8,})/g)].map(([, digits = '']) => Buffer.from(digits, 'hex'))
  return bytes.length === 0 ? [text] : [text, Buffer.concat(bytes.flatMap((each) => [each, Buffer.of(10)]))]
}
