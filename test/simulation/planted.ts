import type { Profile } from './faults.js'
import { runSeeds } from './pool.js'

export interface PlantedBug {
  readonly name: string
  readonly what: string
  /** In which sort of seeds it is looked for. */
  readonly profile: Profile
}

/** Which seed found a planted bug, and by which invariant. */
export interface Found {
  readonly name: string
  readonly what: string
  /** Undefined: none did. */
  readonly seed: number | undefined
  readonly tried: number
  readonly invariant: string
  readonly message: string
}

/** The wrong versions that there are. */
export async function plantedBugs(): Promise<readonly PlantedBug[]> {
  const { catalogue } = (await import(new URL('../../planted/catalogue.mjs', import.meta.url).href)) as {
    catalogue: readonly PlantedBug[]
  }
  return catalogue
}

/** Tries seeds in turn under each planted bug until one breaks an invariant. */
export async function findPlanted(
  options: {
    readonly server: string
    /** Of one bug, or `all`. */
    readonly name: string
    readonly from: number
    readonly seeds: number
    readonly jobs: number
  },
  onRow: (row: Found) => void,
): Promise<readonly Found[]> {
  const bugs = (await plantedBugs()).filter((bug) => options.name === 'all' || bug.name === options.name)
  if (bugs.length === 0) throw new Error(`there is no planted bug «${options.name}»`)
  const rows: Found[] = []
  for (const { name, what, profile } of bugs) {
    const totals = await runSeeds({
      ...options,
      planted: name,
      profile,
      onSeed: ({ violations }) => violations.length === 0,
    })
    const [first] = [...totals.violations].sort((one, other) => one.seed - other.seed)
    const row = {
      name,
      what,
      seed: first?.seed,
      tried: totals.seeds,
      invariant: first?.invariant ?? '',
      message: first?.message ?? '',
    }
    rows.push(row)
    onRow(row)
  }
  return rows
}
