import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { identityName, parseIdentityName, parsePrincipalName, principalName } from '../domain/names.js'
import type { IssuerConfig } from '../domain/sign-in/issuer.js'
import { normalEmail } from '../domain/sign-in/person.js'
import { inTransaction, type Db } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { deleteIdentity, deleteUnclaimed, findIdentity, insertIdentity, listIdentities } from '../store/identities.js'
import { findPrincipal, lockPrincipal } from '../store/tenancy.js'
import type { PrincipalIdentityRow, PrincipalRow } from '../store/tables.js'
import { causeOf, databaseOf, decodePageToken, nameTaken, pageSize, readPage, type ApiDeps } from './context.js'
import { toTime } from './convert.js'
import { identityNotFound, principalNotFound } from './not-found.js'
import { refuseRoleTooHigh } from './principals.js'

function toIdentity(principal: string, row: PrincipalIdentityRow): hub.Identity {
  return create(hub.IdentitySchema, {
    name: identityName(principal, row.name),
    issuer: row.issuer,
    subject: row.subject ?? '',
    email: row.email ?? '',
    creator: row.created_by,
    createTime: toTime(row.created_at),
    ...(row.expires_at !== null && { expireTime: toTime(row.expires_at) }),
    ...(row.last_used_at !== null && { lastUseTime: toTime(row.last_used_at) }),
  })
}

function event(row: PrincipalRow, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: principalName(row.organization_name, row.name),
    reason,
    message,
    severity: 'INFO',
    ...(row.organization_id !== null && { organizationId: row.organization_id }),
  }
}

/** Who an identity is to be of, by subject or by e-mail. @throws HubError INVALID_FIELD. */
function whoOf(issuer: IssuerConfig, given: hub.Identity): { readonly subject: string } | { readonly email: string } {
  if ((given.subject === '') === (given.email === ''))
    throw invalidField('identity', 'say subject or email, and not both')
  if (given.subject !== '') return { subject: given.subject }
  if (!issuer.trustEmail)
    throw invalidField(
      'identity.email',
      `the issuer ${issuer.name} is not trusted with e-mail addresses (trustEmail in its configuration); say the subject`,
    )
  const email = normalEmail(given.email)
  if (email === undefined) throw invalidField('identity.email', 'must be an e-mail address of ASCII letters')
  return { email }
}

export function identityService(deps: ApiDeps): ServiceImpl<typeof hub.IdentityService> {
  const issuerOf = (name: string): IssuerConfig => {
    const issuer = deps.config.issuers.find((each) => each.name === name)
    if (issuer !== undefined) return issuer
    const known = deps.config.issuers.map((each) => each.name).join(', ')
    throw invalidField('identity.issuer', `there is no issuer «${name}»; there are: ${known === '' ? 'none' : known}`)
  }
  const readPrincipal = async (db: Db, name: string, field: string): Promise<PrincipalRow> => {
    const row = await findPrincipal(db, parsePrincipalName(name, field))
    if (row === undefined) throw principalNotFound(name)
    return row
  }
  const link = async (request: hub.CreateIdentityRequest, context: HandlerContext): Promise<PrincipalIdentityRow> => {
    const given = request.identity ?? create(hub.IdentitySchema)
    const issuer = issuerOf(given.issuer)
    const who = whoOf(issuer, given)
    return inTransaction(databaseOf(deps, context), async (tx) => {
      const principal = await lockPrincipal(tx, parsePrincipalName(request.parent, 'parent'))
      if (principal === undefined) throw principalNotFound(request.parent)
      if (principal.organization_name !== issuer.organization)
        throw invalidField(
          'parent',
          `users of the issuer ${issuer.name} are ${issuer.organization === null ? "the hub's own" : `of ${issuer.organization}`}, and ${request.parent} is not`,
        )
      if (principal.kind !== 'USER')
        throw invalidField('parent', `${request.parent} is no user; people sign in as users`)
      await refuseRoleTooHigh(deps, context, principal)
      const cause = causeOf(context)
      const row = await insertIdentity(tx, {
        principalId: principal.id,
        issuer: issuer.issuer,
        createdBy: cause.actor,
        ...who,
      })
      if (row === undefined)
        throw nameTaken('subject' in who ? 'identity.subject' : 'identity.email', Object.values(who)[0] ?? '')
      await appendEvents(tx, cause, [
        event(
          principal,
          'IdentityLinked',
          `To ${'subject' in who ? `subject ${who.subject}` : who.email} at ${issuer.issuer}`,
        ),
      ])
      return row
    })
  }
  return {
    async createIdentity(request, context) {
      await deleteUnclaimed(deps.db)
      return { identity: toIdentity(request.parent, await link(request, context)) }
    },

    async listIdentities(request, context) {
      const principal = await readPrincipal(databaseOf(deps, context), request.parent, 'parent')
      const list = JSON.stringify(['identities', principal.id])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listIdentities(tx, principal.id, after === undefined ? '' : String(after[0]), limit),
        keyOf: (row) => [row.id],
      })
      return { identities: page.rows.map((row) => toIdentity(request.parent, row)), nextPageToken: page.nextPageToken }
    },

    async deleteIdentity(request, context) {
      const { principal: name, id } = parseIdentityName(request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const principal = await lockPrincipal(tx, parsePrincipalName(name))
        const row = principal === undefined ? undefined : await findIdentity(tx, principal.id, id)
        if (principal === undefined || row === undefined) throw identityNotFound(request.name)
        await deleteIdentity(tx, row.id)
        await appendEvents(tx, causeOf(context), [event(principal, 'IdentityUnlinked', `From ${row.issuer}`)])
      })
      deps.wake.signal({ kind: 'access' }, { kind: 'change' })
      return {}
    },
  }
}
