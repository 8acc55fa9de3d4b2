import { createHash } from 'node:crypto'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import type * as hub from '@slipway/proto/hub/v1'
import { v7 as uuid } from 'uuid'
import { verifyIdToken, type VerifiedIdToken } from '../auth/id-token.js'
import { IssuerKeys } from '../auth/issuer-keys.js'
import { HubError } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { principalName, resourceName } from '../domain/names.js'
import type { IssuerConfig } from '../domain/sign-in/issuer.js'
import { readPerson, type Person } from '../domain/sign-in/person.js'
import { createClientToken } from '../store/client-tokens.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents, type Cause } from '../store/events.js'
import {
  claimByEmail,
  findBySubject,
  insertIdentity,
  lockSubject,
  noteIdentityUse,
  takeIdToken,
  type KnownPerson,
} from '../store/identities.js'
import { giveIssuerRoles } from '../store/issuer-roles.js'
import { findOrganization, insertPrincipal } from '../store/tenancy.js'
import type { PrincipalRow } from '../store/tables.js'
import { sourceKey } from './access.js'
import { callerKey, type ApiDeps } from './context.js'
import { toTime } from './convert.js'
import type { DenialLog } from './denials.js'

/** Of failures by nobody knows whom, so many a minute are worth an entry of the audit log. The log has a line for every one. */
const auditedStrangersAMinute = 60

interface SignedIn {
  readonly secret: string
  readonly tokenId: string
  readonly principal: PrincipalRow
  readonly expiresAt: Date | null
}

/** An issuer, and its keys. */
interface Door {
  readonly issuer: IssuerConfig
  readonly keys: IssuerKeys
}

export function signInService(deps: ApiDeps, denials: DenialLog): ServiceImpl<typeof hub.SignInService> {
  const doors = new Map(
    deps.config.issuers.map((issuer): [string, Door] => [
      issuer.name,
      { issuer, keys: new IssuerKeys(issuer, deps.log) },
    ]),
  )
  const strangers = budgetOf(auditedStrangersAMinute)
  return {
    listIssuers(request) {
      const issuers = deps.config.issuers.filter(({ name, listed }) =>
        request.issuer === '' ? listed : name === request.issuer,
      )
      return {
        issuers: issuers.map(({ name, displayName, issuer, clientId, publicClientSecret, scopes }) => ({
          name,
          displayName,
          issuer,
          clientId,
          publicClientSecret,
          scopes: [...scopes],
        })),
      }
    },

    async signIn(request, context) {
      const door = doors.get(request.issuer)
      if (door === undefined)
        throw new HubError(
          'ISSUER_NOT_FOUND',
          `there is no issuer ${request.issuer}; ListIssuers tells of those there are`,
          {
            metadata: { issuer: request.issuer },
          },
        )
      const { issuer, keys } = door
      const deny = (principal: string, organizationId: string | null) =>
        denials.note({
          identity: { principal, tokenId: '', organizationId },
          method: methodOf(context),
          requestId: context.values.get(callerKey).requestId,
          source: context.values.get(sourceKey),
          resource: `issuers/${issuer.name}`,
        })
      let verified: VerifiedIdToken
      try {
        verified = await verifyIdToken(issuer, keys, request.idToken)
      } catch (error) {
        if (error instanceof HubError && error.reason === 'ID_TOKEN_INVALID' && strangers()) deny('', null)
        throw error
      }
      const reading = readPerson(issuer, verified.claims)
      if (reading.kind === 'refused') {
        if (strangers()) deny('', null)
        throw new HubError('SIGN_IN_REFUSED', reading.why)
      }
      try {
        const signedIn = await inTransaction(deps.db, (tx) => signIn(tx, deps, context, door, verified, reading.person))
        deps.wake.signal({ kind: 'access' }, { kind: 'change' })
        return answer(signedIn)
      } catch (error) {
        if (error instanceof SignInRefused) deny(error.principal, error.organizationId)
        else if (error instanceof HubError && error.reason === 'ID_TOKEN_INVALID' && strangers()) deny('', null)
        throw error
      }
    },
  }
}

/** Somebody whom the issuer knows is not let in. */
class SignInRefused extends HubError {
  readonly principal: string
  readonly organizationId: string | null

  constructor(message: string, row?: PrincipalRow) {
    super('SIGN_IN_REFUSED', message)
    this.principal = row === undefined ? '' : principalName(row.organization_name, row.name)
    this.organizationId = row?.organization_id ?? null
  }
}

function methodOf({ method }: Pick<HandlerContext, 'method'>): string {
  return `${method.parent.typeName}/${method.name}`
}

function answer({ secret, tokenId, principal, expiresAt }: SignedIn) {
  return {
    secret,
    token: resourceName('token', tokenId),
    principal: principalName(principal.organization_name, principal.name),
    displayName: principal.display_name,
    ...(expiresAt !== null && { expireTime: toTime(expiresAt) }),
  }
}

