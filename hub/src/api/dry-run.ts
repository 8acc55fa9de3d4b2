// What a call with `validate_only` takes out of the transaction that it only tries.

/** Carries the answer of a piece of work that was only tried out of a transaction that is rolled back. */
export class RolledBack extends Error {
  readonly answer: unknown

  constructor(answer: unknown) {
    super('rolled back on purpose')
    this.answer = answer
  }
}

/** Gives the answer of a {@link RolledBack}; rethrows anything else. */
export function rolledBack<Answer>(thrown: unknown): Answer {
  if (thrown instanceof RolledBack) return thrown.answer as Answer
  throw thrown
}
