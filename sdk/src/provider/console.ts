import type { Json } from './types.js'

/** A place between two bytes of a console. */
export interface ConsolePosition {
  /** Which log: a new one begins where offsets begin anew. 1 to 64 of letters, digits, `.`, `_` and `-`. */
  readonly log: string
  /** How many bytes of that log come before it. */
  readonly offset: number
}

/** A piece of a console. */
export interface ConsoleChunk {
  /** The place of its first byte. What overlaps with the chunk before is left out, and what is missing between the two is told as a gap. */
  readonly position: ConsolePosition
  readonly bytes: Uint8Array
  /** True: although it is of another log, nothing is missing between the chunk before and this one. */
  readonly continues?: boolean
}

/** The machine whose console is wanted. */
export interface ConsoleMachine {
  readonly machineId: string
  readonly externalId: string
  /** Static: what `discover` said, given back. */
  readonly providerData: { readonly [key: string]: Json }
}

/** What is wanted of a console. At most one of `after` and `tailLines` is there; neither: from the first byte that there is. */
export interface ConsoleWish {
  /** Go on after this. Where its bytes are gone, begin with the first that there are: the gap is told. */
  readonly after?: ConsolePosition
  /** Begin so many lines before the end of what there is. */
  readonly tailLines?: number
  /** True: go on with what comes, until the context's signal fires. False: end with what there is. */
  readonly follow: boolean
}

/**
 * - `not-found`: no such machine is known here. - `absent`: it has no console, or none that can be reached. For both, another instance of the
 *   provider is asked.
 * - `busy`: too many look, or somebody else has the one that there is.
 */
export type ConsoleRefusal = 'not-found' | 'absent' | 'busy'

/** Thrown by `console` where there is nothing to show, and that is no failure. The message is shown to people: no secrets. */
export class ConsoleRefused extends Error {
  override readonly name = 'ConsoleRefused'
  readonly why: ConsoleRefusal

  constructor(why: ConsoleRefusal, message: string) {
    super(message)
    this.why = why
  }
}
