/** An answer that says no, as the vendor's table of error codes has it. */
export class Refusal extends Error {
  override readonly name = 'Refusal'
  readonly status: number
  readonly code: string
  readonly details: Record<string, unknown> | undefined

  constructor(status: number, code: string, message: string, details?: Record<string, unknown>) {
    super(message)
    this.status = status
    this.code = code
    this.details = details
  }

  get body() {
    const { code, message, details = null } = this
    return { error: { code, message, details } }
  }
}

export function notFound(what: string): Refusal {
  return new Refusal(404, 'not_found', `${what} not found`)
}

export function invalid(field: string, message: string): Refusal {
  const details = { fields: [{ name: field, messages: [message] }] }
  return new Refusal(422, 'invalid_input', `invalid input in field '${field}': ${message}`, details)
}

export function notUnique(field: string, what: string): Refusal {
  return new Refusal(409, 'uniqueness_error', `${what} is already used`, { fields: [{ name: field }] })
}

export function locked(what: string): Refusal {
  return new Refusal(423, 'locked', `${what} is locked by another action`)
}

export function protectedFrom(what: string): Refusal {
  return new Refusal(423, 'protected', `${what} is protected`)
}

export function overLimit(limit: string): Refusal {
  return new Refusal(403, 'resource_limit_exceeded', `${limit} exceeded`, { limits: [{ name: limit }] })
}

export function unavailable(message: string): Refusal {
  return new Refusal(412, 'resource_unavailable', message)
}
