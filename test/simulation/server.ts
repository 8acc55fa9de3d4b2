import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbeddedDatabase } from '@slipway/hub/testing/simulation'
import type { Test } from 'tap'

/** A PostgreSQL for tests: the one that is given, or an embedded one that ends with the test. Its connection string. */
export async function startServer(t: Test): Promise<string> {
  const given = process.env['SLIPWAY_TEST_DATABASE_URL'] ?? ''
  if (given !== '') return given
  const folder = mkdtempSync(join(tmpdir(), 'slipway-simulation-'))
  const database = await startEmbeddedDatabase(folder)
  t.teardown(async () => {
    await database.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  return database.connectionString
}
