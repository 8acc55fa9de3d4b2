import { randomUUID } from 'node:crypto'
import {
  applyWorkEntries,
  claimDueItems,
  inTransaction,
  migrate,
  openDatabase,
  settleItems,
  type Db,
} from '@slipway/hub/testing'
import { Logger, makeWorkerUtils, run as runWorker } from 'graphile-worker'
import PgBoss from 'pg-boss'
import { query, type Bed } from '../harness/bed.js'
import type { Benchmark, Contender, Sample } from '../harness/benchmark.js'

// Claiming and completing alone, with no network before it: what the hub's own statements cost beside the same by hand, and beside job queues.

const workers = 10

/** Claims and completes one batch, and says how many there were. */
type Turn = (worker: number) => Promise<number>

async function drain(jobs: number, turn: Turn): Promise<Sample> {
  const start = performance.now()
  let done = 0
  await Promise.all(
    Array.from({ length: workers }, async (_, worker) => {
      let idle = 0
      while (done < jobs && idle < 1_000) {
        const count = await turn(worker)
        done += count
        idle = count === 0 ? idle + 1 : 0
      }
    }),
  )
  if (done < jobs) throw new Error(`only ${done} of ${jobs} were there to be claimed`)
  return { 'jobs/s': (jobs / (performance.now() - start)) * 1_000 }
}

/**
 * Ends filling, once the connection that did it has ended: what it leaves to be done would be done beside what is measured next, and more of it the wider the rows are. So it
 * is written out here; and rows that PostgreSQL counts only after the tables were vacuumed would call for its autovacuum.
 */
async function endFilling(url: string, tables: string): Promise<void> {
  await query(url, `vacuum analyze ${tables}`, 'checkpoint')
}

/** Ids as the hub makes them, UUIDs of version 7: each behind the one before it. */
const timeOrderedId = (index: string) =>
  `(lpad(to_hex(1700000000000 + ${index}), 12, '0') || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid`

async function rawSql(bed: Bed): Promise<(batch: number) => Contender> {
  const url = await bed.freshDatabase()
  const pool = bed.pool(url, workers)
  await pool.query(`
    create table jobs (
      id uuid primary key, due_at timestamptz, session_id uuid, fence bigint not null default 0, claimed_at timestamptz
    ) with (fillfactor = 70)`)
  await pool.query(`create index jobs_due on jobs (due_at) where session_id is null and due_at is not null`)
  const session = randomUUID()
  const turn = async (batch: number) => {
    const { rows } = await pool.query<{ id: string; fence: string }>({
      name: 'claim',
      text: `with due as (
               select id from jobs where session_id is null and due_at is not null and due_at <= clock_timestamp()
               order by due_at limit $2 for update skip locked
             )
             update jobs set session_id = $1, fence = fence + 1, claimed_at = clock_timestamp() from due where jobs.id = due.id
             returning jobs.id, jobs.fence`,
      values: [session, batch],
    })
    if (rows.length === 0) return 0
    await pool.query({
      name: 'complete',
      text: `update jobs set session_id = null, due_at = null from unnest($2::uuid[], $3::bigint[]) as d (id, fence)
             where jobs.id = d.id and jobs.session_id = $1 and jobs.fence = d.fence`,
      values: [session, rows.map(({ id }) => id), rows.map(({ fence }) => fence)],
    })
    return rows.length
  }
  const jobs = jobCount(bed)
  return (batch) => ({
    series: 'raw SQL',
    case: `batch ${batch}`,
    async run() {
      await query(
        url,
        'truncate jobs',
        `insert into jobs (id, due_at) select ${timeOrderedId('n')}, now() from generate_series(1, ${jobs(batch)}) n`,
      )
      await endFilling(url, 'jobs')
      return drain(jobs(batch), () => turn(batch))
    },
  })
}

/** So many that what is done once for each connection does not count. */
const jobCount = (bed: Bed) => (batch: number) => bed.size(batch === 1 ? 4_000 : batch === 10 ? 20_000 : 60_000, 200)

