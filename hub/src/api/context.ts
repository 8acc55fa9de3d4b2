import { createHash } from 'node:crypto'
import { createContextKey, type HandlerContext } from '@connectrpc/connect'
import type { DescMessage, MessageShape } from '@bufbuild/protobuf'
import { clone, fromBinary, toBinary } from '@bufbuild/protobuf'
import type { Logger } from 'pino'
import type { Authority } from '../auth/authority.js'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { OrderValidator } from '../domain/provider/validator.js'
import type { Keyring } from '../secrets/keyring.js'
import { readConsistently, encodeRevision } from '../store/changes.js'
import type { Db, Tx } from '../store/database.js'
import type { Cause } from '../store/events.js'
import { once, type IdempotencyKey } from '../store/idempotency.js'
import type { Wake, WakeTopic } from '../store/wake.js'
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
  readonly maxMessageBytes: number
  /** See the gateway's. */
  readonly orphanGraceMs: number
  readonly orphanRestoreGraceMs: number
}

export interface ApiDeps {
  readonly db: Db
  readonly wake: Wake
  readonly keyring: Keyring
  readonly authority: Authority
  readonly config: ApiConfig
  readonly log: Logger
  readonly hubId: string
  readonly epoch: string
  readonly replica: string
  readonly validator: OrderValidator
  readonly prepareFirstLook: PrepareFirstLook
  /** The client API's base URL as booted machines reach it. */
  readonly publicUrl: () => string
}

/** Who calls, as the interceptors found out. */
export interface Caller {
  readonly tokenId: string
  readonly name: string
  readonly requestId: string
}

export const callerKey = createContextKey<Caller>({ tokenId: '', name: '', requestId: '' }, { description: 'caller' })

export function causeOf(context: Pick<HandlerContext, 'values'>): Cause {
  const caller = context.values.get(callerKey)
  return { actor: `token/${caller.tokenId}`, requestId: caller.requestId }
}

const maxPage = 1_000
const defaultPage = 100

export function pageSize(asked: number): number {
  return asked === 0 ? defaultPage : Math.min(asked, maxPage)
}

/** A page token: where the page before ended, bound to the list that it is of. */
export function encodePageToken(key: readonly (string | number)[], list: string): string {
  return Buffer.from(JSON.stringify([digest(list), ...key])).toString('base64url')
}

/** @throws HubError INVALID_PAGE_TOKEN. */
export function decodePageToken(token: string, list: string, parts: number): readonly (string | number)[] | undefined {
  if (token === '') return undefined
  const invalid = (description: string) =>
    new HubError('INVALID_PAGE_TOKEN', `page_token: ${description}`, {
      violations: [{ field: 'page_token', description }],
    })
  let decoded: unknown
  try {
    decoded = JSON.parse(Buffer.from(token, 'base64url').toString('utf8'))
  } catch {
    throw invalid('is damaged; give it as next_page_token was, or start over')
  }
  if (
    !Array.isArray(decoded) ||
    decoded.length !== parts + 1 ||
    !decoded.every((part) => typeof part === 'string' || typeof part === 'number')
  ) {
    throw invalid('is damaged; give it as next_page_token was, or start over')
  }
  const [of, ...key] = decoded
  if (of !== digest(list)) throw invalid('belongs to a list with other arguments; keep them the same from page to page')
  return key
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url').slice(0, 12)
}

/** Reads a page under one snapshot. One more row than asked for tells whether there is a next page. */
export async function readPage<Row>(
  deps: ApiDeps,
  order: {
    readonly size: number
    readonly list: string
    readonly read: (tx: Tx, limit: number) => Promise<readonly Row[]>
    readonly keyOf: (row: Row) => readonly (string | number)[]
  },
): Promise<{ readonly rows: readonly Row[]; readonly nextPageToken: string; readonly revision: string }> {
  return readConsistently(deps.db, async (tx, revision) => {
    const found = await order.read(tx, order.size + 1)
    const rows = found.slice(0, order.size)
    const last = rows.at(-1)
    return {
      rows,
      nextPageToken:
        found.length > order.size && last !== undefined ? encodePageToken(order.keyOf(last), order.list) : '',
      revision: encodeRevision(deps.epoch, revision),
    }
  })
}

interface KeyedRequest {
  readonly requestId: string
  readonly request: { readonly schema: DescMessage; readonly message: MessageShape<DescMessage> }
}

/** What a call's request_id stands for; undefined where it gave none. */
export function idempotencyKey(context: HandlerContext, order: KeyedRequest): IdempotencyKey | undefined {
  if (order.requestId === '') return undefined
  return {
    scope: `${context.values.get(callerKey).tokenId} ${context.method.parent.typeName}/${context.method.name}`,
    key: order.requestId,
    requestHash: createHash('sha256')
      .update(toBinary(order.request.schema, clone(order.request.schema, order.request.message)))
      .digest(),
  }
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
    readonly work: (tx: Tx) => Promise<MessageShape<Response>>
  },
): Promise<MessageShape<Response>> {
  const key = idempotencyKey(context, order)
  const { answer, repeated } = await once(deps.db, key, async (tx) => toBinary(order.response, await order.work(tx)))
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
