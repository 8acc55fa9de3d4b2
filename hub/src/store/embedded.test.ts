import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import t from 'tap'
import { startEmbeddedDatabase } from './embedded.js'

/** Writes rows as fast as it can, and says of each when it was acknowledged. */
const writer = `
const { startEmbeddedDatabase } = await import(process.argv[1])
const { default: pg } = await import('pg')
const database = await startEmbeddedDatabase(process.argv[2])
const client = new pg.Client({ connectionString: database.connectionString })
client.on('error', () => undefined)
await client.connect()
await client.query('create table if not exists rows (id bigint primary key)')
process.stdout.write('pid ' + database.pid + '\\n')
const { rows: [{ last }] } = await client.query('select coalesce(max(id), 0)::int as last from rows')
for (let id = last + 1; ; id++) {
  await client.query('insert into rows values ($1)', [id])
  process.stdout.write(id + '\\n')
}
`

function isAlive(pid: number): boolean {
  return existsSync(`/proc/${pid}`) && !/State:\s+Z/.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
}

async function until(check: () => boolean): Promise<boolean> {
  const deadline = performance.now() + 20_000
  while (!check()) {
    if (performance.now() > deadline) return false
    await sleep(20)
  }
  return true
}

void t.test('the embedded database', { timeout: 120_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-embedded-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const script = new URL('./embedded.js', import.meta.url).href

  for (const [round, alsoPostgres] of [false, true, true].entries()) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', writer, script, folder], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let said = ''
    child.stdout.on('data', (data: Buffer) => (said += data.toString()))
    t.ok(await until(() => said.split('\n').length > 60), 'rows are written')
    const pid = Number(/pid (\d+)/.exec(said)?.[1])
    const postmaster = Number(readFileSync(join(folder, 'cluster/postmaster.pid'), 'utf8').split('\n')[0])
    const exit = once(child, 'exit')
    child.kill('SIGKILL')
    if (alsoPostgres) for (const victim of [pid, postmaster]) process.kill(victim, 'SIGKILL')
    await exit
    t.ok(await until(() => !isAlive(postmaster)), 'it does not outlive its hub')
    const acknowledged = Number(
      said
        .trim()
        .split('\n')
        .filter((line) => /^\d+$/.test(line))
        .at(-1),
    )
    const database = await startEmbeddedDatabase(folder)
    const client = new pg.Client({ connectionString: database.connectionString })
    await client.connect()
    const { rows } = await client.query<{ count: number }>('select count(*)::int as count from rows')
    t.ok((rows[0]?.count ?? 0) >= acknowledged, `round ${round}: all ${acknowledged} acknowledged rows are there`)
    t.equal((await client.query('show fsync')).rows[0].fsync, 'on')
    await client.end()
    if (round === 0) {
      await t.rejects(
        startEmbeddedDatabase(folder),
        /is in use by another hub: its database is process \d+/,
        'a folder has one owner',
      )
    }
    await database.stop()
    t.notOk(existsSync(join(folder, 'cluster/postmaster.pid')), 'and stops in good order')
  }
})
