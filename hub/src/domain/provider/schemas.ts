import { Ajv2020 } from 'ajv/dist/2020.js'
import { HubError } from '../error/errors.js'

/** Bounds on what a provider may send as a schema: compiling one generates code, so an untrusted schema is kept small and plain. */
const maxSchemaBytes = 256 * 1024
const maxDepth = 24

/**
 * Checks that JSON Schemas that a provider sent can be used: JSON, draft 2020-12, of bounded size and depth, with no reference to elsewhere.
 *
 * @param schemas JSON text by the name to complain about; empty text is fine.
 * @throws HubError SCHEMA_INVALID.
 */
export function checkSchemas(schemas: Readonly<Record<string, string>>): void {
  for (const [field, text] of Object.entries(schemas)) {
    if (text === '') continue
    const problem = problemOf(text)
    if (problem === undefined) continue
    throw new HubError('SCHEMA_INVALID', `${field}: ${problem}`, {
      violations: [{ field: `hello.${field}`, description: problem }],
    })
  }
}

function problemOf(text: string): string | undefined {
  if (Buffer.byteLength(text) > maxSchemaBytes) return `is over ${maxSchemaBytes} bytes; make it smaller`
  let schema: unknown
  try {
    schema = JSON.parse(text)
  } catch {
    return 'is not JSON; send the schema as JSON text'
  }
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return 'must be a JSON object'
  const foreign = foreignReference(schema, 0)
  if (foreign !== undefined) return foreign
  const ajv = new Ajv2020({ strict: false, validateSchema: true, addUsedSchema: false })
  if (ajv.validateSchema(schema) === true) return undefined
  return `is not a valid draft 2020-12 schema: ${ajv.errorsText(ajv.errors)}`
}

function foreignReference(value: unknown, depth: number): string | undefined {
  if (depth > maxDepth) return `is nested deeper than ${maxDepth} levels`
  if (typeof value !== 'object' || value === null) return undefined
  for (const [key, child] of Object.entries(value)) {
    if ((key === '$ref' || key === '$dynamicRef') && typeof child === 'string' && !child.startsWith('#')) {
      return `refers to ${child}; only references within the schema are allowed`
    }
    const found = foreignReference(child, depth + 1)
    if (found !== undefined) return found
  }
  return undefined
}
