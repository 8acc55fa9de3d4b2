import { randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { readConfig } from '../src/config.js'
import { startHub, type Hub } from '../src/hub.js'
import { createLogger } from '../src/observe/log.js'
import { readKeyring } from '../src/secrets/keys.js'
import { plantCanaries } from './planting.js'
import { tellingTeardown } from './teardown.js'
import { secretPart, Witness } from './witness.js'
import { withDatabase, type TestDatabase } from './database.js'

export interface TestHub {
  readonly hub: Hub
  readonly database: TestDatabase
  /** The first client token; empty where the database, given by `DATABASE_URL`, has one already. */
  readonly token: string
  /** Every line of its log so far. */
  readonly log: readonly string[]
  /** Looks on, and fails the test where a secret turns up in what the hub logs, writes or answers. */
  readonly witness: Witness
  /** Starts one more replica on the same database. */
  readonly another: () => Promise<Omit<TestHub, 'another'>>
}

/**
 * A whole hub in this process, on a fresh database and free ports, stopped with its test. Whatever secrets it was given or has made, and canaries that are planted once the test is over, are
 * looked for in its log, its rows and its answers.
 */
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
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const secrets = { text: env['SLIPWAY_KEY'] ?? randomBytes(32).toString('hex'), transit: undefined }
  const witness = new Witness()
  witness.needles.add('the key-encryption key', secrets.text)
  const logs: string[][] = []
  tellingTeardown(t, async () => {
    for (const lines of logs) witness.search('the log', lines.join(''))
    await witness.searchDatabase(database.db, await readKeyring(secrets.text, []))
    witness.finish()
  })
  let replicas = 0
  const another = async () => {
    const log: string[] = []
    logs.push(log)
    const logger = createLogger({ level: 'debug', destination: { write: (line) => log.push(line) } })
    // Replicas of one process have to be told apart all the same.
    const hub = await startHub({ ...config, replica: `replica-${++replicas}` }, secrets, logger, {
      interceptors: [witness.interceptor],
    })
    t.teardown(() => hub.stop())
    const token = existsSync(tokenFile) ? readFileSync(tokenFile, 'utf8').trim() : ''
    witness.needles.add('the first token', secretPart(token))
    return { hub, database, token, log, witness }
  }
  const first = await another()
  t.teardown(() => plantCanaries(first.hub.apiUrl, first.token))
  return { ...first, another }
}
