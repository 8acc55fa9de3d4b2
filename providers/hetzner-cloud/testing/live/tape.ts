import { appendFileSync, readFileSync, writeFileSync } from 'node:fs'

/** The first line of a tape: what whoever plays it back has to say again. */
export interface TapeHead {
  readonly run: string
  readonly recordedAt: string
  readonly type: string
  readonly image: string
  readonly location: string
}

/** One call and its answer. */
export interface TapeEntry {
  readonly method: string
  /** Below the API's root, with its query in a fixed order. */
  readonly path: string
  readonly request?: unknown
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly answer?: unknown
}

/** Headers that the client reads. */
export const keptHeaders = ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset', 'retry-after', 'link']
/** Fields that are secret, wherever they are. */
const secretFields: ReadonlySet<string> = new Set(['root_password', 'user_data', 'password'])

/** Writes a tape, an entry a line, without secrets. */
export class TapeWriter {
  readonly #file: string

  constructor(file: string, head: TapeHead) {
    this.#file = file
    writeFileSync(file, `${JSON.stringify(head)}\n`)
  }

  write(entry: TapeEntry): void {
    appendFileSync(this.#file, `${JSON.stringify(withoutSecrets(entry))}\n`)
  }
}

/** @throws Error where the file is no tape. */
export function readTape(file: string): { readonly head: TapeHead; readonly entries: readonly TapeEntry[] } {
  const [head, ...entries] = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown)
  if (typeof (head as TapeHead | undefined)?.run !== 'string') throw new Error(`${file} is no tape`)
  return { head: head as TapeHead, entries: entries as TapeEntry[] }
}

/** What tells two calls apart: what is secret does not. */
export function callKey(method: string, path: string, request: unknown): string {
  return `${method} ${path} ${JSON.stringify(withoutSecrets(request)) ?? ''}`
}

/** A path with its query in a fixed order. */
export function plainPath(url: URL, root: string): string {
  const query = new URLSearchParams([...url.searchParams].sort(([a, x], [b, y]) => (a + x < b + y ? -1 : 1))).toString()
  return url.pathname.slice(root.length) + (query === '' ? '' : `?${query}`)
}

function withoutSecrets(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutSecrets)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [
      key,
      secretFields.has(key) && each != null ? '[secret]' : withoutSecrets(each),
    ]),
  )
}
