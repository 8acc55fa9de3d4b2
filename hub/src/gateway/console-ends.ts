import { ConsoleEnd, type ConsoleClosed } from '@slipway/proto/provider/v1'
import { HubError } from '../domain/error/errors.js'
import { fromFailure } from './convert.js'

/** What a reader is told at the end that an instance gave; undefined: all was told. */
export function consoleEndError({ end, message, failure }: ConsoleClosed): HubError | undefined {
  const say = (fallback: string): string => (message === '' ? fallback : message)
  switch (end) {
    case ConsoleEnd.DONE:
      return undefined
    case ConsoleEnd.NOT_FOUND:
      return new HubError('CONSOLE_ABSENT', say('the provider knows no such machine'))
    case ConsoleEnd.ABSENT:
      return new HubError('CONSOLE_ABSENT', say('the machine has no console that its provider can reach'))
    case ConsoleEnd.BUSY:
      return new HubError('CONSOLE_BUSY', say('too many look at it already; try again later'))
    case ConsoleEnd.STOPPING:
      return providerLeft('the instance that showed the console is stopping')
    case ConsoleEnd.FAILED:
    case ConsoleEnd.UNSPECIFIED: {
      if (failure === undefined) return new HubError('CONSOLE_FAILED', say('the provider does not say why'))
      const { code, message: why, retryable } = fromFailure(failure)
      return new HubError('CONSOLE_FAILED', `the provider could not show the console: ${code}: ${why}`, {
        ...(retryable && { retryAfterMs: 1_000 }),
      })
    }
  }
}

/** The instance went away, or its session did: somebody may go on elsewhere. */
export function providerLeft(message: string): HubError {
  return new HubError('PROVIDER_OFFLINE', `${message}; go on from the last position`, { retryAfterMs: 500 })
}
