import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { readConfig } from '../src/config.js'
import { startHub, type Hub } from '../src/hub.js'
import { createLogger } from '../src/observe/log.js'
import { withDatabase, type TestDatabase } from './database.js'

export interface TestHub {
  readonly hub: Hub
  readonly database: TestDatabase
  /** The first client token. */
  readonly token: string
  /** Every line of its log so far. */
  readonly log: readonly string[]
}

/** A whole hub in this process, on a fresh database and free ports, stopped with its test. */
export async function withHub(t: Test, env: Readonly<Record<string, string>> = {}): Promise<TestHub> {
  const database = await withDatabase(t)
  const folder = mkdtempSync(join(tmpdir(), 'slipway-hub-'))
  const tokenFile = join(folder, 'token')
  const config = readConfig(
    'serve',
    {
      listen: '127.0.0.1:0',
      'gateway-listen': '127.0.0.1:0',
      'bootstrap-token-file': tokenFile,
      sweep: '100ms',
      drain: '2s',
      'watch-heartbeat': '500ms',
    },
    { DATABASE_URL: database.url, ...env },
  )
  const log: string[] = []
  const hub = await startHub(
    config,
    randomBytes(32).toString('hex'),
    createLogger({ level: 'debug', destination: { write: (line) => log.push(line) } }),
  )
  t.teardown(async () => {
    await hub.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  return { hub, database, token: readFileSync(tokenFile, 'utf8').trim(), log }
}
