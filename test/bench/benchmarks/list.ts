import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import type pg from 'pg'
import { query, type Bed } from '../harness/bed.js'
import type { Benchmark, Contender, Goal } from '../harness/benchmark.js'
import { BenchHub } from '../harness/hub.js'
import { RawCaller } from '../harness/raw-caller.js'
import { latencies } from '../harness/stats.js'

const pageSize = 100
const providers = 50
/** How far apart the places are from which lists go on. */
const stride = 1_000

const warmUps = 150

interface Question {
  readonly case: string
  /** Of the API. Different from call to call where `turn` is used. */
  readonly filter: (turn: number) => { labelSelector?: string; providers?: string[]; states?: hub.MachineState[] }
  /** The same in SQL. */
  readonly where: (turn: number) => string
  /** Starts behind so many strides of machines. */
  readonly strides?: (turn: number) => number
}

const labels = `(provider_labels || labels)`

function questions(count: number): Question[] {
  const label = (key: string, value: (turn: number) => string) => ({
    filter: (turn: number) => ({ labelSelector: `${key}=${value(turn)}` }),
    where: (turn: number) => `${labels} @> '{"${key}": "${value(turn)}"}'`,
  })
  const spread = (turn: number) => (turn * 7_919) % count
  const rack = (turn: number) => `r${turn % 200}`
  const zone = (turn: number) => `z${turn % 3}`
  return [
    { case: 'first page', filter: () => ({}), where: () => 'true' },
    {
      case: 'page at depth',
      filter: () => ({}),
      where: () => 'true',
      strides: (turn) => 1 + (spread(turn) % Math.floor((count - 1) / stride)),
    },
    { case: 'label, 1 match', ...label('serial', (turn) => `s${spread(turn)}`) },
    { case: `label, ${count / 200} matches`, ...label('rack', rack) },
    { case: `label, ${Math.floor(count / 3)} matches`, ...label('zone', zone) },
    {
      case: 'two labels',
      filter: (turn) => ({ labelSelector: `rack=${rack(turn)},zone=${zone(turn)}` }),
      where: (turn) => `${labels} @> '{"rack": "${rack(turn)}"}' and ${labels} @> '{"zone": "${zone(turn)}"}'`,
    },
    {
      case: 'provider and state',
      filter: (turn) => ({ providers: [`providers/p${turn % providers}`], states: [hub.MachineState.AVAILABLE] }),
      where: (turn) => `provider_name = 'p${turn % providers}' and state = 'AVAILABLE'`,
    },
    {
      case: 'provider and rare state',
      filter: (turn) => ({ providers: [`providers/p${turn % providers}`], states: [hub.MachineState.CLEAN_FAILED] }),
      where: (turn) => `provider_name = 'p${turn % providers}' and state = 'CLEAN_FAILED'`,
    },
  ]
}

const machineName = (index: number): string => `m-${String(index).padStart(7, '0')}`

/** Machines of 50 static providers: each with a serial of its own, 200 racks, 3 zones; one in 10,000 failed to be cleaned. */
async function load(url: string, count: number): Promise<void> {
  const ids = Array.from({ length: providers }, () => randomUUID())
  await query(
    url,
    `set session_replication_role = replica`,
    ...ids.map(
      (id, index) => `insert into providers (id, name, family, kind) values ('${id}', 'p${index}', 'bench', 'STATIC')`,
    ),
    `insert into machines (provider_id, id, name, provider_name, static, external_id, state, provider_labels, labels, hardware, addresses)
     select p.id, gen_random_uuid(), 'm-' || lpad(i::text, 7, '0'), p.name, true, 'x' || i,
            case when (i / ${providers}) % 10000 = 7 then 'CLEAN_FAILED' when i % 2 = 0 then 'ACTIVE' else 'AVAILABLE' end,
            jsonb_build_object('serial', 's' || i, 'rack', 'r' || i % 200), jsonb_build_object('zone', 'z' || i % 3),
            '{"shape": {"vcpus": 32, "memoryMib": 131072, "diskGib": 2000}, "vendor": "Bench", "model": "B1"}',
            '[{"type": "PRIVATE", "ip": "10.0.0.1"}]'
     from generate_series(0, ${count - 1}) i
     join (values ${ids.map((id, index) => `(${index}, '${id}'::uuid, 'p${index}')`).join(', ')}) as p (n, id, name) on p.n = (i / 200) % ${providers}`,
    `insert into machine_labels (label, machine_name) select labels_one_by_one(provider_labels || labels), name from machines`,
    `vacuum analyze machines, machine_labels`,
  )
}

