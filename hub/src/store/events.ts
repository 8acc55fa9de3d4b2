import { sql, type RawBuilder } from 'kysely'
import { v7 as uuid } from 'uuid'
import type { EventDraft } from '../domain/facts.js'
import type { Db } from './database.js'
import { rowsAs } from './rows.js'

/** Who causes a change, for its events. */
export interface Cause {
  /** `token/{id}`, `provider/{name}` or `hub`. */
  readonly actor: string
  /** Of the call that caused it; empty where none did. */
  readonly requestId: string
  /** Of a call: what the audit log says of it, but for the resource that it changed. Absent: what the hub does of its own accord is in the timelines alone. */
  readonly audit?: AuditedCall
}

/** A call as the audit log knows it. */
export interface AuditedCall {
  /** The same for all that it changes in one transaction: that is one entry. */
  readonly id: string
  /** Resource name of who calls. */
  readonly principal: string
  readonly tokenId: string
  /** The address that the call came from. */
  readonly source: string
  readonly method: string
}

export const hubCause: Cause = { actor: 'hub', requestId: '' }

/** The id of an event that a statement makes itself: a UUID of version 7, as all are. */
export const newEventId = sql.raw(
  `(lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid`,
)

/** Appends lines to timelines, in the transaction of the change that they tell of. */
export async function appendEvents(db: Db, cause: Cause, drafts: readonly EventDraft[]): Promise<void> {
  await appendAll(
    db,
    drafts.map((draft) => ({ cause, draft })),
  )
}

/** Appends lines of several causes, in order. */
export async function appendAll(
  db: Db,
  lines: readonly { readonly cause: Cause; readonly draft: EventDraft }[],
): Promise<void> {
  if (lines.length === 0) return
  const rows = lines.map(({ cause, draft }) => ({
    event_id: uuid(),
    subject: draft.subject,
    related: draft.related ?? [],
    provider_id: draft.providerId ?? null,
    organization_id: draft.organizationId ?? null,
    reason: draft.reason,
    message: draft.message,
    severity: draft.severity,
    actor: cause.actor,
    request_id: cause.requestId,
  }))
  await sql`/* append-events */ ${audited(lines)}
    insert into events (event_id, subject, related, provider_id, organization_id, reason, message, severity, actor, request_id)
    select event_id, subject, related, provider_id, organization_id, reason, message, severity, actor, request_id
    from ${rowsAs('e (event_id uuid, subject text, related text[], provider_id uuid, organization_id uuid, reason text, message text, severity text, actor text, request_id text)', rows)}
  `.execute(db)
}

/** The entries of the audit log that go with some lines, in the same statement: one for each call, about the first thing that it tells of. */
function audited(lines: readonly { readonly cause: Cause; readonly draft: EventDraft }[]): RawBuilder<unknown> {
  const entries = new Map<string, object>()
  for (const { cause, draft } of lines) {
    const { audit } = cause
    if (audit === undefined || entries.has(audit.id)) continue
    entries.set(audit.id, {
      id: audit.id,
      organization_id: draft.organizationId ?? null,
      principal: audit.principal,
      token_id: audit.tokenId,
      source: audit.source,
      method: audit.method,
      resource: draft.subject,
      request_id: cause.requestId,
    })
  }
  if (entries.size === 0) return sql``
  return sql`
    with audited as (
      insert into audit_entries (id, organization_id, principal, token_id, source, method, resource, result, request_id)
      select id, organization_id, principal, token_id, source, method, resource, 'OK', request_id
      from ${rowsAs('a (id uuid, organization_id uuid, principal text, token_id text, source text, method text, resource text, request_id text)', [...entries.values()])}
      on conflict (xid, id) do nothing
    )`
}
