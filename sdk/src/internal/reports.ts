import type { MessageInitShape } from '@bufbuild/protobuf'
import { NackReason, type Nack, type ReportSchema } from '@slipway/proto/provider/v1'
import type { Link } from './link.js'
import { backOffMs, monotonicMs } from './timing.js'

/** A report but for its sequence, which belongs to the stream that it goes over. */
export type ReportInit = Omit<MessageInitShape<typeof ReportSchema>, '$typeName' | '$unknown' | 'sequence'>

/** Why a report will never be stored: the claim is over, or the report makes no sense to the hub. */
export class ReportRefused extends Error {
  override readonly name = 'ReportRefused'
  readonly why: 'claim-over' | 'invalid'

  constructor(why: 'claim-over' | 'invalid', message: string) {
    super(message)
    this.why = why
  }
}

/** What an ack proves: the hub took the report under its fence, no earlier than it was sent. */
export interface Acked {
  readonly sentAtMs: number
}

interface Pending {
  readonly report: ReportInit
  readonly claim: string
  readonly resolve: (acked: Acked) => void
  readonly reject: (error: Error) => void
  refusals: number
  timer: NodeJS.Timeout | undefined
}

/** What was told of a claim and is not answered yet, and the newest of what there has been to tell since. */
interface Told {
  readonly claim: string
  next: ReportInit | undefined
}

interface Sent {
  sequence: bigint
  readonly waiting: Map<bigint, { readonly pending: Pending; readonly sentAtMs: number }>
  readonly told: Map<bigint, Told>
  readonly toldOf: Map<string, Told>
}

/** The reports that the hub has not stored yet. They outlive the stream: each is said again on the next one, until it is acked or its claim is over. */
export class Reports {
  readonly #pending = new Set<Pending>()
  readonly #sent = new Map<Link, Sent>()
  #link: Link | undefined

  /** From now on reports go over this stream, first of all those that are not acked yet. */
  attach(link: Link): void {
    this.#link = link
    this.#sent.set(link, { sequence: 0n, waiting: new Map(), told: new Map(), toldOf: new Map() })
    void link.closed.then(() => {
      this.#sent.delete(link)
      if (this.#link === link) this.#link = undefined
    })
    for (const pending of this.#pending) this.#transmit(pending)
  }

  /**
   * Says it until the hub has stored it.
   *
   * @throws ReportRefused
   */
  deliver(claim: string, report: ReportInit): Promise<Acked> {
    return new Promise((resolve, reject) => {
      const pending: Pending = { report, claim, resolve, reject, refusals: 0, timer: undefined }
      this.#pending.add(pending)
      this.#transmit(pending)
    })
  }

  /**
   * Says it once, if a stream is there and not busy. Of each claim one such report waits for its answer at a time, and the newest of those after it comes next: a hub that
   * is slow has no queue of news that are old.
   */
  tell(claim: string, report: ReportInit): void {
    const sent = this.#link === undefined ? undefined : this.#sent.get(this.#link)
    if (this.#link === undefined || sent === undefined || this.#link.busy) return
    const before = sent.toldOf.get(claim)
    if (before === undefined) this.#tellNow(this.#link, sent, claim, report)
    else before.next = report
  }

  /** Ends all waiting for a claim that is over. */
  drop(claim: string, why: string): void {
    for (const pending of this.#pending) {
      if (pending.claim === claim) this.#settle(pending, () => pending.reject(new ReportRefused('claim-over', why)))
    }
    for (const { toldOf } of this.#sent.values()) {
      const told = toldOf.get(claim)
      if (told !== undefined) told.next = undefined
    }
  }

  ack(link: Link, sequence: bigint): void {
    this.#answered(link, sequence)
    const taken = this.#take(link, sequence)
    if (taken !== undefined) this.#settle(taken.pending, () => taken.pending.resolve({ sentAtMs: taken.sentAtMs }))
  }

  /**
   * Takes note of a refusal.
   *
   * @param left another stream is taking over or has done so: that claims are over on this one says nothing, and the report is said again there.
   * @returns the claim that is over by it, if one is.
   */
  nack(link: Link, nack: Nack, left: boolean): string | undefined {
    const pending = this.#take(link, nack.sequence)?.pending
    if (pending === undefined) {
      this.#answered(link, nack.sequence)
      return undefined
    }
    switch (nack.reason) {
      case NackReason.STALE_FENCE:
      case NackReason.UNKNOWN_ITEM:
        if (left) return undefined
        this.#settle(pending, () =>
          pending.reject(new ReportRefused('claim-over', nack.message || 'the claim is over')),
        )
        return pending.claim
      case NackReason.INVALID:
        this.#settle(pending, () =>
          pending.reject(new ReportRefused('invalid', `the hub refused a report: ${nack.message}`)),
        )
        return undefined
      default:
        pending.refusals += 1
        pending.timer = setTimeout(() => this.#transmit(pending), 100 + backOffMs(pending.refusals, 250, 10_000))
        return undefined
    }
  }

  /** Since when the oldest report of this stream waits for its ack; undefined where none does. */
  oldestWaitMs(link: Link): number | undefined {
    const waiting = [...(this.#sent.get(link)?.waiting.values() ?? [])]
    return waiting.length === 0 ? undefined : monotonicMs() - Math.min(...waiting.map(({ sentAtMs }) => sentAtMs))
  }

  #tellNow(link: Link, sent: Sent, claim: string, report: ReportInit): void {
    const sequence = sent.sequence + 1n
    try {
      link.send({ case: 'report', value: { ...report, sequence } })
    } catch {
      // What may be dropped is dropped.
      return
    }
    sent.sequence = sequence
    const told: Told = { claim, next: undefined }
    sent.told.set(sequence, told)
    sent.toldOf.set(claim, told)
  }

  /** Whatever the hub made of it. */
  #answered(link: Link, sequence: bigint): void {
    const sent = this.#sent.get(link)
    const told = sent?.told.get(sequence)
    if (sent === undefined || told === undefined) return
    sent.told.delete(sequence)
    sent.toldOf.delete(told.claim)
    if (told.next !== undefined && link === this.#link && !link.busy) this.#tellNow(link, sent, told.claim, told.next)
  }

  #transmit(pending: Pending): void {
    clearTimeout(pending.timer)
    const link = this.#link
    const sent = link === undefined ? undefined : this.#sent.get(link)
    if (link === undefined || sent === undefined || !this.#pending.has(pending)) return
    const sequence = sent.sequence + 1n
    try {
      link.send({ case: 'report', value: { ...pending.report, sequence } })
    } catch (error) {
      this.#settle(pending, () => pending.reject(new ReportRefused('invalid', (error as Error).message)))
      return
    }
    sent.sequence = sequence
    sent.waiting.set(sequence, { pending, sentAtMs: monotonicMs() })
  }

  #take(link: Link, sequence: bigint): { readonly pending: Pending; readonly sentAtMs: number } | undefined {
    const waiting = this.#sent.get(link)?.waiting
    const taken = waiting?.get(sequence)
    waiting?.delete(sequence)
    return taken
  }

  #settle(pending: Pending, settle: () => void): void {
    clearTimeout(pending.timer)
    this.#pending.delete(pending)
    for (const sent of this.#sent.values()) {
      for (const [sequence, waiting] of sent.waiting) if (waiting.pending === pending) sent.waiting.delete(sequence)
    }
    settle()
  }
}
