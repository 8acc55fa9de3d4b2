import type { EventDraft } from '../domain/facts.js'
import { orphanName, resourceName } from '../domain/names.js'
import type { OrphanRow } from './tables.js'

type Shown = Pick<OrphanRow, 'provider_id' | 'provider_name' | 'name' | 'kind' | 'external_id' | 'external_name'>

/** An orphan in words: what it is, its id out there, and its name there. */
export function orphanText({ kind, external_id: id, external_name: name }: Shown): string {
  return name === '' ? `${kind} ${id}` : `${kind} ${id} (${name})`
}

/** A line for the timelines of an orphan and its provider. */
export function orphanEvent(
  row: Shown,
  reason: EventDraft['reason'],
  severity: EventDraft['severity'],
  message: string,
): EventDraft {
  return {
    subject: orphanName(row.provider_name, row.name),
    related: [resourceName('provider', row.provider_name)],
    reason,
    severity,
    message,
    providerId: row.provider_id,
  }
}