/** The page tokens that the list of everything gives behind each stride: they are signed, and cannot be made up. */
async function tokensOfStrides(slipway: BenchHub): Promise<readonly string[]> {
  const tokens: string[] = []
  do {
    const pageToken = tokens.at(-1) ?? ''
    tokens.push((await slipway.client.machines.listMachines({ pageSize: stride, pageToken })).nextPageToken)
  } while (tokens.at(-1) !== '')
  return tokens
}

function contenders(bed: Bed, slipway: BenchHub, raw: RawCaller, pool: pg.Pool, question: Question): Contender[] {
  const calls = bed.size(1_000, 5)
  const time = async (call: (turn: number) => Promise<unknown>) => {
    const times: number[] = []
    // What is compiled and prepared at the first calls is not the list's.
    for (let turn = calls; turn < calls + warmUps; turn++) await call(turn)
    for (let turn = 0; turn < calls; turn++) {
      const start = performance.now()
      await call(turn)
      times.push(performance.now() - start)
    }
    return latencies('page', times)
  }
  const { strides } = question
  let tokens: readonly string[] = []
  const orders = async () => {
    if (strides !== undefined && tokens.length === 0) tokens = await tokensOfStrides(slipway)
    return (turn: number) => ({
      pageSize,
      pageToken: tokens[(strides?.(turn) ?? 0) - 1] ?? '',
      filter: question.filter(turn),
    })
  }
  return [
    {
      series: 'client API',
      case: question.case,
      async run() {
        const order = await orders()
        const path = '/slipway.hub.v1.MachineService/ListMachines'
        const schema = hub.ListMachinesRequestSchema
        return time((turn) => raw.call(path, schema, create(schema, order(turn))))
      },
    },
    {
      series: 'client library',
      case: question.case,
      async run() {
        const order = await orders()
        return time((turn) => slipway.client.machines.listMachines(order(turn)))
      },
    },
    {
      series: 'SQL alone',
      case: question.case,
      run: () =>
        time((turn) =>
          pool.query(
            `select * from machines where name > '${strides === undefined ? '' : machineName(strides(turn) * stride - 1)}' and ${question.where(turn)}
             ${question.where(turn).includes('state') ? '' : "and state <> 'GONE'"} order by name limit ${pageSize + 1}`,
          ),
        ),
    },
  ]
}

function goals(): Goal[] {
  return questions(1_000_000)
    .slice(2)
    .map(({ case: of }) => ({
      text: `first page of ${of}: p99 under 20 ms`,
      series: 'client API',
      case: of,
      metric: 'page p99 ms',
      atMost: 20,
    }))
}

export const list: Benchmark = {
  name: 'list',
  title: 'Lists of a million machines',
  about:
    'Pages of 100 of 1,000,000 machines of 50 providers, one call at a time: through the client API by a caller that leaves the answers as they come, by the client library, which makes messages of them, and in SQL alone. Labels are of the provider and of people; a selector sees both. Far from the median it is garbage collection that is seen, at either end: a tenth of what a call takes outlives it, held by generators of the library beneath both, and every 35 pages or so a process stands still to move that.',
  goals: goals(),
  charts: [{ metric: 'page p99 ms', title: 'A page of 100, p99, ms' }],
  async prepare(bed) {
    const slipway = await BenchHub.start(bed)
    const count = bed.size(1_000_000, 3_000)
    await load(slipway.databaseUrl, count)
    const pool = bed.pool(slipway.databaseUrl, 1)
    const raw = new RawCaller(slipway.url, slipway.token)
    return {
      contenders: questions(count).flatMap((question) => contenders(bed, slipway, raw, pool, question)),
      close() {
        raw.close()
        return Promise.resolve()
      },
    }
  },
}
