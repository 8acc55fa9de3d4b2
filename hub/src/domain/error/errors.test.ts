import { readFileSync } from 'node:fs'
import t from 'tap'
import { errorCatalogue, HubError } from './errors.js'

void t.test('the catalogue and its page say the same', async (t) => {
  const page = readFileSync(new URL('../../../../../docs/errors.md', import.meta.url), 'utf8')
  const rows = [...page.matchAll(/^\| `([A-Z_]+)` \| ([A-Z_]+) \| (.+) \|$/gm)].map(([, reason, status, meaning]) => [
    reason,
    status,
    meaning,
  ])
  const catalogue = Object.entries(errorCatalogue).map(([reason, [status, meaning]]) => [reason, status, meaning])
  t.strictSame(rows, catalogue)
  t.equal(new HubError('NAME_TAKEN', 'x').status, 'ALREADY_EXISTS')
})
