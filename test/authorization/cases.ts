// The cases that every method is tried in.

/** What a call is about. `sibling`: another workspace of the same organization. */
export type Which = 'own' | 'sibling' | 'foreign' | 'absent' | 'deleted'
export const cases: readonly Which[] = ['own', 'sibling', 'foreign', 'absent', 'deleted']

/** What there is of each sort, by its resource name; a case that makes no sense for it is missing. */
export type Names = Readonly<Record<string, Partial<Record<Which, string>>>>
