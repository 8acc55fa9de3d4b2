import type { Schema, SchemaIssue, Violation } from './types.js'

type JsonSchema = Record<string, unknown>

/** A schema as JSON Schema text for the hub; empty where there is none. Object schemas that leave it open refuse unknown keys. */
export function jsonSchemaText(schema: Schema<unknown> | undefined): string {
  return schema === undefined ? '' : JSON.stringify(jsonSchemaOf(schema))
}

/**
 * Checks a value from the hub against the author's schema.
 *
 * @param root the path of the value, for violations, for example `spec.provider_data`.
 */
export async function parseBySchema(
  schema: Schema<unknown> | undefined,
  value: Readonly<Record<string, unknown>>,
  root: string,
): Promise<{ readonly value: unknown } | { readonly violations: readonly Violation[] }> {
  const unknownKeys = schema === undefined ? Object.keys(value) : undeclaredKeys(jsonSchemaOf(schema), value)
  if (unknownKeys.length > 0) {
    return {
      violations: unknownKeys.map((key) => ({
        field: `${root}.${key}`,
        description: 'is not known to this provider; remove it',
      })),
    }
  }
  if (schema === undefined) return { value: {} }
  const result = await schema['~standard'].validate(value)
  if (result.issues === undefined) return { value: result.value }
  return { violations: result.issues.map((issue) => ({ field: fieldPath(root, issue), description: issue.message })) }
}

function fieldPath(root: string, issue: SchemaIssue): string {
  return (issue.path ?? []).reduce<string>((path, segment) => {
    const key = typeof segment === 'object' ? segment.key : segment
    return typeof key === 'number' ? `${path}[${key}]` : `${path}.${String(key)}`
  }, root)
}

function jsonSchemaOf(schema: Schema<unknown>): JsonSchema {
  return closed(schema['~standard'].jsonSchema.input({ target: 'draft-2020-12' }))
}

/** Schema libraries strip unknown keys and do not say so in the JSON Schema of their input; a misspelt key would be lost in silence. */
function closed(schema: JsonSchema): JsonSchema {
  const copy = { ...schema }
  for (const key of ['anyOf', 'oneOf', 'prefixItems']) {
    if (Array.isArray(copy[key])) copy[key] = copy[key].map((entry: unknown) => closedIfObject(entry))
  }
  for (const key of ['items', 'additionalProperties']) {
    if (isRecord(copy[key])) copy[key] = closed(copy[key])
  }
  const composed = ['allOf', 'anyOf', 'oneOf', '$ref', 'patternProperties', 'unevaluatedProperties'].some(
    (key) => key in copy,
  )
  if (copy['type'] !== 'object' || !isRecord(copy['properties'])) return copy
  copy['properties'] = Object.fromEntries(
    Object.entries(copy['properties']).map(([key, entry]) => [key, closedIfObject(entry)]),
  )
  if (!composed && !('additionalProperties' in copy)) copy['additionalProperties'] = false
  return copy
}

function closedIfObject(schema: unknown): unknown {
  return isRecord(schema) ? closed(schema) : schema
}

function undeclaredKeys(schema: JsonSchema, value: Readonly<Record<string, unknown>>): string[] {
  if (schema['additionalProperties'] !== false || !isRecord(schema['properties'])) return []
  const { properties } = schema
  return Object.keys(value).filter((key) => !Object.hasOwn(properties, key))
}

function isRecord(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
