import type { Readable, Writable } from 'node:stream'

/** A process's surroundings, so that commands can be run by tests as well. */
export interface Surroundings {
  readonly stdout: Writable & { readonly isTTY?: boolean; readonly columns?: number }
  readonly stderr: Writable & { readonly isTTY?: boolean }
  readonly stdin: Readable & { readonly isTTY?: boolean }
  readonly env: Readonly<Record<string, string | undefined>>
  /** Fires at Ctrl-C. */
  readonly signal: AbortSignal
  readonly now: () => number
}

/** Whether lines may be redrawn: never off a terminal. */
export function mayRedraw({ stderr, env }: Surroundings): boolean {
  return stderr.isTTY === true && env['TERM'] !== 'dumb' && (env['CI'] ?? '') === ''
}

const colours = { red: 31, green: 32, yellow: 33 } as const

/** Colours a word where the stream is a terminal that wants colours. */
export function coloured(surroundings: Surroundings, text: string, colour: keyof typeof colours): string {
  const { stdout, env } = surroundings
  if (stdout.isTTY !== true || env['TERM'] === 'dumb' || (env['NO_COLOR'] ?? '') !== '') return text
  return `\u001b[${colours[colour]}m${text}\u001b[0m`
}

/** All of standard input. */
export async function readStdin({ stdin }: Surroundings): Promise<string> {
  let text = ''
  for await (const chunk of stdin) text += String(chunk)
  return text
}
