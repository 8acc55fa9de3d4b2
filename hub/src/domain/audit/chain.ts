// The audit log's chains: what is hashed of an entry, and how a chain shows that it was tampered with. Each hash covers the one before it, and each entry its place.

/** An entry as it was stored. */
export interface AuditFacts {
  readonly id: string
  /** UTC with microseconds, as PostgreSQL keeps them: `2026-01-31T12:00:00.123456Z`. */
  readonly at: string
  /** Null: it concerns the hub itself. */
  readonly organizationId: string | null
  readonly principal: string
  readonly tokenId: string
  readonly source: string
  readonly method: string
  readonly resource: string
  readonly result: 'OK' | 'DENIED'
  readonly requestId: string
}

/** One place of a chain, as it is stored. */
export interface AuditLink {
  readonly sequence: number
  readonly hash: Uint8Array
  /** Undefined: the entry is gone. */
  readonly entry: AuditFacts | undefined
}

/** SHA-256 over the hash before, and a text. */
export type LinkHash = (previous: Uint8Array, text: string) => Uint8Array

/** What comes before the first. */
export const genesisHash: Uint8Array = new Uint8Array(32)

/** The very text that is hashed for an entry at a place. */
export function canonicalEntry(sequence: number, entry: AuditFacts): string {
  const { id, at, organizationId, principal, tokenId, source, method, resource, result, requestId } = entry
  return JSON.stringify([
    'slipway-audit-entry-1',
    sequence,
    id,
    at,
    organizationId ?? '',
    principal,
    tokenId,
    source,
    method,
    resource,
    result,
    requestId,
  ])
}

export interface HeadFacts {
  readonly hubId: string
  /** Of the organization; empty: of the hub itself. */
  readonly chain: string
  readonly sequence: number
  /** Hexadecimal. */
  readonly hash: string
  /** ISO 8601. */
  readonly signedAt: string
}

/** The very text that is signed for the end of a chain. */
export function canonicalHead({ hubId, chain, sequence, hash, signedAt }: HeadFacts): string {
  return JSON.stringify(['slipway-audit-head-1', hubId, chain, sequence, hash, signedAt])
}

export type ChainFaultKind = 'CHANGED' | 'ENTRY_MISSING' | 'GAP' | 'TRUNCATED' | 'HEAD_MISMATCH' | 'INSERTED'

export interface ChainFault {
  readonly sequence: number
  readonly kind: ChainFaultKind
  readonly message: string
}

/** The end of a chain that was signed once, and that it must still lead to. */
export interface KnownHead {
  readonly sequence: number
  readonly hash: Uint8Array
}

/** Reckons a chain anew, link by link in the order of their places. */
export class ChainCheck {
  readonly faults: ChainFault[] = []
  readonly #hash: LinkHash
  readonly #heads: readonly KnownHead[]
  #next = 1
  #previous = genesisHash
  #head = 0
  verified = 0

  constructor(hash: LinkHash, heads: readonly KnownHead[]) {
    this.#hash = hash
    this.#heads = heads.toSorted((one, other) => one.sequence - other.sequence)
  }

  /** Takes the next link. */
  take(link: AuditLink): void {
    const afterGap = link.sequence !== this.#next
    if (afterGap) {
      const last = link.sequence - 1
      const places = last === this.#next ? `place ${last} is` : `places ${this.#next} to ${last} are`
      this.#fault(this.#next, 'GAP', `${places} missing from the chain`)
    }
    if (link.entry === undefined) {
      this.#fault(link.sequence, 'ENTRY_MISSING', 'the entry that was sealed here is gone')
    } else if (!afterGap) {
      // What comes after a gap covers a hash that nobody knows any more: nothing is said of it.
      const hash = this.#hash(this.#previous, canonicalEntry(link.sequence, link.entry))
      if (sameBytes(hash, link.hash)) this.verified += 1
      else this.#fault(link.sequence, 'CHANGED', 'the entry here is not the one that was sealed here')
    }
    this.#checkHeads(link)
    // Goes on from what is stored, so that one fault is not every later one's.
    this.#previous = link.hash
    this.#next = link.sequence + 1
  }

  /** Ends it: the chain has no more links. */
  end(): readonly ChainFault[] {
    const beyond = this.#heads.find((head) => head.sequence >= this.#next)
    if (beyond !== undefined) {
      const last = this.#heads.at(-1)?.sequence ?? beyond.sequence
      this.#fault(this.#next, 'TRUNCATED', `the chain ends at ${this.#next - 1}, and was signed up to ${last}`)
    }
    return this.faults
  }

  #checkHeads(link: AuditLink): void {
    for (; (this.#heads[this.#head]?.sequence ?? Infinity) <= link.sequence; this.#head++) {
      const head = this.#heads[this.#head]
      if (head?.sequence === link.sequence && !sameBytes(head.hash, link.hash))
        this.#fault(link.sequence, 'HEAD_MISMATCH', 'another hash was signed for this place')
    }
  }

  #fault(sequence: number, kind: ChainFaultKind, message: string): void {
    this.faults.push({ sequence, kind, message })
  }
}

function sameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index])
}
