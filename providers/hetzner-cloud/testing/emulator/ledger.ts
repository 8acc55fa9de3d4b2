/** Kinds of things that can be created. */
export type Kind = 'server' | 'volume' | 'primary_ip' | 'ssh_key' | 'network' | 'firewall' | 'placement_group' | 'image'

export interface LedgerEntry {
  readonly atMs: number
  readonly what: 'created' | 'deleted'
  readonly kind: Kind
  readonly id: number
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
}

export interface LoggedCall {
  readonly atMs: number
  readonly method: string
  readonly path: string
  /** undefined: it got no answer. */
  readonly status: number | undefined
}

/** What was really created and deleted, whatever was answered, and every call that came. */
export class Ledger {
  readonly entries: LedgerEntry[] = []
  readonly calls: LoggedCall[] = []

  /** What exists now. */
  live(kind?: Kind): readonly LedgerEntry[] {
    const alive = new Map<string, LedgerEntry>()
    for (const entry of this.entries) {
      const key = `${entry.kind}/${entry.id}`
      if (entry.what === 'created') alive.set(key, entry)
      else alive.delete(key)
    }
    return [...alive.values()].filter((entry) => kind === undefined || entry.kind === kind)
  }

  created(kind: Kind): readonly LedgerEntry[] {
    return this.entries.filter((entry) => entry.what === 'created' && entry.kind === kind)
  }

  /** The most that ever existed at once of a kind under one value of a label. */
  mostAtOnce(kind: Kind, label: string): number {
    const counts = new Map<string, number>()
    let most = 0
    const labelOf = new Map<number, string>()
    for (const entry of this.entries.filter((each) => each.kind === kind)) {
      const value = labelOf.get(entry.id) ?? entry.labels[label]
      if (value === undefined) continue
      labelOf.set(entry.id, value)
      const count = (counts.get(value) ?? 0) + (entry.what === 'created' ? 1 : -1)
      counts.set(value, count)
      most = Math.max(most, count)
    }
    return most
  }
}
