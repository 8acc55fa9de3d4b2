import { randomUUID } from 'node:crypto'
import { createValidator, type Validator } from '@bufbuild/protovalidate'
import type { DescMessage, Message } from '@bufbuild/protobuf'
import type { Interceptor } from '@connectrpc/connect'
import type { Logger } from 'pino'
import { v7 as uuid } from 'uuid'
import { HubError } from '../domain/error/errors.js'
import { callerKey, nothing, sourceKey } from './access.js'
import type { Callers } from './callers.js'
import type { ApiDeps } from './context.js'
import { toConnectError } from './errors.js'
import { ruleOf } from './policy-table.js'
import { findUnstorable } from './unstorable.js'

// What every call passes: its id and its log line, the one funnel for errors, who calls, and the contract's field rules.

function requestIdOf(header: Headers): string {
  const given = header.get('x-request-id') ?? ''
  return /^[A-Za-z0-9._:-]{1,128}$/.test(given) ? given : randomUUID()
}

/** Gives each call an id, turns whatever is thrown into one sort of answer, and writes a line to the log. */
export function funnel(deps: ApiDeps): Interceptor {
  const { log } = deps
  return (next) => async (request) => {
    const requestId = requestIdOf(request.header)
    request.contextValues.set(callerKey, { tokenId: '', name: '', requestId, access: nothing })
    const started = performance.now()
    const method = `${request.service.typeName}/${request.method.name}`
    const fail = (thrown: unknown) => {
      const { error, defect } = toConnectError(thrown, requestId)
      report(log, {
        method,
        requestId,
        caller: request.contextValues.get(callerKey).name,
        started,
        thrown: defect ? thrown : undefined,
        outcome: error.rawMessage,
      })
      return error
    }
    try {
      const response = await next(request)
      response.header.set('x-request-id', requestId)
      if (!response.stream) {
        report(log, {
          method,
          requestId,
          caller: request.contextValues.get(callerKey).name,
          started,
          thrown: undefined,
          outcome: 'ok',
        })
        return response
      }
      return {
        ...response,
        message: guarded(response.message as AsyncIterable<Message>, fail) as typeof response.message,
      }
    } catch (thrown) {
      throw fail(thrown)
    }
  }
}

async function* guarded(messages: AsyncIterable<Message>, fail: (thrown: unknown) => Error): AsyncGenerator<Message> {
  try {
    yield* messages
  } catch (thrown) {
    throw fail(thrown)
  }
}

function report(
  log: Logger,
  call: {
    readonly method: string
    readonly requestId: string
    readonly caller: string
    readonly started: number
    readonly thrown: unknown
    readonly outcome: string
  },
): void {
  const line = {
    method: call.method,
    requestId: call.requestId,
    caller: call.caller,
    ms: Math.round(performance.now() - call.started),
  }
  if (call.thrown !== undefined) log.error({ ...line, err: call.thrown }, 'call failed')
  else if (call.outcome === 'ok') log.debug(line, 'call')
  else log.info({ ...line, outcome: call.outcome }, 'call refused')
}

/** Finds out who calls. A stream goes on for as long as that may hear it. */
export function authentication(callers: Callers): Interceptor {
  return (next) => async (request) => {
    if (ruleOf(request.service.typeName, request.method.name) === 'public') return next(request)
    const header = request.header.get('authorization') ?? ''
    const token = /^bearer +(\S+)$/i.exec(header)?.[1]
    if (token === undefined) throw new HubError('TOKEN_MISSING', 'send a client token: `authorization: Bearer swc_…`')
    const identity = await callers.identify(token)
    const { contextValues } = request
    contextValues.set(callerKey, {
      ...contextValues.get(callerKey),
      tokenId: identity.tokenId,
      name: identity.tokenName,
      identity,
      source: contextValues.get(sourceKey),
      auditId: uuid(),
    })
    const response = await next(request)
    if (!response.stream) return response
    const messages = callers.whileAllowed(identity, response.message as AsyncIterable<Message>)
    return { ...response, message: messages as typeof response.message }
  }
}

/** Holds messages to the rules that the contract states for their fields, and their texts to what can be kept. */
export function validation(): Interceptor {
  const validator = createValidator()
  return (next) => async (request) => {
    if (!request.stream) {
      checkMessage(validator, request.method.input, request.message)
      return next(request)
    }
    return next({
      ...request,
      message: checked(
        validator,
        request.method.input,
        request.message as AsyncIterable<Message>,
      ) as typeof request.message,
    })
  }
}

async function* checked(
  validator: Validator,
  schema: DescMessage,
  messages: AsyncIterable<Message>,
): AsyncGenerator<Message> {
  for await (const message of messages) {
    checkMessage(validator, schema, message)
    yield message
  }
}

function checkMessage(validator: Validator, schema: DescMessage, message: Message): void {
  const unstorable = findUnstorable(message)
  if (unstorable !== undefined) {
    const { field, description } = unstorable
    throw new HubError('INVALID_FIELD', `${field}: ${description}`, { violations: [{ field, description }] })
  }
  const result = validator.validate(schema, message)
  if (result.kind === 'valid') return
  if (result.kind === 'error') throw result.error
  const violations = result.violations.map((violation) => ({
    field: fieldPath(violation.field),
    description: violation.message,
  }))
  throw new HubError(
    'INVALID_FIELD',
    violations.map(({ field, description }) => `${field}: ${description}`).join('; '),
    { violations },
  )
}

/** A path like `host.labels["a b"]` or `filter.providers[0]`. */
function fieldPath(path: readonly object[]): string {
  return path
    .map((part) => {
      if ('kind' in part && part.kind === 'list_sub') return `[${String((part as unknown as { index: number }).index)}]`
      if ('kind' in part && part.kind === 'map_sub') return `["${String((part as unknown as { key: unknown }).key)}"]`
      return 'name' in part ? `.${String(part.name)}` : ''
    })
    .join('')
    .replace(/^\./, '')
}
