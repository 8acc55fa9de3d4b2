import { parseArgs } from 'node:util'

export interface Options {
  readonly seed: number
  readonly minutes: number
  readonly rounds: number
  readonly faultEveryMs: number
  /** Empty: all kinds. */
  readonly kinds: readonly string[]
  readonly keep: string | undefined
  readonly report: string | undefined
  readonly resume: boolean
  readonly plan: boolean
  readonly help: boolean
  /** Acknowledged operations by minute below which a run proves nothing. */
  readonly floor: number
  /** Share of the planned faults that must be seen to take effect. */
  readonly effectiveShare: number
  readonly restSeconds: number
}

export class UsageError extends Error {
  override readonly name = 'UsageError'
}

export const help = `npm run chaos -- --seed N --minutes M

Runs a whole Slipway of real processes (its own PostgreSQL, two hubs, five provider instances, clients, watchers) in network
namespaces of its own, breaks it by a seeded schedule, heals it, waits until all is at rest, and has a separate program judge the histories.

  --seed N            seed of the schedule and of the workload (default: chosen and printed)
  --minutes M         minutes of faults in each round (default 5)
  --rounds N          rounds, each in a fresh world, with the seeds N, N+1, … (default 1)
  --fault-every MS    mean time from one fault to the next (default 2500)
  --kinds A,B         only these kinds of fault; a prefix such as "pg" takes all that begin with it
  --plan              print the schedule, run nothing
  --keep DIR          keep histories, ledgers and logs in DIR (default: only of rounds that failed, below the system's temporary folder)
  --resume            with --keep: pass over rounds that are in DIR already, and add their figures up
  --report FILE       write the summary as JSON
  --floor N           fewer acknowledged operations a minute than this void the run (default 120)
  --effective SHARE   a smaller share of effective faults than this voids the run (default 0.6)
  --rest-seconds N    how long it may take to come to rest after the faults (default 120)
  --help

SLIPWAY_CHAOS_NODE_ARGS   further arguments of Node for every process of the product, by spaces: to plant a bug beneath them
SLIPWAY_POSTGRES_BIN      where initdb and postgres are (default: the newest of /usr/lib/postgresql)

Exit code: 0 nothing was violated; 1 something was; 2 wrong use; 3 the run is void: too little traffic, or too few faults took effect;
4 this machine lacks what it takes; 5 the run itself failed.
`

/** Reads the command line. @throws UsageError. */
export function readOptions(argv: readonly string[]): Options {
  const { values } = parse(argv)
  const number = (name: keyof typeof values, fallback: number, least: number, most: number): number => {
    const value = Number(values[name] ?? fallback)
    if (!Number.isFinite(value) || value < least || value > most)
      throw new UsageError(`--${name} must be a number from ${least} to ${most}, not ${String(values[name])}`)
    return value
  }
  if (values.resume === true && values.keep === undefined) throw new UsageError('--resume needs --keep DIR')
  return {
    seed: Math.trunc(number('seed', Math.floor(Math.random() * 1_000_000), 0, 0xffff_ffff)),
    minutes: number('minutes', 5, 0.1, 600),
    rounds: Math.trunc(number('rounds', 1, 1, 100_000)),
    faultEveryMs: number('fault-every', 2_500, 200, 600_000),
    kinds: (values.kinds ?? '').split(',').filter((kind) => kind !== ''),
    keep: values.keep,
    report: values.report,
    resume: values.resume === true,
    plan: values.plan === true,
    help: values.help === true,
    floor: number('floor', 120, 0, 1_000_000),
    effectiveShare: number('effective', 0.6, 0, 1),
    restSeconds: number('rest-seconds', 120, 5, 3_600),
  }
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      options: {
        seed: { type: 'string' },
        minutes: { type: 'string' },
        rounds: { type: 'string' },
        'fault-every': { type: 'string' },
        kinds: { type: 'string' },
        keep: { type: 'string' },
        report: { type: 'string' },
        floor: { type: 'string' },
        effective: { type: 'string' },
        'rest-seconds': { type: 'string' },
        resume: { type: 'boolean' },
        plan: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    })
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}
