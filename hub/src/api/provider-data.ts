import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { createRequire } from 'node:module'
import type { FormatsPlugin } from 'ajv-formats'
import { HubError, type ErrorReason, type FieldViolation } from '../domain/error/errors.js'
import type { JsonObject } from '../domain/facts.js'

const maxCompiled = 200
const maxViolations = 20

const addFormats = createRequire(import.meta.url)('ajv-formats') as FormatsPlugin
const compiled = new Map<string, ValidateFunction>()

/**
 * Checks a value against a provider's JSON Schema. Keys that the schema does not name are errors, unless it says that it takes more.
 *
 * @param schemaText empty: the provider takes nothing, or has not told yet.
 * @param known false: the provider has not told yet; nothing can be checked.
 * @throws HubError of the given reason, naming each field.
 */
export function checkAgainstSchema(
  schemaText: string,
  value: JsonObject,
  order: { readonly field: string; readonly reason: ErrorReason; readonly provider: string; readonly known: boolean },
): void {
  if (!order.known) return
  const violations = schemaText === '' ? unexpected(value, order.field) : violationsOf(schemaText, value, order.field)
  if (violations.length === 0) return
  const text = violations.map((violation) => `${violation.field}: ${violation.description}`).join('; ')
  throw new HubError(order.reason, `provider ${order.provider} does not take this: ${text}`, {
    violations,
    metadata: { provider: order.provider },
  })
}

function unexpected(value: JsonObject, field: string): FieldViolation[] {
  return Object.keys(value).map((key) => ({
    field: `${field}.${key}`,
    description: 'is not known; the provider takes nothing here: leave it out',
  }))
}

function violationsOf(schemaText: string, value: JsonObject, field: string): FieldViolation[] {
  const validate = compile(schemaText)
  if (validate(value)) return []
  return (validate.errors ?? []).slice(0, maxViolations).map((error) => {
    const path = `${field}${error.instancePath.replaceAll('/', '.')}`
    const params = error.params as Readonly<Record<string, unknown>>
    if (error.keyword === 'additionalProperties' || error.keyword === 'unevaluatedProperties') {
      const key = (params['additionalProperty'] ?? params['unevaluatedProperty'] ?? '') as string
      return { field: `${path}.${key}`, description: 'is not known; leave it out, or mind its spelling' }
    }
    if (error.keyword === 'required')
      return { field: `${path}.${String(params['missingProperty'])}`, description: 'is missing; give it' }
    const choices =
      error.keyword === 'enum' && Array.isArray(params['allowedValues'])
        ? `: ${(params['allowedValues'] as unknown[]).map(String).join(', ')}`
        : ''
    return { field: path, description: `${error.message ?? 'is wrong'}${choices}` }
  })
}

function compile(schemaText: string): ValidateFunction {
  const known = compiled.get(schemaText)
  if (known !== undefined) return known
  const schema = JSON.parse(schemaText) as Record<string, unknown>
  if (
    schema['additionalProperties'] === undefined &&
    schema['unevaluatedProperties'] === undefined &&
    schema['type'] === 'object'
  ) {
    schema['additionalProperties'] = false
  }
  const ajv = new Ajv2020({ strict: false, allErrors: true, addUsedSchema: false })
  addFormats(ajv)
  const validate = ajv.compile(schema)
  if (compiled.size >= maxCompiled) compiled.delete(compiled.keys().next().value ?? '')
  compiled.set(schemaText, validate)
  return validate
}
