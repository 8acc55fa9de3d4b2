import type { Keyring } from '../../secrets/keyring.js'
import { rewrapPage, sealedColumns } from '../../store/sealed-values.js'
import { startController, type Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'
import type { Loop } from '../loop.js'

// Wraps every sealed value under the active key-encryption key. A pass goes through all of them by their keys, a page a transaction: one that breaks off is begun anew, and
// finds the less to do. While replicas with another active key are about, they go on sealing with theirs: so with more than one key, passes are repeated.

const leaseMs = 30_000
const pageSize = 200
const restMs = 24 * 3_600_000
const restWithSeveralKeysMs = 5 * 60_000

/** Wraps all sealed values under the active key, in whichever replica holds the lease. */
export function startRewrap(deps: ReconcilerDeps): Loop {
  return startController(deps, {
    name: 'rewrap',
    leaseMs,
    round: async (turn) => {
      const { rewrapped, failures } = await rewrapAll(turn, deps.keyring)
      const { activeKeyId, keyIds } = deps.keyring
      if (rewrapped > 0) deps.log.info({ rewrapped, activeKeyId }, 'sealed values are wrapped by the active key now')
      if (failures.length > 0)
        deps.log.error({ count: failures.length, first: failures[0] }, 'sealed values cannot be opened with these keys')
      return keyIds.length > 1 ? restWithSeveralKeysMs : restMs
    },
  })
}

/** One pass through everything that is sealed. */
export async function rewrapAll(
  turn: Pick<Turn, 'write'>,
  keyring: Keyring,
): Promise<{ readonly rewrapped: number; readonly failures: readonly string[] }> {
  let rewrapped = 0
  const failures: string[] = []
  for (const column of sealedColumns) {
    let after: readonly string[] | undefined
    do {
      const from = after
      const page = await turn.write((tx) => rewrapPage(tx, keyring, column, from, pageSize))
      rewrapped += page.rewrapped
      failures.push(...page.failures)
      after = page.last
    } while (after !== undefined)
  }
  return { rewrapped, failures }
}
