import type { HandlerContext } from '@connectrpc/connect'
import { refusalOf, type ClaimOccasion, type Pool } from '../domain/pool/pool.js'
import { inTransaction } from '../store/database.js'
import { appendEvents, type Cause } from '../store/events.js'
import { claimEvent, claimFromPool, findPool, readOpenPools, type OpenPools } from '../store/pools.js'
import type { WorkspaceRow } from '../store/tables.js'
import { causeOf, type ApiDeps } from './context.js'

// What a workspace gets of pools by itself, when it is created or places an order.

/** Pools that a workspace gets a provider of now, in the order of their names. */
export function poolsFor(
  open: OpenPools | undefined,
  occasion: ClaimOccasion | undefined,
): readonly (Pool & { readonly free: boolean })[] {
  return open?.pools.filter((pool) => refusalOf(pool, open.claimant, occasion) === undefined) ?? []
}

/**
 * Claims a provider of the first of these pools that has one left.
 *
 * @returns the pool; undefined: none of them has any.
 */
export async function claimFirst(
  deps: ApiDeps,
  cause: Cause,
  workspace: Pick<WorkspaceRow, 'id' | 'organization_id' | 'name'>,
  pools: readonly Pool[],
  why: string,
): Promise<Pool | undefined> {
  for (const pool of pools) {
    const claimed = await inTransaction(deps.db, async (tx) => {
      const row = await findPool(tx, pool.name)
      if (row === undefined) return false
      const result = await claimFromPool(tx, row, workspace)
      if (result.kind === 'exhausted') return false
      if (result.fresh)
        await appendEvents(tx, cause, [
          claimEvent(result.provider, workspace, 'ProviderClaimed', `Claimed of pool ${pool.name} ${why}`),
        ])
      return true
    })
    if (claimed) {
      deps.wake.signal({ kind: 'change' })
      return pool
    }
  }
  return undefined
}

/** Claims what a workspace that was just created is to have. Where nothing is left, or it cannot be done now, its orders ask again. */
export async function claimForNew(deps: ApiDeps, context: HandlerContext, workspace: WorkspaceRow): Promise<void> {
  try {
    const pools = poolsFor((await readOpenPools(deps.db, [workspace.name])).get(workspace.name), undefined)
    // Each pool is another family or region: it gets one of each.
    for (const pool of pools) await claimFirst(deps, causeOf(context), workspace, [pool], 'with its creation')
  } catch (error) {
    deps.log.warn({ err: error, workspace: workspace.name }, 'nothing could be claimed for a new workspace')
  }
}
