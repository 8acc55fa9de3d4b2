import { setTimeout as sleep } from 'node:timers/promises'
import { causeOf, last, type Injector } from './effect.js'

const relayName = 'slipway-hub relay'

/** SIGKILL to the postmaster: its children die of it, and the next one recovers. */
export const killPostgres: Injector = ending('SIGKILL')
/** An immediate restart: no checkpoint, connections cut. */
export const restartPostgres: Injector = ending('SIGQUIT')
/** A fast stop that lasts. */
export const stopPostgres: Injector = ending('SIGINT')

function ending(how: NodeJS.Signals): Injector {
  return async ({ postgres }, fault, signal) => {
    const { pid, starts, running } = postgres
    await postgres.end(how, causeOf(fault))
    await last(fault.durationMs, signal)
    await postgres.start()
    const restarted = running && postgres.starts > starts && postgres.pid !== pid
    return { effective: restarted, evidence: `postmaster ${pid} was followed by ${postgres.pid}` }
  }
}

/** Ends one connection of a hub, in whatever it does. */
export const terminateBackend: Injector = async ({ postgres }, fault, signal) => {
  const ended = await postgres.query<{ pid: number }>(
    `select pid from pg_stat_activity where application_name = 'slipway-hub'
     order by (state <> 'idle') desc, query_start desc limit 1`,
  )
  const rows = await postgres.query<{ done: boolean }>(
    `select pg_terminate_backend(pid) as done from unnest($1::int[]) as pid`,
    [ended.map(({ pid }) => pid)],
  )
  await last(fault.durationMs, signal)
  return { effective: rows.some(({ done }) => done), evidence: `backend ${ended[0]?.pid ?? 'none'} terminated` }
}

/** A writing transaction of somebody else that stays open: it holds all watchers back. */
export const longTransaction: Injector = async ({ postgres }, fault, signal) => {
  const client = await postgres.connect()
  try {
    await client.query('create table if not exists somebody_else (id int)')
    await client.query('begin')
    await client.query('insert into somebody_else values (1)')
    const { rows } = await client.query<{ xid: string }>('select pg_current_xact_id()::text as xid')
    await last(fault.durationMs, signal)
    await client.query('rollback')
    return { effective: true, evidence: `transaction ${rows[0]?.xid ?? ''} was open for ${fault.durationMs} ms` }
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** Somebody else's lock on the hosts. */
export const lockHosts: Injector = async ({ postgres }, fault, signal) => {
  const client = await postgres.connect()
  try {
    await client.query('begin')
    await client.query('lock table hosts in exclusive mode')
    await last(fault.durationMs, signal)
    const waiting = await postgres.query<{ count: number }>(
      `select count(*)::int as count from pg_stat_activity where application_name = 'slipway-hub' and wait_event_type = 'Lock'`,
    )
    await client.query('rollback')
    const count = waiting[0]?.count ?? 0
    return { effective: count > 0, evidence: `${count} statements waited` }
  } finally {
    await client.end().catch(() => undefined)
  }
}

/** Not a block is left. PostgreSQL panics where it cannot write its log; it is started again once there is room. */
export const fillDisk: Injector = async ({ postgres }, fault, signal) => {
  const { starts } = postgres
  postgres.expectEnd(causeOf(fault))
  let left = postgres.fillDisk()
  const deadline = performance.now() + fault.durationMs
  // Log segments that are given back are taken again.
  while (performance.now() < deadline && !signal.aborted) {
    await last(200, signal)
    left = Math.min(left, postgres.fillDisk())
  }
  const survived = postgres.running
  postgres.freeDisk()
  await postgres.start()
  const fate = survived ? 'it stayed up' : `it ended, and was started again (${postgres.starts - starts})`
  return { effective: left < 8_192, evidence: `${left} bytes were left; ${fate}` }
}

/** The connections that carry wake-ups are ended as soon as they are there. */
export const killRelay: Injector = async ({ postgres }, fault, signal) => {
  const client = await postgres.connect()
  let ended = 0
  try {
    const deadline = performance.now() + fault.durationMs
    while (performance.now() < deadline && !signal.aborted) {
      const { rowCount } = await client.query(
        'select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1',
        [relayName],
      )
      ended += rowCount ?? 0
      await sleep(100)
    }
  } finally {
    await client.end().catch(() => undefined)
  }
  return { effective: ended > 0, evidence: `${ended} connections for wake-ups ended` }
}
