import { fork, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { Profile } from './faults.js'
import type { SeedResult } from './run.js'
import { dropDatabase } from './setup.js'
import { addUp, type Totals } from './summary.js'

export interface SeedRun {
  /** A PostgreSQL server; each process makes a database of its own there. */
  readonly server: string
  readonly from: number
  readonly seeds: number
  readonly jobs: number
  readonly journal?: boolean
  /** What goes wrong; default: drawn from each seed. */
  readonly profile?: Profile | undefined
  /** A wrong version to put beneath them, by its name in the catalogue. */
  readonly planted?: string | undefined
  /** Returns whether to go on. */
  readonly onSeed: (result: SeedResult) => boolean
  readonly onProgress?: (done: number, violations: number) => void
}

const progressMs = 15_000
let runs = 0

/** Runs seeds in processes, each on a database of its own, until all are done or one says to stop. SIGINT and SIGTERM stop it, too. */
export async function runSeeds(run: SeedRun): Promise<Totals> {
  const totals = addUp()
  const last = run.from + run.seeds - 1
  const jobs = Math.max(1, Math.min(run.jobs, run.seeds))
  const names = Array.from({ length: jobs }, (_, index) => `slipway_simulation_${process.pid}_${runs}_${index}`)
  const children = new Set<ChildProcess>()
  runs += 1
  let next = run.from
  let stopped = false
  const end = (): void => {
    stopped = true
    for (const child of children) child.kill()
  }
  process.once('SIGINT', end).once('SIGTERM', end)
  const progress = setInterval(() => run.onProgress?.(totals.seeds, totals.violations.length), progressMs)
  const take = (result: SeedResult): void => {
    totals.add(result)
    if (!run.onSeed(result)) stopped = true
  }
  const work = (database: string): Promise<void> =>
    new Promise((resolve, reject) => {
      const child = startWorker(run, database)
      children.add(child)
      child.on('message', (message: 'ready' | SeedResult) => {
        if (message !== 'ready') take(message)
        child.send(stopped || next > last ? 'end' : next++)
      })
      child.on('exit', (code, signal) => {
        children.delete(child)
        if (code === 0 || stopped) resolve()
        else reject(new Error(`a process of the simulation ended with ${signal ?? String(code)}`))
      })
    })
  try {
    await Promise.all(names.map(work))
  } finally {
    clearInterval(progress)
    process.off('SIGINT', end).off('SIGTERM', end)
    for (const name of names) await dropDatabase(run.server, name)
  }
  return totals
}

function startWorker(run: SeedRun, database: string): ChildProcess {
  const register = fileURLToPath(new URL('../../planted/register.mjs', import.meta.url))
  return fork(
    fileURLToPath(new URL('worker.js', import.meta.url)),
    [JSON.stringify({ server: run.server, database, profile: run.profile })],
    {
      execArgv: run.planted === undefined ? [] : ['--import', register],
      env: {
        ...process.env,
        ...(run.planted !== undefined && { SLIPWAY_PLANTED: run.planted }),
        ...(run.journal === true && { SLIPWAY_SIMULATION_JOURNAL: '1' }),
      },
    },
  )
}
