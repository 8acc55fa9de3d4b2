import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import type * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField, type ErrorReason } from '../domain/error/errors.js'
import { parseOrphanName, parseResourceName } from '../domain/names.js'
import type { KeepReason } from '../domain/orphan/orphan.js'
import { databaseTime, inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import {
  findOrphan,
  isBeingRemoved,
  keepByPerson,
  listOrphans,
  lockOrphan,
  orderByPerson,
  type OrphanListFilter,
  type ShownOrphan,
} from '../store/orphans.js'
import type { OrphanRow } from '../store/tables.js'
import { causeOf, checkEtag, databaseOf, decodePageToken, pageSize, readPage, type ApiDeps } from './context.js'
import { namesOf } from './convert.js'
import { orphanKeepReasonNumbers, orphanStateNumbers, toOrphan } from './orphan-resources.js'

/** What a person is answered where even they cannot have an orphan removed. */
const refusals: Partial<Record<KeepReason, ErrorReason>> = {
  FOREIGN_HUB: 'ORPHAN_NOT_OURS',
  KEY_UNREADABLE: 'ORPHAN_NOT_OURS',
  REQUEST_LIVE: 'ORPHAN_IN_USE',
  ADOPTION: 'ORPHAN_NOT_OURS',
  REMOVAL_UNSUPPORTED: 'ORPHAN_REMOVAL_UNSUPPORTED',
}

function orphanNotFound(name: string): HubError {
  return new HubError(
    'ORPHAN_NOT_FOUND',
    `there is no orphan ${name}, or it is gone; \`slipway get orphans\` lists them`,
    {
      metadata: { orphan: name },
    },
  )
}

function filterOf(parent: string, filter: hub.OrphanFilter | undefined): OrphanListFilter {
  const provider = parseResourceName('provider', parent, 'parent')
  return {
    provider: provider === '-' ? '' : provider,
    families: filter?.families ?? [],
    kinds: filter?.kinds ?? [],
    states: namesOf(orphanStateNumbers, filter?.states ?? []),
    keepReasons: namesOf(orphanKeepReasonNumbers, filter?.keepReasons ?? []),
  }
}

export function orphanService(deps: ApiDeps): ServiceImpl<typeof hub.OrphanService> {
  const judging = {
    hubId: deps.hubId,
    graceMs: deps.config.orphanGraceMs,
    restoreGraceMs: deps.config.orphanRestoreGraceMs,
  }
  const read = async (context: HandlerContext, name: string): Promise<ShownOrphan> => {
    const { provider, id } = parseOrphanName(name)
    const row = await findOrphan(databaseOf(deps, context), provider, id)
    if (row === undefined) throw orphanNotFound(name)
    return row
  }
  const withOrphan = async (
    context: HandlerContext,
    request: { readonly name: string; readonly etag: string },
    work: (tx: Tx, row: OrphanRow) => Promise<void>,
  ): Promise<{ orphan: hub.Orphan }> => {
    const { provider, id } = parseOrphanName(request.name)
    const row = await inTransaction(databaseOf(deps, context), async (tx) => {
      const locked = await lockOrphan(tx, provider, id)
      if (locked === undefined) throw orphanNotFound(request.name)
      checkEtag(request.etag, locked, request.name)
      await work(tx, locked)
      const changed = await findOrphan(tx, provider, id)
      if (changed === undefined) throw orphanNotFound(request.name)
      return changed
    })
    deps.wake.signal({ kind: 'work', providerId: row.provider_id }, { kind: 'change' })
    return { orphan: toOrphan(row) }
  }
  return {
    async getOrphan(request, context) {
      return { orphan: toOrphan(await read(context, request.name)) }
    },

    async listOrphans(request, context) {
      const filter = filterOf(request.parent, request.filter)
      const list = JSON.stringify(['orphans', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listOrphans(tx, filter, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.id],
      })
      return { orphans: page.rows.map(toOrphan), nextPageToken: page.nextPageToken }
    },

    removeOrphan: (request, context) =>
      withOrphan(context, request, async (tx, row) => {
        if (request.confirmExternalId !== row.external_id)
          throw invalidField('confirm_external_id', `is not the external_id of ${request.name}; read it again`)
        const cause = causeOf(context)
        const ordered = await orderByPerson(tx, row, cause.actor, judging)
        if ('kept' in ordered) {
          const { reason, message } = ordered.kept
          throw new HubError(refusals[reason] ?? 'ORPHAN_IN_USE', `${request.name} cannot be removed: ${message}`)
        }
        await appendEvents(tx, cause, [ordered.event])
      }),

    keepOrphan: (request, context) =>
      withOrphan(context, request, async (tx, row) => {
        if (request.reason !== '' && isBeingRemoved(row, await databaseTime(tx)))
          throw new HubError(
            'ORPHAN_BEING_REMOVED',
            `${request.name} is being removed: its provider was told at ${row.removal_sent_at?.toISOString() ?? 'an earlier time'}`,
          )
        const cause = causeOf(context)
        await appendEvents(tx, cause, await keepByPerson(tx, row, cause.actor, request.reason, judging))
      }),
  }
}