/** Fills a hub's database with requests that are due, without the triggers, which would only make it slow. */
async function fillHub(url: string, providerId: string, sessions: readonly string[], jobs: number): Promise<void> {
  await query(
    url,
    `set session_replication_role = replica`,
    `truncate work_items, machine_requests, machines, sessions, host_schedule, changes, events, steps`,
    `insert into providers (id, name, family, kind, state) values ('${providerId}', 'bench', 'bench', 'DYNAMIC', 'CONNECTED') on conflict do nothing`,
    ...sessions.map(
      (
        id,
      ) => `insert into sessions (id, provider_id, instance_id, instance_name, replica, sdk, provider_version, certificate_serial, capacity, expires_at)
      values ('${id}', '${providerId}', gen_random_uuid(), 'bench', 'bench', 'bench', '0', '00', 1000, now() + interval '1 hour')`,
    ),
    `insert into work_items (provider_id, id, kind, fence, sent_generation, due_at)
     select '${providerId}', ${timeOrderedId('n')}, 'MACHINE_REQUEST', 1, 1, now() from generate_series(1, ${jobs}) n`,
    `insert into machine_requests (provider_id, id, name, provider_name, organization_id, workspace_name, host_id, host_name, class_id, class_name, state, external_name, ownership_key, spec)
     select provider_id, id, 'r-' || id, 'bench', '00000000-0000-7000-8000-000000000001', 'default', gen_random_uuid(), 'workspaces/default/hosts/h', id, 'small',
            'PROVISIONING', 'h', 'k/' || id, '{"shape": {"vcpus": 2}}' from work_items`,
  )
  await endFilling(url, 'work_items, machine_requests, sessions, machines, host_schedule')
}

async function ofHub(bed: Bed): Promise<(batch: number, report: boolean) => Contender> {
  const url = await bed.freshDatabase()
  const db = openDatabase({ connectionString: url, poolSize: workers })
  bed.onClose(() => db.destroy())
  await migrate(db)
  const providerId = randomUUID()
  const sessions = Array.from({ length: workers }, () => randomUUID())
  const jobs = jobCount(bed)
  return (batch, report) => ({
    series: 'hub',
    case: `batch ${batch}${report ? ', with a report each' : ''}`,
    async run() {
      await fillHub(url, providerId, sessions, jobs(batch))
      return drain(jobs(batch), (worker) =>
        claimAndSettle(db, { providerId, sessionId: sessions[worker] ?? '', batch, report }),
      )
    },
  })
}

/** Claims as the dispatcher does, and lets go as holders do. */
async function claimAndSettle(
  db: Db,
  turn: { readonly providerId: string; readonly sessionId: string; readonly batch: number; readonly report: boolean },
): Promise<number> {
  const { providerId, sessionId, batch, report } = turn
  const { items } = await claimDueItems(db, [{ sessionId, providerId, credit: batch }])
  if (items.length === 0) return 0
  const common = ({ id, fence }: (typeof items)[number]) => ({
    sessionId,
    providerId,
    providerName: 'bench',
    itemId: id,
    fence,
  })
  const settled = items.map((item) => ({
    ...common(item),
    body: { kind: 'settled' as const, generation: item.generation },
  }))
  const reports = items.map((item) => {
    const observed = {
      generation: item.generation,
      presence: 'PRESENT',
      externalId: `x-${item.id}`,
      power: 'ON',
    } as const
    const completed = { operation: 'PROVISION', operationGeneration: 1 } as const
    return { ...common(item), body: { kind: 'report' as const, report: { observed, completed } } }
  })
  const { results } = report
    ? await inTransaction(db, (tx) => applyWorkEntries(tx, [...reports, ...settled], new Date()), undefined, {
        readsFirst: true,
      })
    : await settleItems(db, settled)
  const refused = results.find((result) => !result.ok)
  if (refused !== undefined) throw new Error(JSON.stringify(refused))
  return items.length
}

