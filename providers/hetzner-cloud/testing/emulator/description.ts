import { readFileSync } from 'node:fs'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'

interface Parameter {
  readonly name: string
  readonly in: 'path' | 'query'
  readonly required: boolean
  readonly schema: Schema
}
type Schema = { readonly [key: string]: unknown }
interface Body {
  readonly content?: { readonly 'application/json': { readonly schema: Schema } }
}
interface DescribedOperation {
  readonly operationId: string
  readonly parameters?: readonly Parameter[]
  readonly requestBody?: Body & { readonly required: boolean }
  readonly responses: Readonly<Record<string, Body>>
}
/** An OpenAPI 3.1 description, as tools/describe.mjs writes it. */
export interface Description {
  readonly paths: Readonly<Record<string, Readonly<Record<string, DescribedOperation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> }
}

/** An operation of the description, with what checks its requests and answers. */
export interface Operation {
  /** `GET /servers/{id}`. */
  readonly name: string
  /** What is wrong with a request; empty: nothing. */
  readonly refusesRequest: (request: CheckedRequest) => readonly string[]
  /** What is wrong with an answer; empty: nothing. */
  readonly refusesAnswer: (status: number, body: unknown) => readonly string[]
}

export interface CheckedRequest {
  readonly path: Readonly<Record<string, string>>
  readonly query: URLSearchParams
  /** undefined: it has none. */
  readonly body: unknown
}

export interface Match {
  readonly operation: Operation
  readonly path: Readonly<Record<string, string>>
}

/** The description that is committed with the provider. */
export function committedDescription(): Description {
  const file = new URL('../../../description/hetzner-cloud.json', import.meta.url)
  return JSON.parse(readFileSync(file, 'utf8')) as Description
}

/** Finds operations and checks what is said in them: what is not described is wrong, on both sides. */
export class Checker {
  readonly operations: readonly string[]
  readonly #routes: readonly { readonly method: string; readonly pattern: RegExp; readonly operation: Operation }[]
  readonly #ajv: Ajv2020
  readonly #schemas: Description['components']['schemas']

  constructor(description: Description) {
    this.#ajv = new Ajv2020({ strict: false, allErrors: true })
    addFormats.default(this.#ajv)
    this.#schemas = closed(description.components.schemas) as Description['components']['schemas']
    this.#ajv.addSchema({ $id: 'api', components: { schemas: this.#schemas } })
    const described = Object.entries(description.paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
    )
    // `/servers/actions` must be tried before `/servers/{id}`.
    described.sort((a, b) => Number(a.path.includes('{')) - Number(b.path.includes('{')))
    this.operations = described.map(({ path, method }) => `${method} ${path}`)
    this.#routes = described.map(({ path, method, operation }) => ({
      method,
      pattern: new RegExp(`^${path.replace(/\{(\w+)\}/g, '(?<$1>[^/]+)')}$`),
      operation: this.#operation(`${method} ${path}`, operation),
    }))
  }

  /** @param path below the API's root, without the query. @returns undefined where there is no such path or no such method on it. */
  match(method: string, path: string): Match | undefined {
    for (const route of this.#routes) {
      if (route.method !== method) continue
      const found = route.pattern.exec(path)
      if (found !== null) return { operation: route.operation, path: { ...found.groups } }
    }
    return undefined
  }

  #operation(name: string, { parameters = [], requestBody, responses }: DescribedOperation): Operation {
    const body = this.#validator(requestBody)
    const inQuery = new Map(parameters.filter((each) => each.in === 'query').map((each) => [each.name, each]))
    const checks = new Map(parameters.map((each) => [each.name, this.#ajv.compile(rebased(closed(each.schema)))]))
    const answers = new Map(Object.entries(responses).map(([status, each]) => [status, this.#validator(each)]))
    const checkValue = (parameter: Parameter, values: readonly string[]): readonly string[] => {
      const check = checks.get(parameter.name)
      const value = typed(parameter.schema, values)
      return check === undefined || check(value) ? [] : [`${parameter.name}: ${this.#ajv.errorsText(check.errors)}`]
    }
    return {
      name,
      refusesRequest: (request) => [
        ...[...new Set(request.query.keys())].filter((key) => !inQuery.has(key)).map((key) => `${key}: not described`),
        ...parameters.flatMap((parameter) => {
          const value = parameter.in === 'path' ? request.path[parameter.name] : undefined
          const values = parameter.in === 'path' ? [value ?? ''] : request.query.getAll(parameter.name)
          if (values.length === 0) return parameter.required ? [`${parameter.name}: missing`] : []
          return checkValue(parameter, values)
        }),
        ...this.#bodyFaults(body, request.body),
      ],
      refusesAnswer: (status, answer) => {
        const family = `${Math.floor(status / 100)}XX`
        const key = [String(status), family].find((each) => answers.has(each))
        if (key === undefined) return [`status ${status}: not described`]
        return this.#bodyFaults(answers.get(key), answer)
      },
    }
  }

  #bodyFaults(check: ValidateFunction | undefined, body: unknown): readonly string[] {
    if (check === undefined) return body === undefined ? [] : ['body: not described']
    return check(body) ? [] : [`body: ${this.#ajv.errorsText(check.errors)}`]
  }

  #validator(body: Body | undefined): ValidateFunction | undefined {
    const schema = body?.content?.['application/json'].schema
    return schema === undefined ? undefined : this.#ajv.compile(rebased(closed(schema)))
  }
}

/** A schema under which whatever is not described is wrong. */
function closed(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closed)
  if (typeof schema !== 'object' || schema === null) return schema
  const copy = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closed(value)]))
  const isOpen = copy['properties'] === undefined || copy['additionalProperties'] !== undefined
  return isOpen ? copy : { ...copy, additionalProperties: false }
}

/** References go to the one place where the named schemas are. */
function rebased(schema: unknown): Schema {
  const text = JSON.stringify(schema).replaceAll('"#/components/', '"api#/components/')
  return JSON.parse(text) as Schema
}

/** A parameter's text as what its schema says it is. */
function typed(schema: Schema, values: readonly string[]): unknown {
  if (schema['type'] === 'array') return values.map((value) => typed(schema['items'] as Schema, [value]))
  const [text = ''] = values
  if (schema['type'] === 'integer' || schema['type'] === 'number') return /^-?\d+$/.test(text) ? Number(text) : text
  if (schema['type'] === 'boolean') return text === 'true' ? true : text === 'false' ? false : text
  return text
}
