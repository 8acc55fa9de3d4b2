/** gRPC status names that the hub uses. */
export type StatusName =
  | 'INVALID_ARGUMENT'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'PERMISSION_DENIED'
  | 'UNAUTHENTICATED'
  | 'FAILED_PRECONDITION'
  | 'ABORTED'
  | 'OUT_OF_RANGE'
  | 'RESOURCE_EXHAUSTED'
  | 'UNAVAILABLE'
  | 'DEADLINE_EXCEEDED'
  | 'INTERNAL'

/** The error catalogue: every reason that the hub can give, its status, and what it means. docs/errors.md lists the same; a test compares both. */
export const errorCatalogue = {
  // request as such
  INVALID_FIELD: [
    'INVALID_ARGUMENT',
    'A field is missing, malformed or out of range; the details name it and say what to do.',
  ],
  INVALID_PAGE_TOKEN: [
    'INVALID_ARGUMENT',
    'The page token is damaged, or was made by nobody here, or other arguments differ from those it was given for.',
  ],
  INVALID_REVISION: ['INVALID_ARGUMENT', 'The revision is not one that this hub gave.'],
  INVALID_LABEL_SELECTOR: ['INVALID_ARGUMENT', 'The label selector cannot be parsed; the message shows where.'],
  PROVIDER_DATA_INVALID: [
    'INVALID_ARGUMENT',
    "provider_data does not match the provider's JSON Schema, or the provider itself refuses it.",
  ],
  PROVIDER_CONFIG_INVALID: ['INVALID_ARGUMENT', "config or credentials do not match the provider's JSON Schema."],
  SCHEMA_INVALID: ['INVALID_ARGUMENT', 'A JSON Schema sent by a provider is not a usable draft 2020-12 schema.'],
  MESSAGE_TOO_LARGE: ['RESOURCE_EXHAUSTED', 'The message is over the size limit.'],
  RATE_LIMITED: ['RESOURCE_EXHAUSTED', 'Too many calls; try again after the delay given.'],
  DEADLINE_EXCEEDED: ['DEADLINE_EXCEEDED', 'The call took longer than its deadline allows.'],
  // who asks
  TOKEN_MISSING: ['UNAUTHENTICATED', 'No bearer token was sent.'],
  TOKEN_INVALID: ['UNAUTHENTICATED', 'The bearer token is unknown, damaged, expired or revoked.'],
  ID_TOKEN_INVALID: [
    'UNAUTHENTICATED',
    'The ID token is damaged, not of that issuer for this hub, too old, or was exchanged before; the message says which.',
  ],
  SIGN_IN_REFUSED: ['PERMISSION_DENIED', 'Whoever signed in is not to be let in; the message says why.'],
  ISSUER_UNAVAILABLE: ['UNAVAILABLE', "The issuer's keys cannot be had now; try again after the delay given."],
  PERMISSION_MISSING: ['PERMISSION_DENIED', "The caller's roles do not allow it; the message names the permission."],
  PRIORITY_TOO_HIGH: [
    'PERMISSION_DENIED',
    'The caller may not order at that priority here; the message says what may be.',
  ],
  ROLE_TOO_HIGH: ['PERMISSION_DENIED', 'The principal may do more than the caller may let it do.'],
  ACCESS_CHANGED: ['ABORTED', 'What the caller may see has changed while it watched; watch again.'],
  JOIN_TOKEN_INVALID: ['UNAUTHENTICATED', 'The join token is unknown or damaged.'],
  JOIN_TOKEN_EXPIRED: ['UNAUTHENTICATED', 'The join token is too old; make a new one.'],
  JOIN_TOKEN_USED: ['PERMISSION_DENIED', 'The join token was used before; make a new one, and find out who used it.'],
  CSR_INVALID: [
    'INVALID_ARGUMENT',
    'The certificate signing request cannot be read, its signature is wrong, or its key is too weak.',
  ],
  CERTIFICATE_REQUIRED: ['UNAUTHENTICATED', 'The call needs a client certificate of this hub.'],
  CERTIFICATE_REVOKED: ['PERMISSION_DENIED', 'The client certificate was revoked; enrol again with a new join token.'],
  PHONE_HOME_TOKEN_INVALID: ['UNAUTHENTICATED', 'The phone-home token is unknown or expired.'],
  // what is named
  PROVIDER_NOT_FOUND: ['NOT_FOUND', 'There is no such provider.'],
  POOL_NOT_FOUND: ['NOT_FOUND', 'There is no such provider pool.'],
  SECRET_NOT_FOUND: ['NOT_FOUND', 'There is no such secret.'],
  QUOTA_NOT_FOUND: ['NOT_FOUND', 'There is no such quota.'],
  PRICE_LIST_NOT_FOUND: ['NOT_FOUND', 'There is no such price list.'],
  BILLING_AGREEMENT_NOT_FOUND: ['NOT_FOUND', 'There is no such billing agreement.'],
  CLASS_NOT_FOUND: ['NOT_FOUND', 'There is no such machine class.'],
  MACHINE_NOT_FOUND: ['NOT_FOUND', 'There is no such machine.'],
  MACHINE_REQUEST_NOT_FOUND: ['NOT_FOUND', 'There is no such machine request.'],
  ORPHAN_NOT_FOUND: ['NOT_FOUND', 'There is no such orphan, or it is gone.'],
  HOST_NOT_FOUND: ['NOT_FOUND', 'There is no such host.'],
  HOST_SET_NOT_FOUND: ['NOT_FOUND', 'There is no such host set.'],
  ORGANIZATION_NOT_FOUND: ['NOT_FOUND', 'There is no such organization.'],
  WORKSPACE_NOT_FOUND: ['NOT_FOUND', 'There is no such workspace.'],
  PRINCIPAL_NOT_FOUND: ['NOT_FOUND', 'There is no such principal.'],
  ROLE_BINDING_NOT_FOUND: ['NOT_FOUND', 'There is no such role binding.'],
  TOKEN_NOT_FOUND: ['NOT_FOUND', 'There is no such token.'],
  ISSUER_NOT_FOUND: ['NOT_FOUND', 'The hub knows no such issuer.'],
  IDENTITY_NOT_FOUND: ['NOT_FOUND', 'There is no such identity.'],
  EVENT_NOT_FOUND: ['NOT_FOUND', 'There is no such event, or it was trimmed.'],
  NAME_TAKEN: ['ALREADY_EXISTS', 'The name is in use.'],
  IDEMPOTENCY_KEY_REUSED: ['ALREADY_EXISTS', 'The idempotency key was used before, with another request.'],
  // how things stand
  ETAG_MISMATCH: ['ABORTED', 'The resource has changed since the etag was read; read it again.'],
  FIELD_IMMUTABLE: ['INVALID_ARGUMENT', 'The field cannot be changed once the resource exists.'],
  ORGANIZATION_IN_USE: [
    'FAILED_PRECONDITION',
    'The organization has workspaces, or is the one that the hub came with.',
  ],
  WORKSPACE_IN_USE: ['FAILED_PRECONDITION', 'The workspace has hosts.'],
  LAST_ADMINISTRATOR: ['FAILED_PRECONDITION', 'Nobody would be left who may administer the hub.'],
  CLASS_NOT_OFFERED: ['FAILED_PRECONDITION', 'No provider offers the class within what the order allows.'],
  QUOTA_EXCEEDED: ['RESOURCE_EXHAUSTED', 'The order would break a quota; the message says which, and what is taken.'],
  BUDGET_EXCEEDED: ['RESOURCE_EXHAUSTED', 'The order would break a budget; the message says which, and what is taken.'],
  CLASS_AUTO_CREATED: [
    'FAILED_PRECONDITION',
    'The hub made the class for a shape, and takes it away when it is not used.',
  ],
  CLASS_IN_USE: ['FAILED_PRECONDITION', 'Hosts use the class.'],
  PROVIDER_IN_USE: ['FAILED_PRECONDITION', 'The provider has machine requests or machines.'],
  PROVIDER_NOT_USABLE: [
    'FAILED_PRECONDITION',
    "The workspace may not use the provider: it is another's, or of a pool of which the workspace has claimed another or none.",
  ],
  POOL_IN_USE: ['FAILED_PRECONDITION', 'Providers are in the pool.'],
  POOL_EXHAUSTED: ['RESOURCE_EXHAUSTED', 'All providers of the pool are claimed.'],
  SECRET_IN_USE: ['FAILED_PRECONDITION', 'Something needs the secret; the message says what.'],
  PRICE_LIST_IN_USE: ['FAILED_PRECONDITION', 'Billing agreements are based on the price list.'],
  PROVIDER_DELETED: ['PERMISSION_DENIED', 'The provider was deleted; stop this instance.'],
  FAMILY_MISMATCH: [
    'FAILED_PRECONDITION',
    'The instance is of another family or kind than the provider was added with.',
  ],
  VERSION_UNSUPPORTED: ['FAILED_PRECONDITION', 'There is no protocol version that both sides speak.'],
  PROTOCOL_VIOLATION: [
    'FAILED_PRECONDITION',
    'The instance broke the protocol; the message says how. A defect of the provider.',
  ],
  HOST_PROTECTED: ['FAILED_PRECONDITION', 'The host is protected; take the protection off first.'],
  HOST_STATE_FORBIDS: ['FAILED_PRECONDITION', "The host's state does not allow it; the message says which do."],
  HOST_SET_DELETING: ['FAILED_PRECONDITION', 'The host set is being deleted with its members.'],
  HOST_NOT_FAILED: ['FAILED_PRECONDITION', 'Only a host in ERROR can be retried.'],
  MACHINE_PROTECTED: ['FAILED_PRECONDITION', 'The machine is protected; take the protection off first.'],
  MACHINE_STATE_FORBIDS: ['FAILED_PRECONDITION', "The machine's state does not allow it; the message says which do."],
  MACHINE_IN_USE: ['FAILED_PRECONDITION', 'The machine is in use, its provider says; it can be adopted.'],
  MACHINE_BUSY: ['ABORTED', 'An instance works on the machine; try again when it is done.'],
  MACHINE_NOT_SEEN: [
    'FAILED_PRECONDITION',
    'The provider does not list the machine, or more than one that could be it.',
  ],
  POWER_UNSUPPORTED: ['FAILED_PRECONDITION', 'The provider cannot switch power.'],
  ADOPTION_UNSUPPORTED: ['FAILED_PRECONDITION', 'The provider cannot take over servers that exist already.'],
  SERVER_KNOWN: ['FAILED_PRECONDITION', 'The hub knows the server already: it is a machine, or is being adopted.'],
  REINSTALL_UNSUPPORTED: ['FAILED_PRECONDITION', 'The provider cannot put a new system on a machine that it keeps.'],
  RESCUE_UNSUPPORTED: ['FAILED_PRECONDITION', 'The provider cannot start a rescue system.'],
  CONSOLE_UNSUPPORTED: ['FAILED_PRECONDITION', 'The provider shows no consoles, or its software is too old to.'],
  CONSOLE_ABSENT: ['FAILED_PRECONDITION', 'The machine has no console, or none that its provider can reach.'],
  CONSOLE_BUSY: [
    'RESOURCE_EXHAUSTED',
    'Too many look at consoles already, or the console admits one only and somebody else has it.',
  ],
  CONSOLE_FAILED: [
    'UNAVAILABLE',
    'The provider could not show the console; the message says why. With a delay: try again after it.',
  ],
  PROVIDER_OFFLINE: [
    'UNAVAILABLE',
    'No instance of the provider can be reached, or the one that was asked went away; try again.',
  ],
  REQUEST_STATE_FORBIDS: ['FAILED_PRECONDITION', "The machine request's state does not allow it."],
  ORPHAN_NOT_OURS: [
    'FAILED_PRECONDITION',
    'The ownership key is not one of this hub that names a request, or the server was only to be adopted.',
  ],
  ORPHAN_IN_USE: ['FAILED_PRECONDITION', 'A live machine request or machine owns it; it is no orphan.'],
  ORPHAN_REMOVAL_UNSUPPORTED: ['FAILED_PRECONDITION', 'The provider cannot remove orphans.'],
  ORPHAN_BEING_REMOVED: ['FAILED_PRECONDITION', 'An instance is at work on its removal, or is done with it.'],
  REVISION_COMPACTED: ['OUT_OF_RANGE', 'The revision is too old to resume from; list again and watch from there.'],
  SLOW_CONSUMER: ['ABORTED', 'The client read too slowly and was cut off; resume from the last revision.'],
  // the hub itself
  DATABASE_UNAVAILABLE: ['UNAVAILABLE', 'The database does not answer; try again after the delay given.'],
  DRAINING: ['UNAVAILABLE', 'This replica is shutting down; connect to another one.'],
  INTERNAL: ['INTERNAL', 'A defect of the hub. The request id finds it in the log.'],
} as const satisfies Record<string, readonly [StatusName, string]>

export type ErrorReason = keyof typeof errorCatalogue

export interface FieldViolation {
  /** Path from the request's root, for example `host.machine_class`. */
  readonly field: string
  /** What is wrong and what to do. */
  readonly description: string
}

export interface HubErrorOptions {
  readonly violations?: readonly FieldViolation[]
  readonly metadata?: Readonly<Record<string, string>>
  readonly retryAfterMs?: number
  readonly cause?: unknown
}

/** An answer that is a refusal. The message is sent to the caller; the cause is only logged. */
export class HubError extends Error {
  override readonly name = 'HubError'
  readonly reason: ErrorReason
  readonly violations: readonly FieldViolation[]
  readonly metadata: Readonly<Record<string, string>>
  readonly retryAfterMs: number | undefined

  constructor(reason: ErrorReason, message: string, options: HubErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.reason = reason
    this.violations = options.violations ?? []
    this.metadata = options.metadata ?? {}
    this.retryAfterMs = options.retryAfterMs
  }

  get status(): StatusName {
    return errorCatalogue[this.reason][0]
  }
}

/** A refusal for one field. */
export function invalidField(field: string, description: string): HubError {
  return new HubError('INVALID_FIELD', `${field}: ${description}`, { violations: [{ field, description }] })
}
