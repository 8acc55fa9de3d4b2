import type { Credit } from '../store/work-items.js'
import type { ProviderSession } from './session.js'

/** The sessions of this replica. */
export class SessionRegistry {
  readonly #sessions = new Map<string, ProviderSession>()
  readonly #byProvider = new Map<string, Set<ProviderSession>>()

  add(session: ProviderSession): void {
    this.#sessions.set(session.id, session)
    const ofProvider = this.#byProvider.get(session.providerId) ?? new Set()
    this.#byProvider.set(session.providerId, ofProvider.add(session))
  }

  remove(session: ProviderSession): void {
    this.#sessions.delete(session.id)
    const ofProvider = this.#byProvider.get(session.providerId)
    ofProvider?.delete(session)
    if (ofProvider?.size === 0) this.#byProvider.delete(session.providerId)
  }

  get(sessionId: string): ProviderSession | undefined {
    return this.#sessions.get(sessionId)
  }

  hasProvider(providerId: string): boolean {
    return this.#byProvider.has(providerId)
  }

  all(): readonly ProviderSession[] {
    return [...this.#sessions.values()]
  }

  ofProvider(providerId: string): readonly ProviderSession[] {
    return [...(this.#byProvider.get(providerId) ?? [])]
  }

  sessionsOf(providerIds: ReadonlySet<string>): readonly ProviderSession[] {
    return [...providerIds].flatMap((id) => this.ofProvider(id))
  }

  providerIds(): readonly string[] {
    return [...this.#byProvider.keys()]
  }

  /** Sessions of these providers that take more work, and how much. */
  credits(providerIds: ReadonlySet<string>): Credit[] {
    return this.sessionsOf(providerIds).flatMap((session) =>
      session.credit > 0 ? [{ ...session.holder, credit: session.credit }] : [],
    )
  }
}
