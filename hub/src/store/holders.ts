/** A session that holds items, or is to. */
export interface Holder {
  readonly sessionId: string
  readonly providerId: string
}

/** Holders as values of a statement, which then names each by its place, from 1. */
export interface HolderValues {
  readonly sessions: readonly string[]
  readonly providers: readonly string[]
}

/** In the order in which they come: the first has place 1. */
export function holderValues(holders: readonly Holder[]): HolderValues {
  return {
    sessions: holders.map(({ sessionId }) => sessionId),
    providers: holders.map(({ providerId }) => providerId),
  }
}
