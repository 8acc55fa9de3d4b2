import { sql } from 'kysely'
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
}

export const hubCause: Cause = { actor: 'hub', requestId: '' }

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
  await sql`/* append-events */
    insert into events (event_id, subject, related, provider_id, organization_id, reason, message, severity, actor, request_id)
    select event_id, subject, related, provider_id, organization_id, reason, message, severity, actor, request_id
    from ${rowsAs('e (event_id uuid, subject text, related text[], provider_id uuid, organization_id uuid, reason text, message text, severity text, actor text, request_id text)', rows)}
  `.execute(db)
}
