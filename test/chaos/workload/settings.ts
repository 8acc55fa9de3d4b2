import { readFileSync } from 'node:fs'

/** What a client, a watcher or the clerk is told, by a file. */
export interface WorkloadSettings {
  readonly name: string
  /** Base URLs of the hubs, each through a link of this party's own. */
  readonly hubs: readonly string[]
  readonly token: string
  /** Where histories go. */
  readonly histories: string
  readonly seed: number
  /** A file that appears when the client shall take up nothing new. */
  readonly stopFile: string
  /** For clients: the classes to order, with how many hosts of each at once. */
  readonly classes?: readonly { readonly name: string; readonly atOnce: number }[]
  /** For watchers. */
  readonly watch?: readonly string[]
}

/** @param argv the process's arguments: one, the file. */
export function readSettings(argv: readonly string[]): WorkloadSettings {
  const file = argv[2]
  if (file === undefined) throw new Error('usage: node … SETTINGS-FILE')
  return JSON.parse(readFileSync(file, 'utf8')) as WorkloadSettings
}
