import { releaseReasonOf } from '../../domain/pool/pool.js'
import { appendEvents, hubCause } from '../../store/events.js'
import { countLeft, holdPlacing, releaseClaim, sweepClaims } from '../../store/pools.js'
import { lockProvider } from '../../store/providers.js'
import { startController, type Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'
import type { Loop } from '../loop.js'

const leaseMs = 15_000
const defaultRestMs = 10_000

const reasons = {
  WORKSPACE_DELETED: 'the workspace was deleted',
  TRIAL_OVER: 'the time to try it is over',
  IDLE: 'it was empty for long enough',
} as const

/** Gives providers of pools back whose workspaces are gone or have left them empty, as their pool says: one replica at a time. */
export function startReleasingClaims(deps: ReconcilerDeps, restMs = defaultRestMs): Loop {
  return startController(deps, {
    name: 'pool-release',
    leaseMs,
    round: async (turn) => {
      await releaseDue(deps, turn)
      return restMs
    },
  })
}

/** One look at all that is claimed. */
export async function releaseDue(deps: Pick<ReconcilerDeps, 'wake'>, turn: Pick<Turn, 'write'>): Promise<void> {
  const { claims, now } = await turn.write((tx) => sweepClaims(tx))
  for (const claim of claims) {
    const reason = releaseReasonOf(claim, now)
    if (reason === undefined) continue
    await turn.write(async (tx) => {
      await holdPlacing(tx)
      const provider = await lockProvider(tx, claim.providerName)
      if (provider === undefined || provider.claim_workspace_id === null) return
      // Looked at once more, now that nothing can come to it.
      if ((await countLeft(tx, provider.id)) > 0) return
      await appendEvents(tx, hubCause, await releaseClaim(tx, provider, reasons[reason]))
    })
    // Others may be waiting for it.
    deps.wake.signal({ kind: 'change' }, { kind: 'host' })
  }
}
