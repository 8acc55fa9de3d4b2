import { closeSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

// The histories of a run: JSON lines, one file for each party, written by that party alone. `at` is milliseconds since 1970 by the machine's clock. The checker reads
// these files, the ledgers of the simulated worlds, and nothing else.

/** What an order asks for. */
export interface Wanted {
  readonly machineClass: string
  readonly hostname: string
  readonly labels: Readonly<Record<string, string>>
  readonly providerData: Readonly<Record<string, string | number>>
}

/** A resource as some party saw it, as far as it matters. `version` rises by one with each change. */
export interface Seen {
  readonly uid: string
  readonly name: string
  readonly version: number
  readonly state: string
  /** SHA-256 of the whole resource: two parties that saw the same version saw the same. */
  readonly digest?: string
  readonly [field: string]: unknown
}

export type Operation =
  | { readonly op: 'order' | 'reuse'; readonly key: string; readonly host: string; readonly want: Wanted }
  | { readonly op: 'release'; readonly host: string; readonly uid: string }
  | { readonly op: 'label'; readonly host: string; readonly uid: string; readonly value: string }
  | { readonly op: 'get'; readonly host: string; readonly uid: string }
  | {
      readonly op: 'power'
      readonly key: string
      readonly machine: string
      readonly host: string
      readonly action: 'on' | 'off' | 'reboot'
    }

interface Said {
  readonly at: number
  readonly by: string
}

export type Invocation = Said & { readonly type: 'invoke'; readonly call: string; readonly hub: string } & Operation

/** How a call ended: `ok` done, `fail` refused and nothing happened, `info` nobody knows. */
export type Outcome = Said & { readonly call: string } & (
    | { readonly type: 'ok'; readonly seen: Seen }
    | { readonly type: 'fail' | 'info'; readonly code: string; readonly reason: string; readonly message: string }
  )

export type ClientLine = Invocation | Outcome | (Said & { readonly type: 'start' | 'done' })

export type WatchKind = 'host' | 'request' | 'machine' | 'event'

export interface WatchedChange {
  readonly change: 'EXISTING' | 'CREATED' | 'UPDATED' | 'DELETED'
  readonly seen: Seen
}

export type WatchLine = Said &
  (
    | { readonly type: 'start'; readonly kind: WatchKind }
    | { readonly type: 'open'; readonly kind: WatchKind; readonly from: string; readonly hub: string }
    | {
        readonly type: 'message'
        readonly kind: WatchKind
        readonly revision: string
        readonly synced: boolean
        readonly changes: readonly WatchedChange[]
      }
    | { readonly type: 'end'; readonly kind: WatchKind; readonly code: string; readonly reason: string }
  )

/** All that exists, as the clerk listed it: at rest after the faults (`rest`), and after everything was released (`end`). */
export interface Listing extends Said {
  readonly type: 'listing'
  readonly moment: 'rest' | 'end'
  readonly kind: WatchKind
  readonly hub: string
  readonly objects: readonly Seen[]
}

export interface FaultLine {
  readonly at: number
  readonly type: 'begin' | 'end'
  readonly id: number
  readonly kind: string
  readonly target: string
  /** With `end`: whether the fault was seen to take effect, and by what. */
  readonly effective?: boolean
  readonly evidence?: string
}

/** Starts and ends of processes. `because`: the fault or the order that ended it; absent: it ended by itself. */
export interface ProcessLine {
  readonly at: number
  readonly type: 'start' | 'exit'
  readonly name: string
  readonly pid: number
  readonly how?: string
  readonly because?: string
  /** The last line of its log, where it ended by itself. */
  readonly said?: string
}

/** What the checker must know of a run. */
export interface RunFacts {
  readonly seed: number
  readonly hubId: string
  readonly worlds: readonly { readonly name: string; readonly folder: string; readonly kind: 'cloud' | 'rack' }[]
  /** Servers that belong to somebody else: nobody may touch them. */
  readonly foreignKeys: readonly string[]
}

/** Writes one history. Every line is one write: a killed process tears none. */
export class Writer<Line extends object> {
  readonly #file: number

  constructor(folder: string, name: string) {
    this.#file = openSync(join(folder, `${name}.jsonl`), 'a', 0o644)
  }

  write(line: Line): void {
    writeSync(this.#file, `${JSON.stringify(line)}\n`)
  }

  close(): void {
    closeSync(this.#file)
  }
}

/** Lines of one file, in order. A torn last line of a killed writer is passed over. */
export function readLines<Line>(file: string): readonly Line[] {
  const lines: Line[] = []
  for (const text of readFileSync(file, 'utf8').split('\n')) {
    if (text === '') continue
    try {
      lines.push(JSON.parse(text) as Line)
    } catch {
      // Nobody acted on what was not written whole.
    }
  }
  return lines
}

/** Files of a folder by the beginning of their names, in order of name. */
export function historyFiles(folder: string, prefix: string): readonly string[] {
  return readdirSync(folder)
    .filter((name) => name.startsWith(prefix) && name.endsWith('.jsonl'))
    .sort()
    .map((name) => join(folder, name))
}
