import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { simulatedFlags, simulatedProgram } from './adapters/simulated.js'

const here = dirname(fileURLToPath(import.meta.url))

/** What the kit needs to run against a provider of ours. */
export interface Family {
  /** The adapter's file. */
  readonly adapter: string
  /** What starts an instance. */
  readonly command: readonly string[]
}

export const families: Readonly<Record<string, Family>> = {
  simulated: {
    adapter: join(here, 'adapters/simulated.js'),
    command: [process.execPath, simulatedProgram, '--kind', 'dynamic', ...simulatedFlags],
  },
  'simulated-static': {
    adapter: join(here, 'adapters/simulated-static.js'),
    command: [process.execPath, simulatedProgram, '--kind', 'static', ...simulatedFlags],
  },
}
