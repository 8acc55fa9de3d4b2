import { toJson } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { usageError } from '../failure.js'
import { formatTable } from '../format.js'
import { age } from '../resource-type.js'
import { resourceType } from '../resources.js'
import type { Session } from '../session.js'

// Who at which issuers is which user.

function print(session: Session, identities: readonly hub.Identity[]): void {
  const now = session.surroundings.now()
  const rows = identities.map((identity) => [
    identity.name.slice(identity.name.lastIndexOf('/') + 1),
    identity.issuer,
    identity.subject === '' ? `waits for ${identity.email}` : identity.subject,
    identity.lastUseTime === undefined ? 'never' : age(identity.lastUseTime, now),
    age(identity.createTime, now),
  ])
  const text =
    session.output === 'name'
      ? identities.map(({ name }) => `${name}\n`).join('')
      : formatTable(['ID', 'ISSUER', 'SUBJECT', 'USED', 'AGE'], rows)
  session.printValue(
    identities.map((identity) => toJson(hub.IdentitySchema, identity)),
    text,
  )
}

const nameOf = (session: Session, principal: string) => resourceType('principal').fullName(principal, session.workspace)

/** `principal link NAME --issuer ISSUER --subject TEXT | --email ADDRESS`. @throws CliError. */
export async function linkIdentity(
  session: Session,
  principal: string,
  flags: { readonly issuer: string; readonly subject?: string; readonly email?: string },
): Promise<void> {
  if ((flags.subject === undefined) === (flags.email === undefined)) throw usageError('give --subject or --email')
  const client = await session.client()
  const { identity } = await client.identities.createIdentity({
    parent: nameOf(session, principal),
    identity: { issuer: flags.issuer, subject: flags.subject ?? '', email: flags.email ?? '' },
  })
  if (identity !== undefined) print(session, [identity])
}

/** `principal identities NAME`. */
export async function listIdentities(session: Session, principal: string): Promise<void> {
  const client = await session.client()
  const identities: hub.Identity[] = []
  let pageToken = ''
  do {
    const page = await client.identities.listIdentities({ parent: nameOf(session, principal), pageToken })
    identities.push(...page.identities)
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  print(session, identities)
}

/** `principal unlink NAME ID`. */
export async function unlinkIdentity(session: Session, principal: string, id: string): Promise<void> {
  const client = await session.client()
  const name = `${nameOf(session, principal)}/identities/${id}`
  await client.identities.deleteIdentity({ name })
  session.printValue({ deleted: name }, `${name} is unlinked\n`)
}
