// What is done to the vendor's description before its structure may be kept: see describe.mjs.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'

const methods = ['get', 'post', 'put', 'delete']
/** Words for people, and hints for documentation tools. */
const prose = new Set(['description', 'example', 'examples', 'title', 'summary', 'deprecated', 'externalDocs'])
/** Formats that are checked; the others say nothing that the type does not. */
const formats = new Set(['date-time'])
const fileName = 'hcloud-official-apievangelist.yml'

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)

/** The vendor's description, a copy of https://docs.hetzner.cloud/cloud.spec.json brought to OpenAPI 3.0. @throws Error where the folder does not hold it. */
export function readFull(folder) {
  return parse(readFileSync(join(folder, fileName), 'utf8'))
}

/**
 * Brings the description to what the API has been since the vendor's change of 2026-07-01: `datacenter` is gone from servers and primary IPs,
 * in answers and in orders.
 */
export function amend(full) {
  const description = structuredClone(full)
  const drop = (schema) => {
    if (Array.isArray(schema)) return schema.forEach(drop)
    if (!isObject(schema)) return
    if (isObject(schema.properties)) {
      delete schema.properties.datacenter
      if (Array.isArray(schema.required)) schema.required = schema.required.filter((name) => name !== 'datacenter')
    }
    Object.values(schema).forEach(drop)
  }
  drop(description)
  return description
}

/**
 * The operations named (`GET /servers`) and nothing else, as OpenAPI 3.1. The vendor repeats every schema in full wherever it occurs: `schemas` says,
 * for a name, where to find it, as `[operation, status, ...properties]`, and whatever equals it refers to it.
 *
 * @throws Error for an operation or a schema that is not described.
 */
export function reduce(description, operations, schemas = {}) {
  const paths = {}
  for (const operation of operations) {
    const [method = '', path = ''] = operation.split(' ')
    const described = description.paths[path]?.[method.toLowerCase()]
    if (!methods.includes(method.toLowerCase()) || !described) throw new Error(`${operation} is not described`)
    paths[path] ??= {}
    paths[path][method.toLowerCase()] = operationOf(described)
  }
  const info = {
    title: 'Hetzner Cloud API: structure of the operations in use',
    version: String(description.info.version),
  }
  const reduced = { openapi: '3.1.0', info, paths, components: { schemas: {} } }
  for (const [name, place] of Object.entries(schemas)) hoist(reduced, name, place)
  return reduced
}

/** Makes a schema of its own of whatever equals the one in a place. Inner ones must come first. */
function hoist(reduced, name, [operation, status, ...properties]) {
  const [method, path] = operation.split(' ')
  const { requestBody, responses } = reduced.paths[path][method.toLowerCase()]
  const holder = status === 'request' ? requestBody : responses[status]
  let schema = holder?.content['application/json'].schema
  for (const property of properties) schema = property === '[]' ? schema?.items : schema?.properties?.[property]
  if (schema === undefined) throw new Error(`schema ${name}: nothing at ${operation} ${status} ${properties.join('.')}`)
  const plain = structuredClone(notNull(schema))
  const same = JSON.stringify(plain)
  const sameOrNull = JSON.stringify(orNull(structuredClone(plain)))
  const ref = { $ref: `#/components/schemas/${name}` }
  const replaced = (value) => {
    if (Array.isArray(value)) return value.map(replaced)
    if (!isObject(value)) return value
    const text = JSON.stringify(value)
    if (text === same) return ref
    if (text === sameOrNull) return { anyOf: [ref, { type: 'null' }] }
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, replaced(each)]))
  }
  reduced.paths = replaced(reduced.paths)
  reduced.components.schemas = { ...replaced(reduced.components.schemas), [name]: plain }
}

function operationOf({ operationId, parameters = [], requestBody, responses }) {
  return {
    operationId,
    ...(parameters.length > 0 && {
      parameters: parameters.map(({ name, in: place, required = false, schema }) => {
        return { name, in: place, required, schema: schemaOf(schema) }
      }),
    }),
    ...(requestBody && { requestBody: { required: requestBody.required ?? false, ...contentOf(requestBody) } }),
    responses: Object.fromEntries(
      Object.entries(responses).map(([status, response]) => {
        // 4xx is how the vendor writes it, and 4XX what the standard asks for.
        return [status.toUpperCase(), { description: '', ...contentOf(response) }]
      }),
    ),
  }
}

function contentOf({ content }) {
  const schema = content?.['application/json']?.schema
  return schema === undefined ? {} : { content: { 'application/json': { schema: schemaOf(schema) } } }
}

/** A schema without prose, in a fixed order, and with the null of OpenAPI 3.1 in place of `nullable`. */
export function schemaOf(schema) {
  if (Array.isArray(schema)) return schema.map(schemaOf)
  if (!isObject(schema)) return schema
  const { nullable, properties, format, enum: values, required, ...rest } = schema
  const kept = Object.entries(rest)
    .filter(([key]) => !prose.has(key) && !key.startsWith('x-'))
    .map(([key, value]) => [key, key === 'default' ? value : schemaOf(value)])
  const plain = {
    ...Object.fromEntries(kept.sort(([a], [b]) => (a < b ? -1 : 1))),
    ...(values && { enum: [...values] }),
    ...(formats.has(format) && { format }),
    ...(properties && {
      properties: Object.fromEntries(
        Object.entries(properties)
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([name, each]) => [name, schemaOf(each)]),
      ),
    }),
    ...(required && { required: [...required].sort() }),
  }
  return nullable === true ? orNull(plain) : plain
}

function orNull(schema) {
  if (typeof schema.type !== 'string') return { anyOf: [schema, { type: 'null' }] }
  return { ...schema, ...(schema.enum && { enum: [...schema.enum, null] }), type: [schema.type, 'null'] }
}

function notNull(schema) {
  if (!Array.isArray(schema.type)) return schema
  return {
    ...schema,
    ...(schema.enum && { enum: schema.enum.filter((value) => value !== null) }),
    type: schema.type[0],
  }
}