/** Begins a session: everything that is written for it. @throws HubError ID_TOKEN_INVALID, SIGN_IN_REFUSED. */
async function signIn(
  tx: Tx,
  { log }: ApiDeps,
  context: HandlerContext,
  { issuer }: Door,
  verified: VerifiedIdToken,
  person: Person,
): Promise<SignedIn> {
  await lockSubject(tx, issuer.issuer, person.subject)
  if (!(await takeIdToken(tx, verified.digest, verified.usableUntil)))
    throw new HubError('ID_TOKEN_INVALID', 'the ID token was exchanged before, and is good for one time; sign in again')
  const actor = `issuer/${issuer.name}`
  const { identity, principal, made } = await findOrMake(tx, issuer, person, actor)
  if (principal.disabled)
    throw new SignInRefused('you are not let in any more; ask whoever administers the hub', principal)
  await noteIdentityUse(tx, identity.id)
  const { id, token, expiresAt } = await createClientToken(tx, {
    name: `signed in at ${issuer.displayName}`.slice(0, 128),
    principal,
    createdBy: actor,
    identityId: identity.id,
    ttlMs: issuer.sessionMs,
  })
  const roles = await giveIssuerRoles(tx, { principal, actor, wanted: person.bindings })
  for (const missing of roles.missing)
    log.warn({ issuer: issuer.name, ...missing }, 'a group gives a role where there is nothing')
  if (roles.kept > 0)
    log.warn({ issuer: issuer.name }, "the hub's last administrator keeps that role without its group")
  const subject = principalName(principal.organization_name, principal.name)
  const tell = (reason: EventDraft['reason'], message: string): EventDraft => ({
    subject,
    reason,
    message,
    severity: 'INFO',
    ...(principal.organization_id !== null && { organizationId: principal.organization_id }),
  })
  await appendEvents(tx, causeOf(context, subject, id), [
    ...(made ? [tell('PrincipalCreated', `At the first sign-in at ${issuer.issuer}`)] : []),
    tell('SignedIn', `At ${issuer.issuer}`),
    ...roles.bound.map((binding) => tell('RoleBound', `${binding} by ${actor}`)),
    ...roles.unbound.map((binding) => tell('RoleUnbound', `${binding} by ${actor}`)),
  ])
  return { secret: token, tokenId: id, principal, expiresAt }
}

/** The audit log's word of a call that nobody was asked for: it is by whoever it let in. */
function causeOf(context: HandlerContext, principal: string, tokenId: string): Cause {
  return {
    actor: `token/${tokenId}`,
    requestId: context.values.get(callerKey).requestId,
    audit: { id: uuid(), principal, tokenId, source: context.values.get(sourceKey), method: methodOf(context) },
  }
}

/** Whoever it was before, whoever was announced, or somebody new. @throws SignInRefused. */
async function findOrMake(
  tx: Tx,
  issuer: IssuerConfig,
  person: Person,
  actor: string,
): Promise<KnownPerson & { readonly made: boolean }> {
  const { subject, email } = person
  const known =
    (await findBySubject(tx, issuer.issuer, subject)) ??
    (issuer.trustEmail && email !== undefined ? await claimByEmail(tx, issuer.issuer, email, subject) : undefined)
  if (known !== undefined) {
    // The configuration may have given the issuer to another organization since.
    if (known.principal.organization_name === issuer.organization) return { ...known, made: false }
    throw new SignInRefused('the issuer is not that of your organization any more', known.principal)
  }
  if (!issuer.signUp)
    throw new SignInRefused(
      'nobody here knows you yet; ask whoever administers the hub to link your identity to a user',
    )
  const organization = issuer.organization === null ? null : await findOrganization(tx, issuer.organization)
  if (organization === undefined) throw new SignInRefused('the organization of the issuer does not exist')
  const principal = await insertPrincipal(tx, organization, nameOfStranger(issuer, subject), {
    kind: 'USER',
    displayName: person.displayName,
    disabled: false,
    labels: {},
    annotations: {},
  })
  const identity = await insertIdentity(tx, {
    principalId: principal.id,
    issuer: issuer.issuer,
    subject,
    createdBy: actor,
  })
  if (identity === undefined) throw new Error('an identity appeared under the lock of its subject')
  return { identity, principal, made: true }
}

/** A name that nobody can choose: what users are called elsewhere is theirs to change, and could be made to look like somebody. */
function nameOfStranger({ issuer }: IssuerConfig, subject: string): string {
  return `u-${createHash('sha256')
    .update(JSON.stringify([issuer, subject]))
    .digest('hex')
    .slice(0, 20)}`
}

/** Whether there is something left, of so much a minute. */
function budgetOf(aMinute: number): () => boolean {
  let [left, at] = [aMinute, performance.now()]
  return () => {
    const now = performance.now()
    left = Math.min(aMinute, left + ((now - at) / 60_000) * aMinute)
    at = now
    if (left < 1) return false
    left -= 1
    return true
  }
}
