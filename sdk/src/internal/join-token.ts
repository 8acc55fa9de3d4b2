import { FinalError } from './rpc-error.js'

/** What a join token says to its bearer. The secret in it is for the hub alone. */
export interface JoinToken {
  readonly text: string
  /** SHA-256 of the hub CA certificate's public key (SPKI, DER), as lower-case hex. */
  readonly caPin: string
}

/** Reads `swj_<id>_<secret>_<pin>`. @throws FinalError that never repeats the token. */
export function parseJoinToken(text: string): JoinToken {
  const trimmed = text.trim()
  const match = /^swj_[0-9a-f]{8,}_[0-9a-f]{16,}_([0-9a-f]{64})$/.exec(trimmed)
  if (match === null) {
    throw new FinalError(
      'JOIN_TOKEN_INVALID',
      'the join token is not of the form swj_<id>_<secret>_<pin>; copy the whole line that `slipway provider token` printed',
    )
  }
  return { text: trimmed, caPin: match[1] ?? '' }
}
