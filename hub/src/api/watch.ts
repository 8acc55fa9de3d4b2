import type { HandlerContext } from '@connectrpc/connect'
import { ChangeType } from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import { decodeRevision, encodeRevision, readConsistently, refuseCompacted, reviveRow } from '../store/changes.js'
import type { Db, Tx } from '../store/database.js'
import type { ChangeRow, WatchedResource } from '../store/tables.js'
import { visibleAmong } from '../store/scopes.js'
import { databaseOf, scopesOfCall, type ApiDeps } from './context.js'
import type { Feed } from './feed.js'

/** How many resources a message carries at most. */
const chunk = 200
const existingPage = 1_000

const changeTypes = { CREATED: ChangeType.CREATED, UPDATED: ChangeType.UPDATED, DELETED: ChangeType.DELETED } as const

export interface WatchMessage<Row> {
  readonly changes: readonly { readonly type: ChangeType; readonly row: Row }[]
  readonly revision: string
  readonly synced: boolean
}

export interface WatchOrder<Row> {
  readonly resource: WatchedResource
  readonly revision: string
  readonly matches: (row: Row) => boolean
  /** Pages through what exists: the next rows after the last one of the page before. */
  readonly existing: (tx: Tx, last: Row | undefined, limit: number) => Promise<readonly Row[]>
}

/** Ends when the caller goes, and with DRAINING when this replica does. */
export interface WatchParts {
  readonly deps: ApiDeps
  readonly feed: Feed<ChangeRow>
  readonly draining: AbortSignal
}

/** What exists, where no revision is given, and then every change after it, in commit order, once. */
export async function* watchResources<Row extends { readonly id: string }>(
  parts: WatchParts,
  context: HandlerContext,
  order: WatchOrder<Row>,
): AsyncGenerator<WatchMessage<Row>> {
  const { deps, feed } = parts
  const signal = AbortSignal.any([context.signal, parts.draining])
  let from
  if (order.revision === '') {
    const { rows, revision } = await readExisting(databaseOf(deps, context), order)
    const text = encodeRevision(deps.epoch, revision)
    for (let index = 0; index < rows.length; index += chunk) {
      const changes = rows.slice(index, index + chunk).map((row) => ({ type: ChangeType.EXISTING, row }))
      yield { changes, revision: text, synced: index + chunk >= rows.length }
    }
    if (rows.length === 0) yield { changes: [], revision: text, synced: true }
    from = revision
  } else {
    from = decodeRevision(deps.epoch, order.revision)
    await refuseCompacted(deps.db, 'changes', from)
  }
  for await (const batch of feed.watch(from, signal, deps.config.watchHeartbeatMs)) {
    const told = batch.rows
      .filter((change) => change.resource === order.resource)
      .map((change) => ({ type: changeTypes[change.op], row: reviveRow<Row>(change.doc) }))
      .filter(({ row }) => order.matches(row))
    const changes = await visibleOf(deps, context, order.resource, told)
    // Several changes of one commit go in one message, as far as they came in one batch.
    if (changes.length > 0 || batch.rows.length === 0) yield { changes, revision: batch.revision, synced: false }
  }
  if (parts.draining.aborted)
    throw new HubError('DRAINING', 'this replica is shutting down; resume on another one', { retryAfterMs: 100 })
}

/** What all watchers are told together is looked up again for each that may not see everything. */
async function visibleOf<Change extends { readonly row: { readonly id: string } }>(
  deps: ApiDeps,
  context: HandlerContext,
  resource: WatchedResource,
  changes: readonly Change[],
): Promise<readonly Change[]> {
  const scopes = scopesOfCall(context)
  if (scopes === undefined || changes.length === 0) return changes
  const ids = [...new Set(changes.map(({ row }) => row.id))]
  const visible = await visibleAmong(databaseOf(deps, context), resource, ids, scopes)
  return changes.filter(({ row }) => visible.has(row.id))
}

async function readExisting<Row>(db: Db, order: WatchOrder<Row>) {
  return readConsistently(db, async (tx, revision) => {
    const rows: Row[] = []
    for (;;) {
      const page = await order.existing(tx, rows.at(-1), existingPage)
      rows.push(...page)
      if (page.length < existingPage) return { rows, revision }
    }
  })
}
