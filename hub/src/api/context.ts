import { createHash } from 'node:crypto'
import type { HandlerContext, Interceptor } from '@connectrpc/connect'
import type { DescMessage, MessageShape } from '@bufbuild/protobuf'
import { clone, fromBinary, toBinary } from '@bufbuild/protobuf'
import type { Logger } from 'pino'
import type { Authority } from '../auth/authority.js'
import type { ConsoleReader } from '../domain/console/console.js'
import { HubError, invalidField } from '../domain/error/errors.js'
import { parseResourceName } from '../domain/names.js'
import type { IssuerConfig } from '../domain/sign-in/issuer.js'
import type { OrderValidator } from '../domain/provider/validator.js'
import type { Keyring } from '../secrets/keyring.js'
import { readConsistently, encodeRevision } from '../store/changes.js'
import { inTransaction, type Db, type Tx } from '../store/database.js'
import type { Cause } from '../store/events.js'
import { once, type IdempotencyKey } from '../store/idempotency.js'
import { lockHost } from '../store/hosts.js'
import { visibleAmong } from '../store/scopes.js'
import { findOrganization } from '../store/tenancy.js'
import type { Wake, WakeTopic } from '../store/wake.js'
import { callerKey, databaseOf, scopesOfCall } from './access.js'
import { RolledBack, rolledBack } from './dry-run.js'
import type { PrepareFirstLook } from './order-log.js'

export interface ApiConfig {
  readonly apiHost: string
  /** 0: a free one. */
  readonly apiPort: number
  readonly tls: { readonly certFile: string; readonly keyFile: string } | undefined
  /** What instances are told to connect to. */
  readonly gatewayAdvertise: string
  readonly reflection: boolean
  readonly watchHeartbeatMs: number
  /** Where people sign in. */
  readonly issuers: readonly IssuerConfig[]
  readonly maxMessageBytes: number
  /** See the gateway's. */
  readonly orphanGraceMs: number
  readonly orphanRestoreGraceMs: number
}

export interface ApiDeps {
  /** Sees everything. For what the hub does of its own accord; a call's own reads and writes go through `databaseOf`. */
  readonly db: Db
  /** Connections for calls of tenants, which see nothing by themselves. */
  readonly tenantDb: Db
  readonly wake: Wake
  readonly keyring: Keyring
  readonly authority: Authority
  readonly config: ApiConfig
  readonly log: Logger
  readonly hubId: string
  readonly epoch: string
  readonly replica: string
  readonly validator: OrderValidator
  readonly consoles: ConsoleReader
  readonly prepareFirstLook: PrepareFirstLook
  /** The client API's base URL as booted machines reach it. */
  readonly publicUrl: () => string
  /** What every call passes first and its answer last, as they come from clients and go to them. */
  readonly interceptors?: readonly Interceptor[]
}

export { callerKey, databaseOf, identityOf, reachOfCall, scopesOfCall, type Caller } from './access.js'

/** Who causes what a call changes. What is appended to timelines for it goes into the audit log too. */
export function causeOf(context: Pick<HandlerContext, 'values' | 'method'>): Cause {
  const { tokenId, requestId, identity, source = '', auditId } = context.values.get(callerKey)
  const cause = { actor: `token/${tokenId}`, requestId }
  if (identity === undefined || auditId === undefined) return cause
  const method = `${context.method.parent.typeName}/${context.method.name}`
  return { ...cause, audit: { id: auditId, principal: identity.principal, tokenId, source, method } }
}

const maxPage = 1_000
const defaultPage = 100

export function pageSize(asked: number): number {
  return asked === 0 ? defaultPage : Math.min(asked, maxPage)
}

/**
 * A page token: where the page before ended, bound to the list that it is of, and signed. What is in it goes into queries as it is: nobody makes up one of their own.
 */
export function encodePageToken(
  { keyring }: Pick<ApiDeps, 'keyring'>,
  key: readonly (string | number)[],
  list: string,
): string {
  const text = JSON.stringify([digest(list), ...key])
  return Buffer.from(JSON.stringify([text, keyring.digest(signedAs(text)).toString('base64')])).toString('base64url')
}

