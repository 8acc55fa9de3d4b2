import type { ServerResponse } from 'node:http'
import { HubError } from '../domain/error/errors.js'
import { readMeta } from '../store/meta.js'
import type { ApiDeps } from './context.js'
import type { NodeRequest, NodeResponse } from './node-handler.js'
import { phoneHome } from './other-services.js'

// The few things that are plain HTTP: probes, and the phone call of software that can only POST to a URL.

const maxBodyBytes = 64 * 1024
const bodyTimeoutMs = 10_000

/** Handles a request that is no call of a service. */
export function plainHttp(
  deps: ApiDeps,
  isDraining: () => boolean,
): (request: NodeRequest, response: NodeResponse) => void {
  return (request, response) => {
    const path = (request.url ?? '/').split('?')[0] ?? '/'
    handle(deps, isDraining, request, response, path).catch((error: unknown) => {
      if (error instanceof HubError) {
        answer(
          response,
          error.reason === 'PHONE_HOME_TOKEN_INVALID' ? 401 : error.reason === 'MESSAGE_TOO_LARGE' ? 413 : 503,
          { reason: error.reason, message: error.message },
        )
        return
      }
      // A path may hold a token: it does not go to the log.
      deps.log.error({ err: error, path: path.replace(/^(\/phone-home\/).*/, '$1…') }, 'plain request failed')
      answer(response, 503, { reason: 'UNAVAILABLE', message: 'try again' })
    })
  }
}

async function handle(
  deps: ApiDeps,
  isDraining: () => boolean,
  request: NodeRequest,
  response: NodeResponse,
  path: string,
): Promise<void> {
  if (path === '/healthz') return answer(response, 200, { status: 'ok' })
  if (path === '/readyz') return ready(deps, isDraining, response)
  if (path === '/phone-home' || path.startsWith('/phone-home/')) return callHome(deps, request, response, path)
  if (path === '/')
    return answer(response, 200, {
      service: 'slipway',
      docs: 'services are under /slipway.hub.v1.*; ask reflection, or read docs/api.md',
    })
  return answer(response, 404, {
    reason: 'NOT_FOUND',
    message: 'there is nothing here; services are under /slipway.hub.v1.*',
  })
}

async function ready(deps: ApiDeps, isDraining: () => boolean, response: NodeResponse): Promise<void> {
  if (isDraining()) return answer(response, 503, { status: 'draining' })
  try {
    await readMeta(deps.db)
  } catch {
    return answer(response, 503, { status: 'database unavailable' })
  }
  return answer(response, 200, { status: 'ready' })
}

async function callHome(deps: ApiDeps, request: NodeRequest, response: NodeResponse, path: string): Promise<void> {
  if (request.method !== 'POST' && request.method !== 'PUT') {
    response.setHeader('allow', 'POST')
    return answer(response, 405, { reason: 'METHOD_NOT_ALLOWED', message: 'POST to this address' })
  }
  const body = await readBody(request)
  const token =
    path.slice('/phone-home/'.length) ||
    (/^bearer +(\S+)$/i.exec(String(request.headers['authorization'] ?? ''))?.[1] ?? '')
  const { host, at } = await phoneHome(deps, token, hostnameIn(body, String(request.headers['content-type'] ?? '')))
  return answer(response, 200, { host, time: at.toISOString() })
}

/** @throws HubError MESSAGE_TOO_LARGE. */
async function readBody(request: NodeRequest): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  request.setTimeout(bodyTimeoutMs, () => request.destroy())
  for await (const data of request) {
    const chunk = Buffer.isBuffer(data) ? data : Buffer.from(data as string)
    size += chunk.length
    if (size > maxBodyBytes)
      throw new HubError('MESSAGE_TOO_LARGE', `the body is over ${maxBodyBytes} bytes; send less`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** The hostname that a machine calls itself by, as JSON or as a form; whatever else is said is not needed. */
function hostnameIn(body: string, contentType: string): string {
  let said: unknown
  try {
    said = contentType.includes('json')
      ? (JSON.parse(body) as { hostname?: unknown }).hostname
      : new URLSearchParams(body).get('hostname')
  } catch {
    return ''
  }
  return typeof said === 'string' && /^[A-Za-z0-9.-]{1,253}$/.test(said) ? said : ''
}

function answer(response: NodeResponse, status: number, body: object): void {
  if (response.writableEnded) return
  const text = `${JSON.stringify(body)}\n`
  response.statusCode = status
  response.setHeader('content-type', 'application/json')
  response.setHeader('content-length', Buffer.byteLength(text))
  ;(response as ServerResponse).end(text)
}
