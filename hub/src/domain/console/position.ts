import { invalidField } from '../error/errors.js'

/** A place between two bytes of a console: a log, and how many of its bytes come before. */
export interface ConsolePosition {
  readonly log: string
  readonly offset: number
}

/** The text by which a reader goes on after a position. */
export function encodePosition({ log, offset }: ConsolePosition): string {
  return `${offset}:${log}`
}

/** @throws HubError INVALID_FIELD where it is not of {@link encodePosition}. */
export function decodePosition(text: string, field: string): ConsolePosition {
  const match = /^(0|[1-9]\d{0,15}):([A-Za-z0-9._-]{1,64})$/.exec(text)
  const offset = Number(match?.[1])
  if (match?.[2] === undefined || !Number.isSafeInteger(offset))
    throw invalidField(field, 'is no position; give one as a message of this stream had it, or leave it out')
  return { log: match[2], offset }
}