/** @throws HubError INVALID_PAGE_TOKEN. */
export function decodePageToken(
  { keyring }: Pick<ApiDeps, 'keyring'>,
  token: string,
  list: string,
): readonly (string | number)[] | undefined {
  if (token === '') return undefined
  const invalid = (description: string) =>
    new HubError('INVALID_PAGE_TOKEN', `page_token: ${description}`, {
      violations: [{ field: 'page_token', description }],
    })
  const text = signedText(keyring, token)
  if (text === undefined) throw invalid('is damaged; give it as next_page_token was, or start over')
  const [of, ...key] = JSON.parse(text) as readonly [string, ...(string | number)[]]
  if (of !== digest(list)) throw invalid('belongs to a list with other arguments; keep them the same from page to page')
  return key
}

const signedAs = (text: string): Buffer => Buffer.from(`page token\0${text}`, 'utf8')

/** What a token says; undefined where it is none of ours. */
function signedText(keyring: Keyring, token: string): string | undefined {
  let decoded: unknown
  try {
    decoded = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'))
  } catch {
    return undefined
  }
  if (!Array.isArray(decoded)) return undefined
  const [text, signature] = decoded as readonly unknown[]
  if (typeof text !== 'string' || typeof signature !== 'string') return undefined
  return keyring.isDigestOf(Buffer.from(signature, 'base64'), signedAs(text)) ? text : undefined
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url').slice(0, 12)
}

/** Reads a page under one snapshot, as the call may see it. One more row than asked for tells whether there is a next page. */
export async function readPage<Row>(
  deps: ApiDeps,
  context: Pick<HandlerContext, 'values'>,
  order: {
    readonly size: number
    readonly list: string
    readonly read: (tx: Tx, limit: number) => Promise<readonly Row[]>
    readonly keyOf: (row: Row) => readonly (string | number)[]
    /** Absent: as the call may use it. */
    readonly db?: Db
  },
): Promise<{ readonly rows: readonly Row[]; readonly nextPageToken: string; readonly revision: string }> {
  return readConsistently(order.db ?? databaseOf(deps, context), async (tx, revision) => {
    const found = await order.read(tx, order.size + 1)
    const rows = found.slice(0, order.size)
    const last = rows.at(-1)
    return {
      rows,
      nextPageToken:
        found.length > order.size && last !== undefined ? encodePageToken(deps, order.keyOf(last), order.list) : '',
      revision: encodeRevision(deps.epoch, revision),
    }
  })
}

interface KeyedRequest {
  readonly requestId: string
  readonly request: { readonly schema: DescMessage; readonly message: MessageShape<DescMessage> }
}

/** What a call's request_id stands for; undefined where it gave none. */
export function idempotencyKey(
  { keyring }: Pick<ApiDeps, 'keyring'>,
  context: HandlerContext,
  order: KeyedRequest,
): IdempotencyKey | undefined {
  if (order.requestId === '') return undefined
  const scope = `${context.values.get(callerKey).tokenId} ${context.method.parent.typeName}/${context.method.name}`
  const request = toBinary(order.request.schema, clone(order.request.schema, order.request.message))
  // Requests may hold secrets: whoever reads the database must not be able to try guesses, nor see who has sent the same.
  const bound = Buffer.concat([Buffer.from(`${scope}\0${order.requestId}\0`, 'utf8'), request])
  return {
    scope,
    key: order.requestId,
    fingerprint: keyring.digest(bound),
    isOf: (stored) => keyring.isDigestOf(stored, bound) || isPlainHash(stored, request),
  }
}

/** As hubs stored it before fingerprints were keyed. Rows like that are trimmed within days; until then, what was accepted stays accepted. */
function isPlainHash(stored: Buffer, request: Uint8Array): boolean {
  return stored.length === 32 && stored.equals(createHash('sha256').update(request).digest())
}

/**
 * Does a create once for its request_id, and signals what follows after the commit.
 *
 * @param request without what must not distinguish two calls.
 */