async function graphileWorker(bed: Bed): Promise<(local: boolean) => Contender> {
  const connectionString = await bed.freshDatabase()
  const pool = bed.pool(connectionString, workers + 2)
  const logger = new Logger(() => () => undefined)
  const utils = await makeWorkerUtils({ pgPool: pool, logger })
  bed.onClose(() => Promise.resolve(utils.release()))
  await utils.migrate()
  const jobs = jobCount(bed)
  return (local) => ({
    series: 'graphile-worker',
    case: `batch ${local ? 100 : 1}`,
    async run() {
      const count = jobs(local ? 100 : 1)
      await query(
        connectionString,
        `select graphile_worker.add_jobs(array(select row('noop', '{}', null, null, null, null, null, null)::graphile_worker.job_spec from generate_series(1, ${count})))`,
      )
      await endFilling(connectionString, 'graphile_worker._private_jobs')
      let done = 0
      let finished: () => void = () => undefined
      const all = new Promise<void>((resolve) => (finished = resolve))
      const start = performance.now()
      const runner = await runWorker({
        pgPool: pool,
        logger,
        noHandleSignals: true,
        taskList: { noop: () => void (++done === count && finished()) },
        preset: {
          worker: {
            concurrentJobs: workers,
            ...(local && { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }),
          },
        },
      })
      await all
      const elapsed = performance.now() - start
      await runner.stop()
      return { 'jobs/s': (count / elapsed) * 1_000 }
    },
  })
}

async function pgBoss(bed: Bed): Promise<(batch: number) => Contender> {
  const connectionString = await bed.freshDatabase()
  const boss = new PgBoss({
    connectionString,
    max: workers,
    schedule: false,
    supervise: false,
  })
  boss.on('error', () => undefined)
  await boss.start()
  bed.onClose(() => boss.stop({ graceful: false, wait: true }))
  return (batch) => ({
    series: 'pg-boss',
    case: `batch ${batch}`,
    async run(round) {
      const queue = `q${batch}-${round}`
      await boss.createQueue(queue)
      const jobs = bed.size(batch === 1 ? 1_000 : 30_000, 100)
      await boss.insert(Array.from({ length: jobs }, () => ({ name: queue, data: {} })))
      await endFilling(connectionString, 'pgboss.job')
      const sample = await drain(jobs, async () => {
        const fetched = await boss.fetch(queue, { batchSize: batch })
        if (fetched.length === 0) return 0
        await boss.complete(
          queue,
          fetched.map(({ id }) => id),
        )
        return fetched.length
      })
      return sample
    },
  })
}

const batch100 = { case: 'batch 100', metric: 'jobs/s', series: 'hub' } as const

export const claim: Benchmark = {
  name: 'claim',
  title: 'Claim and complete',
  about:
    "The hub's own statements for claiming and for settling, under leases and fences, beside the least that does the same by hand (`FOR UPDATE SKIP LOCKED`), and beside job queues on the same PostgreSQL; ten at a time; what filling leaves to be done is done before. graphile-worker takes jobs singly (batch 1), or through its local queue of 500 with completion in batches (batch 100). With a report each: the holder also says that its machine exists, which makes a machine, events, and changes.",
  goals: [
    { ...batch100, text: 'two thirds of raw SQL at batch 100', of: 'raw SQL', atLeast: 0.667 },
    { ...batch100, text: 'ahead of graphile-worker with its local queue', of: 'graphile-worker', atLeast: 1 },
    { ...batch100, text: 'ahead of pg-boss at batch 100', of: 'pg-boss', atLeast: 1 },
  ],
  charts: [{ metric: 'jobs/s', title: 'Claimed and completed per second' }],
  async prepare(bed) {
    const [raw, hub, graphile, boss] = [
      await rawSql(bed),
      await ofHub(bed),
      await graphileWorker(bed),
      await pgBoss(bed),
    ]
    return {
      contenders: [
        ...[raw(1), hub(1, false), graphile(false), boss(1)],
        ...[raw(10), hub(10, false)],
        ...[raw(100), hub(100, false), graphile(true), boss(100)],
        hub(100, true),
      ],
      close: async () => undefined,
    }
  },
}
