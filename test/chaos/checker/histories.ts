import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import {
  historyFiles,
  readLines,
  type ClientLine,
  type FaultLine,
  type Listing,
  type ProcessLine,
  type RunFacts,
  type WatchKind,
  type WatchLine,
} from '../history.js'

/** A line of a simulated world's ledger. What a fact carries depends on it. */
export interface LedgerLine {
  readonly seq: number
  readonly atMs: number
  readonly fact: string
  readonly call?: string
  readonly subject?: string
  readonly answer?: string
  readonly id?: string
  readonly name?: string
  readonly ownershipKey?: string
  readonly goneAtMs?: number | null
  /** Null: it is stuck. */
  readonly doneAtMs?: number | null
  readonly wish?: string
  readonly serial?: string
  readonly binding?: string
  readonly what?: string
  readonly message?: string
  readonly code?: string
}

export interface LedgerFile {
  readonly name: string
  readonly kind: 'cloud' | 'rack'
  readonly lines: readonly LedgerLine[]
}

export interface WatchFile {
  readonly name: string
  readonly kind: WatchKind
  readonly lines: readonly WatchLine[]
}

/** Everything that a run left behind, and nothing else. */
export interface Histories {
  readonly run: RunFacts
  readonly clients: readonly ClientLine[]
  readonly watches: readonly WatchFile[]
  readonly listings: readonly Listing[]
  readonly faults: readonly FaultLine[]
  readonly processes: readonly ProcessLine[]
  readonly ledgers: readonly LedgerFile[]
}

/** A breach of a rule, with the fewest lines that show it. */
export interface Violation {
  /** As in the list of invariants: S1, I4, … */
  readonly rule: string
  readonly message: string
  readonly lines: readonly unknown[]
}

export type Rule = (histories: Histories) => readonly Violation[]

/** Reads a folder of histories. @throws where what every run writes is not there. */
export function readHistories(folder: string): Histories {
  const run = JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8')) as RunFacts
  const all = <Line>(prefix: string) => historyFiles(folder, prefix).flatMap((file) => [...readLines<Line>(file)])
  const clients = [...all<ClientLine>('client-')].sort((one, other) => one.at - other.at)
  const watches = historyFiles(folder, 'watch-').map((file): WatchFile => {
    const name = basename(file, '.jsonl').slice('watch-'.length)
    return { name, kind: name.split('-').at(-1) as WatchKind, lines: readLines<WatchLine>(file) }
  })
  const ledgers = run.worlds.map(({ name, kind, folder: world }): LedgerFile => {
    const file = join(folder, world, 'ledger.jsonl')
    return { name, kind, lines: existsSync(file) ? valid(readLines<LedgerLine>(file)) : [] }
  })
  return {
    run,
    clients,
    watches,
    listings: all('listings'),
    faults: all('faults'),
    processes: all('processes'),
    ledgers,
  }
}

/** Lines that hold: the first of each number. A late one is void for every reader of a ledger. */
function valid(lines: readonly LedgerLine[]): readonly LedgerLine[] {
  const held: LedgerLine[] = []
  for (const line of lines) if (line.seq === held.length + 1) held.push(line)
  return held
}

/** The clerk's listing of a kind, if the run came so far. */
export function listingOf({ listings }: Histories, moment: Listing['moment'], kind: WatchKind): Listing | undefined {
  return listings.findLast((listing) => listing.moment === moment && listing.kind === kind)
}

/** The last part of a path of names. */
export function text(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

export function groupBy<Item>(items: Iterable<Item>, key: (item: Item) => string): Map<string, Item[]> {
  const groups = new Map<string, Item[]>()
  for (const item of items) {
    const group = groups.get(key(item))
    if (group === undefined) groups.set(key(item), [item])
    else group.push(item)
  }
  return groups
}
