import { durationMs } from '@bufbuild/protobuf/wkt'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import type * as hub from '@slipway/proto/hub/v1'
import type { EventDraft } from '../domain/facts.js'
import { parsePrincipalName, parseResourceName, resourceName } from '../domain/names.js'
import { createClientToken, findToken, listTokens, revokeClientToken, type TokenRow } from '../store/client-tokens.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { findPrincipal } from '../store/tenancy.js'
import type { PrincipalRow } from '../store/tables.js'
import {
  causeOf,
  databaseOf,
  decodePageToken,
  identityOf,
  pageSize,
  readPage,
  scopesOfCall,
  type ApiDeps,
} from './context.js'
import { principalNotFound, tokenNotFound } from './not-found.js'
import { refuseRoleTooHigh } from './principals.js'
import { toToken } from './tenancy-resources.js'

function event(row: TokenRow, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: resourceName('token', row.id),
    related: [row.principal],
    reason,
    message,
    severity: 'INFO',
    ...(row.organizationId !== null && { organizationId: row.organizationId }),
  }
}

/** @throws HubError TOKEN_NOT_FOUND. */
async function readToken(tx: Tx, name: string): Promise<TokenRow> {
  const row = await findToken(tx, parseResourceName('token', name))
  if (row === undefined) throw tokenNotFound(name)
  return row
}

export function tokenService(deps: ApiDeps): ServiceImpl<typeof hub.TokenService> {
  const principalFor = async (tx: Tx, context: HandlerContext, given: string): Promise<PrincipalRow> => {
    const name = given === '' ? identityOf(context).principal : given
    const row = await findPrincipal(tx, parsePrincipalName(name, 'principal'))
    if (row === undefined) throw principalNotFound(name)
    await refuseRoleTooHigh(deps, context, row)
    return row
  }
  return {
    async createToken(request, context) {
      const ttlMs = request.ttl === undefined ? undefined : Math.round(durationMs(request.ttl))
      const made = await inTransaction(databaseOf(deps, context), async (tx) => {
        const principal = await principalFor(tx, context, request.principal)
        const cause = causeOf(context)
        const { id, token } = await createClientToken(tx, {
          name: request.displayName === '' ? principal.name : request.displayName,
          principal,
          createdBy: cause.actor,
          ...(ttlMs !== undefined && { ttlMs }),
        })
        const row = await readToken(tx, resourceName('token', id))
        await appendEvents(tx, cause, [event(row, 'TokenCreated', `Made for ${row.principal}`)])
        return { row, token }
      })
      return { token: toToken(made.row), secret: made.token }
    },

    async getToken(request, context) {
      const row = await findToken(databaseOf(deps, context), parseResourceName('token', request.name))
      if (row === undefined) throw tokenNotFound(request.name)
      return { token: toToken(row) }
    },

    async listTokens(request, context) {
      const scopes = scopesOfCall(context)
      const { principalId } = identityOf(context)
      const within = scopes === undefined ? undefined : { organizationIds: scopes.organizationIds, principalId }
      const list = JSON.stringify(['tokens', request.principal, request.showEnded, within])
      const after = decodePageToken(deps, request.pageToken, list)
      const principal =
        request.principal === ''
          ? undefined
          : await findPrincipal(databaseOf(deps, context), parsePrincipalName(request.principal, 'principal'))
      if (request.principal !== '' && principal === undefined) return {}
      const filter = { principalId: principal?.id ?? '', showEnded: request.showEnded, within }
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) =>
          listTokens(tx, filter, after === undefined ? undefined : [String(after[0]), String(after[1])], limit),
        keyOf: (row) => [row.createdAt.toISOString(), row.id],
      })
      return { tokens: page.rows.map(toToken), nextPageToken: page.nextPageToken }
    },

    async revokeToken(request, context) {
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const before = await readToken(tx, request.name)
        if (before.revokedAt !== null) return before
        await revokeClientToken(tx, before.id)
        await appendEvents(tx, causeOf(context), [event(before, 'TokenRevoked', 'Revoked')])
        return readToken(tx, request.name)
      })
      deps.wake.signal({ kind: 'access' }, { kind: 'change' })
      return { token: toToken(row) }
    },
  }
}
