import { v7 as uuid } from 'uuid'
import type { EventDraft } from '../domain/facts.js'
import type { Db } from './database.js'

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
  if (drafts.length === 0) return
  await db
    .insertInto('events')
    .values(
      drafts.map((draft) => ({
        event_id: uuid(),
        subject: draft.subject,
        related: [...(draft.related ?? [])],
        provider_id: draft.providerId ?? null,
        organization_id: draft.organizationId ?? null,
        reason: draft.reason,
        message: draft.message,
        severity: draft.severity,
        actor: cause.actor,
        request_id: cause.requestId,
      })),
    )
    .execute()
}
