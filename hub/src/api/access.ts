import { createContextKey, type HandlerContext } from '@connectrpc/connect'
import { nowhere, type Scopes } from '../domain/access/decide.js'
import type { Identity } from '../store/client-tokens.js'
import { reachingOnly, type Db, type Reach } from '../store/database.js'

// What a call may do, as the policy found before its handler began.

/** `hub`: everything, as far as the method goes. `tenant`: what is in some places, and nothing else can be read or written by it. */
export type Access =
  | { readonly kind: 'hub' }
  | {
      readonly kind: 'tenant'
      /** Where the caller may do what the method does. */
      readonly scopes: Scopes
      /** What the database lets it see and change. */
      readonly reach: Reach
    }

/** All of the hub: for callers that are the hub's own. */
export const everything: Access = { kind: 'hub' }
/** What a call has that no policy has looked at. */
export const nothing: Access = {
  kind: 'tenant',
  scopes: nowhere,
  reach: { read: nowhere, write: nowhere, tokenId: '', principalId: '' },
}

/** Who calls, as the interceptors found out. */
export interface Caller {
  readonly tokenId: string
  readonly name: string
  readonly requestId: string
  /** Absent where nobody was asked who it is. */
  readonly identity?: Identity
  readonly access: Access
  /** Where the call came from. */
  readonly source?: string
  /** Of the call's entry in the audit log. */
  readonly auditId?: string
}

export const callerKey = createContextKey<Caller>(
  { tokenId: '', name: '', requestId: '', access: nothing },
  { description: 'caller' },
)

/** The address that a call came from. */
export const sourceKey = createContextKey('', { description: 'source address' })

type Context = Pick<HandlerContext, 'values'>

/** The database as this call may use it. */
export function databaseOf(deps: { readonly db: Db; readonly tenantDb: Db }, context: Context): Db {
  const { access } = context.values.get(callerKey)
  return access.kind === 'hub' ? deps.db : reachingOnly(deps.tenantDb, access.reach)
}

/** Where this call may do what its method does; undefined: everywhere. */
export function scopesOfCall(context: Context): Scopes | undefined {
  const { access } = context.values.get(callerKey)
  return access.kind === 'hub' ? undefined : access.scopes
}

/** Names how far the database lets this call reach: the same for calls that it shows and lets change the same. Undefined: everything. */
export function reachOfCall(context: Context): string | undefined {
  const { access } = context.values.get(callerKey)
  return access.kind === 'hub' ? undefined : JSON.stringify(access.reach)
}

/** Who calls. @throws Error where the method is one that nobody was asked for. */
export function identityOf(context: Context): Identity {
  const { identity } = context.values.get(callerKey)
  if (identity === undefined) throw new Error('the caller of a public method has no identity')
  return identity
}
