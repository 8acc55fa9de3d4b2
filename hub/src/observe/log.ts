import pino, { type DestinationStream, type Logger } from 'pino'

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent'
export const logLevels: readonly LogLevel[] = ['trace', 'debug', 'info', 'warn', 'error', 'silent']

const secretNames = [
  'token',
  'secret',
  'password',
  'authorization',
  'credentials',
  'userData',
  'user_data',
  'joinToken',
  'join_token',
  'privateKey',
  'key',
]

/** Anything that looks like one of our tokens, or like somebody's signed one, wherever it stands in a text. */
const tokenPattern = /\bsw[cusjb]_[0-9a-f]{8,}_[0-9a-f]+(?:_[0-9a-f]+)?|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*/g

/**
 * Makes the process's log: JSON lines. Secrets are not passed to it in the first place; names that would hold one, and texts that look like a token, are
 * blanked all the same.
 */
export function createLogger(options: { readonly level: LogLevel; readonly destination?: DestinationStream }): Logger {
  return pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: {
        paths: secretNames.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]),
        censor: '[redacted]',
      },
      hooks: {
        streamWrite: (line) => line.replace(tokenPattern, '[redacted token]'),
      },
    },
    options.destination ?? pino.destination({ fd: 1, sync: false }),
  )
}
