import type { ClaimPath, GroupBinding, IssuerConfig } from './issuer.js'

// Who somebody is and may be, by what an issuer says of them. The claims are those of a token that was verified.

export type Claims = Readonly<Record<string, unknown>>

export interface Person {
  /** Who it is at the issuer, for ever. */
  readonly subject: string
  /** For people; it proves nothing. */
  readonly displayName: string
  /** An address that the issuer has seen to be this person's, in small letters. Undefined: none that is to be believed. */
  readonly email: string | undefined
  readonly bindings: readonly GroupBinding[]
}

/** Either somebody, or why nobody. */
export type Reading =
  { readonly kind: 'person'; readonly person: Person } | { readonly kind: 'refused'; readonly why: string }

const maxSubject = 255
const maxDisplayName = 128

/** Reads somebody out of claims. */
export function readPerson(issuer: IssuerConfig, claims: Claims): Reading {
  const subject = own(claims, issuer.subjectClaim)
  if (typeof subject !== 'string' || subject === '' || subject.length > maxSubject || hasControls(subject))
    return refused(`the ID token's claim ${issuer.subjectClaim} does not name anybody`)
  for (const { path, values } of issuer.requiredClaims) {
    const found = listed(claimAt(claims, path))
    if (!values.some((value) => found.includes(value)))
      return refused(`the ID token's claim ${path.join('.')} is not as this hub wants it; sign in as somebody else`)
  }
  if (issuer.groups !== undefined && isElsewhere(claims, issuer.groups.path))
    return refused(
      `the ID token does not hold its groups, which are too many for it; have the issuer send only those that are assigned to the application`,
    )
  return {
    kind: 'person',
    person: {
      subject,
      displayName: displayNameOf(claims) ?? subject.slice(0, maxDisplayName),
      email: claims['email_verified'] === true ? normalEmail(claims['email']) : undefined,
      bindings: bindingsOf(issuer, claims),
    },
  }
}

function refused(why: string): Reading {
  return { kind: 'refused', why }
}

/** An address as it is compared: small letters. Undefined for what is none, and for one beyond ASCII, where letters can look alike. */
export function normalEmail(given: unknown): string | undefined {
  if (typeof given !== 'string' || given.length > 254) return undefined
  return /^[!-?A-~]+@[!-?A-~]+$/.test(given) ? given.toLowerCase() : undefined
}

/** The roles that somebody's groups give, each once. */
function bindingsOf({ groups }: IssuerConfig, claims: Claims): readonly GroupBinding[] {
  if (groups === undefined) return []
  const member = new Set(listed(claimAt(claims, groups.path)))
  const wanted = new Map<string, GroupBinding>()
  for (const binding of groups.bindings) {
    if (!member.has(binding.group)) continue
    const key = bindingKey(binding)
    if (!wanted.has(key)) wanted.set(key, binding)
  }
  return [...wanted.values()]
}

/** The same for bindings of the same role at the same place, whichever group they come from. */
export function bindingKey({ role, organization, workspace }: Omit<GroupBinding, 'group'>): string {
  return JSON.stringify([role, organization, workspace])
}

/** What has to change in the roles that an issuer has given, so that they are those that it gives now. */
export function compareBindings<Held extends Omit<GroupBinding, 'group'>>(
  held: readonly Held[],
  wanted: readonly GroupBinding[],
): { readonly add: readonly GroupBinding[]; readonly remove: readonly Held[] } {
  const have = new Set(held.map(bindingKey))
  const want = new Set(wanted.map(bindingKey))
  return {
    add: wanted.filter((binding) => !have.has(bindingKey(binding))),
    remove: held.filter((binding) => !want.has(bindingKey(binding))),
  }
}

function displayNameOf(claims: Claims): string | undefined {
  for (const name of ['name', 'preferred_username', 'email']) {
    const value = claims[name]
    if (typeof value !== 'string') continue
    const clean = [...value.trim()]
      .filter((letter) => !hasControls(letter))
      .slice(0, maxDisplayName / 2)
      .join('')
    if (clean !== '') return clean
  }
  return undefined
}

/** Control characters, and marks that turn the direction of what stands beside them. */
function hasControls(text: string): boolean {
  return /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u.test(text)
}

/** A claim that holds one thing, or several. */
function listed(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value
  return value === undefined ? [] : [value]
}

function claimAt(claims: Claims, path: ClaimPath): unknown {
  let value: unknown = claims
  for (const part of path) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined
    value = own(value as Claims, part)
  }
  return value
}

function own(claims: Claims, name: string): unknown {
  return Object.hasOwn(claims, name) ? claims[name] : undefined
}

/** Whether a claim is told by reference: OpenID Connect Core, section 5.6.2. Entra ID does so with more than 200 groups. */
function isElsewhere(claims: Claims, path: ClaimPath): boolean {
  const names = claims['_claim_names']
  const [first = ''] = path
  return (
    typeof names === 'object' && names !== null && Object.hasOwn(names, first) && claimAt(claims, path) === undefined
  )
}
