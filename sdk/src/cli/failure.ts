import { SlipwayError } from '../client/errors.js'

/** What the process ends with. They are an interface: scripts branch on them. */
export const exitCodes = {
  ok: 0,
  failure: 1,
  usage: 2,
  notFound: 3,
  auth: 4,
  timedOut: 5,
  /** Waiting is over because what was waited for cannot come any more. */
  terminal: 6,
  /** `diff` and `apply --exit-code` found changes. */
  changes: 7,
  unavailable: 8,
  interrupted: 130,
} as const
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes]

/** A command cannot go on. The message says why and what to do. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly exitCode: ExitCode

  constructor(exitCode: ExitCode, message: string) {
    super(message)
    this.exitCode = exitCode
  }
}

export function usageError(message: string): CliError {
  return new CliError(exitCodes.usage, message)
}

export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof CliError) return error.exitCode
  if (!(error instanceof SlipwayError)) return exitCodes.failure
  if (error.notFound) return exitCodes.notFound
  if (error.unauthenticated) return exitCodes.auth
  return error.unavailable ? exitCodes.unavailable : exitCodes.failure
}

/** What it says, without the library's prefix. */
function messageOf(error: unknown): string {
  if (error instanceof SlipwayError) return error.rawMessage
  return error instanceof Error ? error.message : String(error)
}

/** An error as JSON, for `-o json`. */
export function errorToJson(error: unknown): object {
  const message = messageOf(error)
  if (!(error instanceof SlipwayError)) return { error: message }
  return {
    error: message,
    ...(error.reason !== '' && { reason: error.reason }),
    ...(error.violations.length > 0 && { fields: error.violations }),
    ...(Object.keys(error.about).length > 0 && { about: error.about }),
  }
}

/** An error for people: what, then the fields with what to do, then the reason for scripts and searches. */
export function errorToText(error: unknown): string {
  const lines = [`error: ${messageOf(error)}`]
  if (error instanceof SlipwayError) {
    // One violation usually says no more than the message.
    if (error.violations.length > 1)
      lines.push(...error.violations.map(({ field, description }) => `  ${field}: ${description}`))
    if (error.reason !== '') lines.push(`reason: ${error.reason}`)
    if (error.retryAfterMs !== undefined) lines.push(`try again in ${Math.ceil(error.retryAfterMs / 1000)} s`)
  }
  return `${lines.join('\n')}\n`
}
