import { randomBytes } from 'node:crypto'
import { pino } from 'pino'
import { answer, Api } from '../../src/api/client.js'
import { startRecorder, startReplayer } from './proxy.js'
import { Purse } from './purse.js'
import { scenarios, type Bench } from './scenarios.js'
import { runPrefix, sweep } from './sweeper.js'
import { readTape, TapeWriter } from './tape.js'

/** What a stand-in is given for a token: it is not looked at. */
const noToken = 'standsin'.repeat(8)

export interface LiveOptions extends Pick<Bench, 'type' | 'image' | 'location'> {
  readonly upstream: string
  readonly token: string
  readonly tapeFile: string
  /** Millionths of the currency that prices are in. */
  readonly capMicros: bigint
  readonly say: (line: string) => void
}

/** How a run went. */
export interface LiveResult {
  readonly passed: readonly string[]
  readonly failed: readonly string[]
  /** What the sweeper still found. A run that ends well leaves nothing. */
  readonly swept: readonly string[]
  readonly spentMicros: bigint
}

/** Runs the scenarios against an API that costs money, writes them down, and sweeps up what they left, however they ended. */
export async function record(options: LiveOptions): Promise<LiveResult> {
  const { upstream, token, tapeFile, capMicros, type, image, location, say } = options
  const run = `${runPrefix}${randomBytes(4).toString('hex')}`
  const api = apiAt(upstream, token)
  const purse = new Purse(capMicros, await pricesAt(api))
  const tape = new TapeWriter(tapeFile, { run, recordedAt: new Date().toISOString(), type, image, location })
  const recorder = await startRecorder({ upstream, token, tape, purse })
  try {
    const outcome = await runAll({ endpoint: recorder.endpoint, token: noToken, run, type, image, location }, say)
    return { ...outcome, swept: await sweep(api, run), spentMicros: purse.spentMicros }
  } catch (thrown) {
    await sweep(api, run)
    throw thrown
  } finally {
    await recorder.close()
  }
}

/** Runs the scenarios against a tape. */
export async function replay(tapeFile: string, say: (line: string) => void): Promise<LiveResult & { unheard: number }> {
  const { head, entries } = readTape(tapeFile)
  const replayer = await startReplayer(entries)
  try {
    const outcome = await runAll({ ...head, endpoint: replayer.endpoint, token: noToken }, say)
    return { ...outcome, swept: [], spentMicros: 0n, unheard: replayer.unheard() }
  } finally {
    await replayer.close()
  }
}

export function apiAt(endpoint: string, token: string): Api {
  return new Api({ endpoint, token, timeoutMs: 30_000, log: pino({ level: 'silent' }) })
}

async function runAll(bench: Bench, say: (line: string) => void): Promise<Pick<LiveResult, 'passed' | 'failed'>> {
  const [passed, failed]: [string[], string[]] = [[], []]
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      await scenario(bench)
      passed.push(name)
      say(`ok ${name}`)
    } catch (thrown) {
      failed.push(name)
      say(`FAILED ${name}: ${thrown instanceof Error ? thrown.message : String(thrown)}`)
    }
  }
  return { passed, failed }
}

async function pricesAt(api: Api) {
  const client = api.as('normal')
  const [{ pricing }, { server_types: types }] = await Promise.all([
    answer(client.GET('/pricing')),
    answer(client.GET('/server_types', { params: { query: { per_page: 50 } } })),
  ])
  return { pricing, types }
}
