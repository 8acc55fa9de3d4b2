import { Refusal } from './refusal.js'
import type { Project } from './project.js'

/** A call that has been checked against the description. */
export interface Call {
  readonly project: Project
  readonly path: Readonly<Record<string, string>>
  readonly query: URLSearchParams
  readonly body: unknown
}

export interface Answer {
  readonly status: number
  readonly body?: unknown
}

export type Handler = (call: Call) => Answer

/** What answers each operation, by name: `GET /servers`. */
export type Handlers = Readonly<Record<string, Handler>>

export function idOf({ path }: Call, name = 'id'): number {
  return Number(path[name])
}

/** The body as the description says it is: it was checked. */
export function bodyOf<Body>({ body }: Call): Body {
  return (body ?? {}) as Body
}

export const ok = (body: unknown): Answer => ({ status: 200, body })
export const created = (body: unknown): Answer => ({ status: 201, body })
export const noContent: Answer = { status: 204 }

/** The endpoints of what is gone from the API. */
export function gone(): never {
  const details = { announcement: 'https://docs.hetzner.cloud/changelog' }
  throw new Refusal(410, 'deprecated_api_endpoint', 'API functionality was removed', details)
}
