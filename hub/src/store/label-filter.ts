import { sql, type RawBuilder } from 'kysely'
import { parseLabelSelector, type LabelRequirement, type LabelSelector } from '../domain/selector.js'

/**
 * A label selector as conditions on a jsonb expression. None where the selector is empty.
 *
 * @param known what is already certain of all rows, as `key=value`.
 * @throws HubError INVALID_LABEL_SELECTOR.
 */
export function labelConditions(
  labels: RawBuilder<unknown>,
  selector: string,
  known: readonly string[] = [],
): RawBuilder<boolean>[] {
  const requirements = parseLabelSelector(selector)
  // All labels that are to have one value are one containment: the index looks the rarest of them up, and not each by itself.
  const exact = exactLabels(requirements)
  const others = requirements.filter((requirement) => soleValue(requirement) === undefined)
  const open = exact.filter(([key, value]) => !known.includes(`${key}=${value}`))
  return [
    ...(open.length > 0 ? [contains(labels, Object.fromEntries(open))] : []),
    ...contradictions(exact),
    ...others.map((requirement) => condition(labels, requirement)),
  ]
}

/** The labels that are to have one value, each with that value. @throws HubError INVALID_LABEL_SELECTOR. */
export function labelsWanted(selector: string): readonly (readonly [string, string])[] {
  return exactLabels(parseLabelSelector(selector))
}

function exactLabels(requirements: LabelSelector): readonly (readonly [string, string])[] {
  return requirements.flatMap((requirement): [string, string][] => {
    const value = soleValue(requirement)
    return value === undefined ? [] : [[requirement.key, value]]
  })
}

function soleValue(requirement: LabelRequirement): string | undefined {
  return requirement.kind === 'in' && requirement.values.length === 1 ? requirement.values[0] : undefined
}

/** A label has one value: where a selector asks for two of them, nothing matches. */
function contradictions(exact: readonly (readonly [string, string])[]): RawBuilder<boolean>[] {
  const values = new Map<string, string>()
  for (const [key, value] of exact) {
    if ((values.get(key) ?? value) !== value) return [sql<boolean>`false`]
    values.set(key, value)
  }
  return []
}

function contains(labels: RawBuilder<unknown>, wanted: Readonly<Record<string, string>>): RawBuilder<boolean> {
  return sql<boolean>`${labels} @> ${JSON.stringify(wanted)}::jsonb`
}

function condition(labels: RawBuilder<unknown>, requirement: LabelRequirement): RawBuilder<boolean> {
  switch (requirement.kind) {
    case 'exists':
      return sql<boolean>`${labels} ? ${requirement.key}`
    case 'absent':
      return sql<boolean>`not (${labels} ? ${requirement.key})`
    case 'in':
      // Containments, which the index serves.
      return sql<boolean>`(${sql.join(
        requirement.values.map((value) => contains(labels, { [requirement.key]: value })),
        sql` or `,
      )})`
    case 'not-in':
      return sql<boolean>`coalesce(not (${labels} ->> ${requirement.key} = any(${[...requirement.values]}::text[])), true)`
  }
}
