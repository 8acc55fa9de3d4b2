import { createValidator } from '@bufbuild/protovalidate'
import {
  SessionRequestSchema,
  type Inventory,
  type Release,
  type Report,
  type SessionRequest,
} from '@slipway/proto/provider/v1'
import type { HubSession, ProviderBody } from './session.js'

const validator = createValidator()

/** What of a claim the rules need to know. */
interface ClaimState {
  released: boolean
}

/**
 * What holds in every session, whatever it is about. A breach fails the case in which it is seen.
 */
export class Rules {
  readonly breaches: string[] = []
  readonly #claims = new Map<string, ClaimState>()
  readonly #sequences = new Map<HubSession, bigint>()
  readonly #listings = new Map<HubSession, { readonly over: Set<string>; open: string | undefined }>()

  /** A claim was handed out, or is bound to a session once more. */
  claimed(itemId: string, fence: bigint): void {
    const key = `${itemId}@${fence}`
    if (!this.#claims.has(key)) this.#claims.set(key, { released: false })
  }

  frame(session: HubSession | undefined, frame: SessionRequest): void {
    const { kind, error } = validator.validate(SessionRequestSchema, frame)
    if (kind !== 'valid') this.#breach(session, `a frame breaks the contract: ${error?.message ?? kind}`)
  }

  said(session: HubSession, body: ProviderBody): void {
    switch (body.case) {
      case 'hello':
        return this.#breach(session, 'Hello was said again: it is the first message of a session, and only there')
      case 'report':
        return this.#report(session, body.value)
      case 'release':
        return this.#release(session, body.value)
      case 'inventory':
        return this.#inventory(session, body.value)
      default:
    }
  }

  breach(what: string): void {
    this.#breach(undefined, what)
  }

  #report(session: HubSession, { sequence, item, fence }: Report): void {
    const expected = (this.#sequences.get(session) ?? 0n) + 1n
    if (sequence !== expected)
      this.#breach(
        session,
        `a report has sequence ${sequence} where ${expected} follows: sequences rise by one, from 1`,
      )
    this.#sequences.set(session, sequence)
    const claim = this.#claims.get(`${item?.id}@${fence}`)
    if (claim === undefined)
      this.#breach(session, `a report is about ${item?.id} under fence ${fence}, which was never given`)
    else if (claim.released)
      this.#breach(session, `a report came for ${item?.id} under fence ${fence} after its release`)
  }

  #release(session: HubSession, { item, fence }: Release): void {
    const claim = this.#claims.get(`${item?.id}@${fence}`)
    if (claim === undefined)
      this.#breach(session, `a release of ${item?.id} under fence ${fence}, which was never given`)
    else claim.released = true
  }

  #inventory(session: HubSession, { listingId, final, complete }: Inventory): void {
    const known = this.#listings.get(session) ?? { over: new Set<string>(), open: undefined }
    this.#listings.set(session, known)
    if (known.over.has(listingId)) this.#breach(session, `listing ${listingId} goes on after its final part`)
    if (complete && !final) this.#breach(session, `listing ${listingId} is complete in a part that is not final`)
    if (final) known.over.add(listingId)
  }

  #breach(session: HubSession | undefined, what: string): void {
    this.breaches.push(session === undefined ? what : `session ${session.number}: ${what}`)
  }
}