export async function createOnce<Response extends DescMessage>(
  deps: ApiDeps,
  context: HandlerContext,
  order: {
    readonly requestId: string
    readonly request: { readonly schema: DescMessage; readonly message: MessageShape<DescMessage> }
    readonly response: Response
    readonly wake: readonly WakeTopic[]
    /** Absent: as the call may use it. */
    readonly db?: Db
    readonly work: (tx: Tx) => Promise<MessageShape<Response>>
  },
): Promise<MessageShape<Response>> {
  const key = idempotencyKey(deps, context, order)
  const { answer, repeated } = await once(order.db ?? databaseOf(deps, context), key, async (tx) =>
    toBinary(order.response, await order.work(tx)),
  )
  if (!repeated) deps.wake.signal(...order.wake, { kind: 'change' })
  return fromBinary(order.response, answer)
}

/** @throws HubError ETAG_MISMATCH. */
export function checkEtag(given: string, row: { readonly version: number }, name: string): void {
  if (given === '' || given === String(row.version)) return
  throw new HubError(
    'ETAG_MISMATCH',
    `${name} has changed since it was read (etag ${given}, now ${row.version}); read it again and redo the change`,
    {
      metadata: { current_etag: String(row.version) },
    },
  )
}

/** The paths of an update mask. Empty means all of them. @throws HubError INVALID_FIELD for paths that cannot be changed. */
export function maskedPaths<Path extends string>(
  paths: readonly string[] | undefined,
  allowed: readonly Path[],
): ReadonlySet<Path> {
  if (paths === undefined || paths.length === 0) return new Set(allowed)
  return new Set(
    paths.map((path) => {
      const known = allowed.find((candidate) => candidate === path)
      if (known === undefined)
        throw invalidField('update_mask', `«${path}» cannot be changed; these can: ${allowed.join(', ')}`)
      return known
    }),
  )
}

/** The refusal of an id that somebody has, or had. */
export function nameTaken(field: string, id: string): HubError {
  const description = 'is in use, or was; choose another name'
  return new HubError('NAME_TAKEN', `${field}: ${id} ${description}`, { violations: [{ field, description }] })
}

/** Does what a call with `validate_only` would do, and takes it back. */
export function tryOut<Response>(db: Db, work: (tx: Tx) => Promise<Response>): Promise<Response> {
  return inTransaction<Response>(db, async (tx) => {
    throw new RolledBack(await work(tx))
  }).catch(rolledBack<Response>)
}

/** The organization that a list's parent names; empty for all. @throws HubError INVALID_FIELD. */
export function organizationFilter(parent: string): string {
  const id = parent === '' ? '-' : parseResourceName('organization', parent, 'parent')
  return id === '-' ? '' : id
}

/**
 * For what the hub does for a tenant with rights of its own: the organization must be one that the database shows the caller, whatever the policy said.
 *
 * @param hidden what is said of what does not exist.
 */
export async function requireOrganization(
  deps: ApiDeps,
  context: Pick<HandlerContext, 'values'>,
  organization: string,
  hidden: () => HubError,
): Promise<void> {
  if (scopesOfCall(context) === undefined) return
  if ((await findOrganization(databaseOf(deps, context), organization)) === undefined) throw hidden()
}

/** The organizations whose own things the caller may see, as far as the database shows it these; undefined: all. */
export async function visibleOrganizations(
  deps: ApiDeps,
  context: Pick<HandlerContext, 'values'>,
): Promise<readonly string[] | undefined> {
  const scopes = scopesOfCall(context)
  if (scopes === undefined) return undefined
  return [...(await visibleAmong(databaseOf(deps, context), 'organization', scopes.organizationIds, scopes))].sort()
}

/** For what the hub does to a host on a tenant's behalf: the host must be one that the database lets the caller change, whatever the policy said. */
export async function mayChangeHost(
  deps: ApiDeps,
  context: Pick<HandlerContext, 'values'>,
  { workspace, id }: { readonly workspace: string; readonly id: string },
): Promise<boolean> {
  if (scopesOfCall(context) === undefined) return true
  return inTransaction(databaseOf(deps, context), async (tx) => (await lockHost(tx, workspace, id)) !== undefined)
}
