import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import type * as hub from '@slipway/proto/hub/v1'
import { HubError } from '../domain/error/errors.js'
import { parseResourceName } from '../domain/names.js'
import { decodeRevision, headRevision, refuseCompacted } from '../store/changes.js'
import { inTransaction } from '../store/database.js'
import { findEvent, listEvents, matchesEvent, type EventListFilter } from '../store/events-list.js'
import { schemaStatus } from '../store/migrate.js'
import { bindingsOf } from '../store/role-bindings.js'
import { recordPhoneHome } from '../store/phone-home.js'
import type { EventRow } from '../store/tables.js'
import { version } from '../version.js'
import { visibleAmong } from '../store/scopes.js'
import {
  callerKey,
  databaseOf,
  decodePageToken,
  identityOf,
  pageSize,
  readPage,
  scopesOfCall,
  type ApiDeps,
} from './context.js'
import { fromTime, namesOf, toTime } from './convert.js'
import type { Feed } from './feed.js'
import { eventNotFound } from './not-found.js'
import { toEvent } from './resources.js'
import { toBinding } from './tenancy-resources.js'

const severityNumbers = { INFO: 1, WARNING: 2, ERROR: 3 } as const

function filterOf(filter: hub.EventFilter | undefined): EventListFilter {
  return {
    subject: filter?.subject ?? '',
    severities: namesOf(severityNumbers, filter?.severities ?? []),
    reasons: filter?.reasons ?? [],
    since: fromTime(filter?.since),
  }
}

export function eventService(
  deps: ApiDeps,
  feed: Feed<EventRow>,
  draining: AbortSignal,
): ServiceImpl<typeof hub.EventService> {
  /** What all watchers are told together is looked up again for each that may not see everything. */
  const visibleEvents = async (context: HandlerContext, rows: readonly EventRow[]): Promise<readonly EventRow[]> => {
    const scopes = scopesOfCall(context)
    if (scopes === undefined || rows.length === 0) return rows
    const ids = rows.map((row) => row.event_id)
    const visible = await visibleAmong(databaseOf(deps, context), 'event', ids, scopes)
    return rows.filter((row) => visible.has(row.event_id))
  }
  return {
    async getEvent(request, context) {
      const id = parseResourceName('event', request.name)
      const row = /^[0-9a-f-]{36}$/.test(id) ? await findEvent(databaseOf(deps, context), id) : undefined
      if (row === undefined) throw eventNotFound(id)
      return { event: toEvent(row) }
    },

    async listEvents(request, context) {
      const filter = { ...filterOf(request.filter), within: scopesOfCall(context) }
      const list = JSON.stringify(['events', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) =>
          listEvents(tx, filter, after === undefined ? undefined : [String(after[0]), Number(after[1])], limit),
        keyOf: (row) => [row.xid, row.id],
      })
      return { events: page.rows.map(toEvent), nextPageToken: page.nextPageToken, revision: page.revision }
    },

    async *watchEvents(request, context) {
      const filter = filterOf(request.filter)
      const from = request.revision === '' ? await headRevision(deps.db) : decodeRevision(deps.epoch, request.revision)
      await refuseCompacted(deps.db, 'events', from)
      for await (const batch of feed.watch(
        from,
        AbortSignal.any([context.signal, draining]),
        deps.config.watchHeartbeatMs,
      )) {
        const told = batch.rows.filter((row) => matchesEvent(filter, row))
        const events = (await visibleEvents(context, told)).map(toEvent)
        if (events.length > 0 || batch.rows.length === 0) yield { events, revision: batch.revision }
      }
      if (draining.aborted)
        throw new HubError('DRAINING', 'this replica is shutting down; resume on another one', { retryAfterMs: 100 })
    },
  }
}

export function systemService(deps: ApiDeps): ServiceImpl<typeof hub.SystemService> {
  return {
    async getServerInfo(_request, context) {
      return {
        version,
        hubId: deps.hubId,
        replica: deps.replica,
        gatewayAddress: deps.config.gatewayAdvertise,
        caFingerprint: deps.authority.fingerprint,
        schemaVersion: (await schemaStatus(deps.db)).version,
        caller: context.values.get(callerKey).name,
        principal: identityOf(context).principal,
        roleBindings: (await bindingsOf(deps.db, identityOf(context).principalId)).map(toBinding),
      }
    },
  }
}

/** Takes a machine's first word, by whichever way it came. */
export async function phoneHome(
  deps: ApiDeps,
  token: string,
  hostname: string,
): Promise<{ readonly host: string; readonly at: Date }> {
  const heard = await inTransaction(deps.db, (tx) => recordPhoneHome(tx, token, { hostname }), 'phone-home')
  if (heard.first) deps.wake.signal({ kind: 'host' }, { kind: 'change' })
  return { host: heard.hostName, at: heard.at }
}

export function bootstrapService(deps: ApiDeps): ServiceImpl<typeof hub.BootstrapService> {
  return {
    async phoneHome(request) {
      const { host, at } = await phoneHome(deps, request.token, request.hostname)
      return { host, time: toTime(at) }
    },
  }
}
