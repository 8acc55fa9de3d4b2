// What is done to a vendor's description before it may be kept: see describe.mjs. Pure functions.

const methods = ['get', 'post', 'put', 'delete']
/** Words for people, and hints for documentation tools. */
const prose = new Set(['description', 'example', 'examples', 'title', 'summary', 'deprecated', 'externalDocs'])
/** Formats that are checked; the others say nothing that the type does not. */
const formats = new Set(['date-time'])

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * Brings the description to what the API has been since the date of each change, as the vendor's changelog tells it.
 *
 * - 2026-07-01: `datacenter` is gone from servers and primary IPs, in answers and in orders.
 * - 2026: `rebuild` takes user data.
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
  const rebuild = description.paths['/servers/{id}/actions/rebuild'].post.requestBody.content['application/json']
  const body = resolve(description, rebuild.schema)
  body.properties.user_data ??= { type: 'string' }
  return description
}

/** The operations named (`GET /servers`), what they refer to, and nothing else, as OpenAPI 3.1. @throws Error for an operation that is not described. */
export function reduce(description, operations) {
  const paths = {}
  for (const operation of operations) {
    const [method = '', path = ''] = operation.split(' ')
    const described = description.paths[path]?.[method.toLowerCase()]
    if (!methods.includes(method.toLowerCase()) || described === undefined) throw new Error(`${operation} is not described`)
    paths[path] ??= {}
    paths[path][method.toLowerCase()] = operationOf(description.paths[path], described)
  }
  const schemas = {}
  const keep = (value) => {
    if (Array.isArray(value)) value.forEach(keep)
    if (!isObject(value)) return
    const name = /^#\/components\/schemas\/(.+)$/.exec(value.$ref ?? '')?.[1]
    if (name !== undefined && schemas[name] === undefined) {
      schemas[name] = schemaOf(description.components.schemas[name])
      keep(schemas[name])
    }
    Object.values(value).forEach(keep)
  }
  keep(paths)
  const sorted = Object.fromEntries(Object.entries(schemas).sort(([a], [b]) => (a < b ? -1 : 1)))
  const info = { title: 'Hetzner Cloud API, operations in use', version: String(description.info.version) }
  return { openapi: '3.1.0', info, paths, components: { schemas: sorted } }
}

function operationOf(pathItem, { operationId, parameters = [], requestBody, responses }) {
  const all = [...(pathItem.parameters ?? []), ...parameters]
  return {
    operationId,
    ...(all.length > 0 && {
      parameters: all.map(({ name, in: place, required = false, schema }) => {
        return { name, in: place, required, schema: schemaOf(schema) }
      }),
    }),
    ...(requestBody !== undefined && { requestBody: { required: requestBody.required ?? false, ...contentOf(requestBody) } }),
    responses: Object.fromEntries(
      // 4xx is how the vendor writes it, and 4XX what the standard asks for.
      Object.entries(responses).map(([status, response]) => [status.toUpperCase(), { description: '', ...contentOf(response) }]),
    ),
  }
}

function contentOf({ content }) {
  const schema = content?.['application/json']?.schema
  return schema === undefined ? {} : { content: { 'application/json': { schema: schemaOf(schema) } } }
}

/** A schema without prose, and with the null of OpenAPI 3.1 in place of `nullable`. */
export function schemaOf(schema) {
  if (!isObject(schema)) return schema
  const { nullable, properties, items, allOf, anyOf, oneOf, additionalProperties, format, ...rest } = schema
  const kept = Object.fromEntries(Object.entries(rest).filter(([key]) => !prose.has(key) && !key.startsWith('x-')))
  const plain = {
    ...kept,
    ...(formats.has(format) && { format }),
    ...(properties && { properties: Object.fromEntries(Object.entries(properties).map(([name, each]) => [name, schemaOf(each)])) }),
    ...(items && { items: schemaOf(items) }),
    ...(allOf && { allOf: allOf.map(schemaOf) }),
    ...(anyOf && { anyOf: anyOf.map(schemaOf) }),
    ...(oneOf && { oneOf: oneOf.map(schemaOf) }),
    ...(additionalProperties !== undefined && { additionalProperties: schemaOf(additionalProperties) }),
  }
  if (nullable !== true) return plain
  const lone = allOf?.length === 1 && Object.keys(plain).length === 1 ? plain.allOf[0] : plain
  if (typeof plain.type !== 'string') return { anyOf: [lone, { type: 'null' }] }
  const orNull = plain.enum ? { enum: [...new Set([...plain.enum, null])] } : {}
  return { ...plain, ...orNull, type: [plain.type, 'null'] }
}

function resolve(description, schema) {
  const name = /^#\/components\/schemas\/(.+)$/.exec(schema.$ref ?? '')?.[1]
  return name === undefined ? schema : description.components.schemas[name]
}
