import { decideExpiry } from '../../domain/host/expiry.js'
import { hostName, hostSetName } from '../../domain/names.js'
import { appendEvents, hubCause } from '../../store/events.js'
import { lockDueExpiries, nextExpiryInMs, saveExpiry, type DueHost } from '../../store/host-expiry.js'
import { moveHost } from '../../store/hosts.js'
import type { Tx } from '../../store/database.js'
import { startController, type Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'
import type { Loop } from '../loop.js'

const leaseMs = 15_000
const batch = 100
/** A host that is made or changed meanwhile, to end soon, waits no longer than this. */
const longestRestMs = 1_000

/** Releases hosts whose time is over, and warns before: in one replica at a time, by the database's clock, each under its row's lock. */
export function startExpiry(deps: ReconcilerDeps): Loop {
  return startController(deps, {
    name: 'expiry',
    leaseMs,
    round: async (turn) => {
      const looked = await lookAtExpiries(deps, turn)
      if (looked === batch) return 0
      return Math.min(longestRestMs, (await nextExpiryInMs(deps.db)) ?? longestRestMs)
    },
  })
}

/** One look at the hosts that are due. @returns how many there were. */
export async function lookAtExpiries(deps: Pick<ReconcilerDeps, 'wake'>, turn: Pick<Turn, 'write'>): Promise<number> {
  const { looked, released } = await turn.write(async (tx) => {
    const due = await lockDueExpiries(tx, batch)
    let released = 0
    for (const host of due) released += (await lookAt(tx, host)) ? 1 : 0
    return { looked: due.length, released }
  })
  if (released > 0) deps.wake.signal({ kind: 'host' })
  if (looked > 0) deps.wake.signal({ kind: 'change' })
  return looked
}

/** @returns whether it is released now. */
async function lookAt(tx: Tx, { row, now }: DueHost): Promise<boolean> {
  const decision = decideExpiry(
    {
      state: row.state,
      protected: row.protected,
      expiresAt: row.expires_at,
      createdAt: row.created_at,
      conditions: row.conditions,
    },
    now,
  )
  await saveExpiry(tx, row, decision)
  if (decision.release) await moveHost(tx, row, 'RELEASING', decision.message, true)
  if (decision.news !== undefined)
    await appendEvents(tx, hubCause, [
      {
        subject: hostName(row.workspace_name, row.name),
        related: row.host_set_name === null ? [] : [hostSetName(row.workspace_name, row.host_set_name)],
        reason: decision.news,
        message: decision.message,
        severity: decision.news === 'HostExpired' ? 'INFO' : 'WARNING',
        organizationId: row.organization_id,
      },
    ])
  return decision.release
}
