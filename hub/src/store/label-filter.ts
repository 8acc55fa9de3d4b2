import { sql, type RawBuilder } from 'kysely'
import { parseLabelSelector } from '../domain/selector.js'

/** A label selector as a condition on a jsonb expression. Nothing where the selector is empty. @throws HubError INVALID_LABEL_SELECTOR. */
export function labelConditions(labels: RawBuilder<unknown>, selector: string): RawBuilder<boolean>[] {
  return parseLabelSelector(selector).map((requirement) => {
    switch (requirement.kind) {
      case 'exists':
        return sql<boolean>`${labels} ? ${requirement.key}`
      case 'absent':
        return sql<boolean>`not (${labels} ? ${requirement.key})`
      case 'in':
        // One value is a containment, which the index serves.
        return requirement.values.length === 1
          ? sql<boolean>`${labels} @> ${JSON.stringify({ [requirement.key]: requirement.values[0] })}::jsonb`
          : sql<boolean>`${labels} ->> ${requirement.key} = any(${[...requirement.values]}::text[])`
      case 'not-in':
        return sql<boolean>`coalesce(not (${labels} ->> ${requirement.key} = any(${[...requirement.values]}::text[])), true)`
    }
  })
}
