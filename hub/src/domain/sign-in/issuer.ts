import { Ajv2020 } from 'ajv/dist/2020.js'
import { isHubRole, roles, type Role } from '../access/roles.js'

// The issuers that people sign in at, as they are configured.

/** A claim by its name, or within other claims by the way there. */
export type ClaimPath = readonly string[]
type ClaimValue = string | number | boolean

/** A role that whoever is in a group has. */
export interface GroupBinding {
  readonly group: string
  readonly role: Role
  /** Null: the whole hub. */
  readonly organization: string | null
  /** Null: the organization and all of its workspaces. */
  readonly workspace: string | null
}

export interface IssuerConfig {
  /** What the hub calls it: a DNS label. */
  readonly name: string
  readonly displayName: string
  /** Its issuer identifier, exactly as it stands in tokens. */
  readonly issuer: string
  /** As which client the command line signs in. */
  readonly clientId: string
  readonly publicClientSecret: string
  /** Whose tokens are taken: the client's own, and those of others that are named. */
  readonly audiences: readonly string[]
  readonly scopes: readonly string[]
  readonly algorithms: readonly string[]
  /** Where its keys may be fetched from, beside its own origin. */
  readonly keyOrigins: readonly string[]
  /** Whether plain HTTP is good enough, which it is on the loopback alone. */
  readonly allowHttp: boolean
  /** Whose its users are. Null: the hub's own. */
  readonly organization: string | null
  /** Whether everybody is told of it who asks where people sign in. Otherwise one has to know its name. */
  readonly listed: boolean
  /** The claim that names a user for ever. */
  readonly subjectClaim: string
  /** What a token has to say: by claim, any of these values. */
  readonly requiredClaims: readonly { readonly path: ClaimPath; readonly values: readonly ClaimValue[] }[]
  /** Whether somebody whom nobody has announced is let in, as a principal without roles. */
  readonly signUp: boolean
  /** Whether its word is taken for whose an e-mail address is. */
  readonly trustEmail: boolean
  /** Undefined: groups are of no account. */
  readonly groups: { readonly path: ClaimPath; readonly bindings: readonly GroupBinding[] } | undefined
  readonly sessionMs: number
}

/** The configuration cannot be used. The message names the place. */
export class IssuerConfigError extends Error {
  override readonly name = 'IssuerConfigError'
}

/** Signatures that only the holder of a private key can make. HMAC is not among them: whoever could check it could make it. */
export const signatureAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const
const defaultAlgorithms = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA', 'Ed25519']

/** What a user, or an administrator of the issuer, can change, and so another may have tomorrow. */
const changingClaims = ['email', 'preferred_username', 'upn', 'unique_name', 'name', 'nickname', 'phone_number']

const text = { type: 'string', minLength: 1, maxLength: 512 }
const name = { type: 'string', pattern: '^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$' }
const path = { oneOf: [text, { type: 'array', items: text, minItems: 1, maxItems: 8 }] }
const scalar = { type: ['string', 'number', 'boolean'] }
const texts = { type: 'array', items: text, maxItems: 100 }

const issuerSchema = {
  type: 'object',
  additionalProperties: false,
  required: ['name', 'issuer', 'clientId'],
  properties: {
    name,
    displayName: { type: 'string', maxLength: 128 },
    issuer: text,
    clientId: text,
    publicClientSecret: text,
    audiences: texts,
    scopes: texts,
    algorithms: { type: 'array', items: { enum: signatureAlgorithms }, minItems: 1 },
    keyOrigins: texts,
    allowHttp: { type: 'boolean' },
    organization: name,
    listed: { type: 'boolean' },
    subjectClaim: text,
    requiredClaims: {
      type: 'object',
      additionalProperties: { oneOf: [scalar, { type: 'array', items: scalar, minItems: 1 }] },
    },
    signUp: { type: 'boolean' },
    trustEmail: { type: 'boolean' },
    groups: {
      type: 'object',
      additionalProperties: false,
      required: ['claim', 'bindings'],
      properties: {
        claim: path,
        bindings: {
          type: 'array',
          maxItems: 1_000,
          items: {
            type: 'object',
            additionalProperties: false,
            required: ['group', 'role'],
            properties: { group: text, role: { enum: roles }, organization: name, workspace: name },
          },
        },
      },
    },
    sessionMinutes: { type: 'number', minimum: 1, maximum: 43_200 },
  },
} as const
const check = new Ajv2020({ allErrors: true, allowUnionTypes: true }).compile<{ readonly issuers: readonly Given[] }>({
  type: 'object',
  additionalProperties: false,
  required: ['issuers'],
  properties: { issuers: { type: 'array', maxItems: 50, items: issuerSchema } },
})

/** An issuer as it is written. */
interface Given {
  readonly name: string
  readonly displayName?: string
  readonly issuer: string
  readonly clientId: string
  readonly publicClientSecret?: string
  readonly audiences?: readonly string[]
  readonly scopes?: readonly string[]
  readonly algorithms?: readonly string[]
  readonly keyOrigins?: readonly string[]
  readonly allowHttp?: boolean
  readonly organization?: string
  readonly listed?: boolean
  readonly subjectClaim?: string
  readonly requiredClaims?: Readonly<Record<string, ClaimValue | readonly ClaimValue[]>>
  readonly signUp?: boolean
  readonly trustEmail?: boolean
  readonly groups?: {
    readonly claim: string | readonly string[]
    readonly bindings: readonly {
      readonly group: string
      readonly role: Role
      readonly organization?: string
      readonly workspace?: string
    }[]
  }
  readonly sessionMinutes?: number
}

const defaultSessionMinutes = 8 * 60

/** Reads the issuers out of their file's content. @throws IssuerConfigError. */
export function parseIssuers(content: unknown): readonly IssuerConfig[] {
  if (!check(content)) {
    const said = (check.errors ?? []).map(
      ({ instancePath, message = 'is wrong', params }) =>
        `${instancePath === '' ? '/' : instancePath} ${message}${told(params)}`,
    )
    throw new IssuerConfigError([...new Set(said)].slice(0, 5).join('; '))
  }
  const issuers = content.issuers.map(parseIssuer)
  refuseTwice(issuers, 'name')
  refuseTwice(issuers, 'issuer')
  return issuers
}

function told(params: Readonly<Record<string, unknown>>): string {
  const { additionalProperty, allowedValues } = params
  if (typeof additionalProperty === 'string') return ` («${additionalProperty}»)`
  return Array.isArray(allowedValues) ? ` (${allowedValues.join(', ')})` : ''
}

function refuseTwice(issuers: readonly IssuerConfig[], key: 'name' | 'issuer'): void {
  const seen = new Set<string>()
  for (const issuer of issuers) {
    if (seen.has(issuer[key])) throw new IssuerConfigError(`${key} «${issuer[key]}» stands there twice; once is enough`)
    seen.add(issuer[key])
  }
}

function parseIssuer(given: Given, index: number): IssuerConfig {
  const at = `/issuers/${index}`
  const allowHttp = given.allowHttp ?? false
  requireUrl(given.issuer, `${at}/issuer`, allowHttp)
  const keyOrigins = (given.keyOrigins ?? []).map((origin) => {
    const url = requireUrl(origin, `${at}/keyOrigins`, allowHttp)
    if (url.origin !== origin)
      throw new IssuerConfigError(`${at}/keyOrigins must be like ${url.origin}, not «${origin}»`)
    return origin
  })
  const subjectClaim = given.subjectClaim ?? 'sub'
  if (changingClaims.includes(subjectClaim))
    throw new IssuerConfigError(
      `${at}/subjectClaim «${subjectClaim}» can come to mean somebody else; take one that stays, such as sub`,
    )
  const scopes = given.scopes ?? ['openid', 'profile', 'email']
  if (!scopes.includes('openid'))
    throw new IssuerConfigError(`${at}/scopes must have openid: without it there is no ID token`)
  const organization = given.organization ?? null
  return {
    name: given.name,
    displayName: given.displayName ?? given.name,
    issuer: given.issuer,
    clientId: given.clientId,
    publicClientSecret: given.publicClientSecret ?? '',
    audiences: [...new Set([given.clientId, ...(given.audiences ?? [])])],
    scopes,
    algorithms: given.algorithms ?? defaultAlgorithms,
    keyOrigins,
    allowHttp,
    organization,
    listed: given.listed ?? organization === null,
    subjectClaim,
    requiredClaims: Object.entries(given.requiredClaims ?? {}).map(([claim, value]) => ({
      path: [claim],
      values: typeof value === 'object' ? value : [value],
    })),
    signUp: given.signUp ?? true,
    trustEmail: given.trustEmail ?? false,
    groups:
      given.groups === undefined
        ? undefined
        : {
            path: typeof given.groups.claim === 'string' ? [given.groups.claim] : given.groups.claim,
            bindings: given.groups.bindings.map((binding, place) =>
              parseBinding(binding, organization, `${at}/groups/bindings/${place}`),
            ),
          },
    sessionMs: (given.sessionMinutes ?? defaultSessionMinutes) * 60_000,
  }
}

function parseBinding(
  given: NonNullable<Given['groups']>['bindings'][number],
  home: string | null,
  at: string,
): GroupBinding {
  const binding = { ...given, organization: given.organization ?? null, workspace: given.workspace ?? null }
  const { role, organization } = binding
  if (isHubRole(role) !== (organization === null))
    throw new IssuerConfigError(
      isHubRole(role)
        ? `${at}: ${role} is a role of the whole hub; leave organization and workspace out`
        : `${at}: ${role} is a role of an organization; name it`,
    )
  if (isHubRole(role) && binding.workspace !== null)
    throw new IssuerConfigError(`${at}: ${role} is a role of the whole hub; leave workspace out`)
  // Whoever keeps an organization's issuer decides who is in which group of it, and nothing beyond the organization.
  if (home !== null && organization !== home)
    throw new IssuerConfigError(`${at}: the issuer is that of ${home}, and gives no roles anywhere else`)
  return binding
}

/** @throws IssuerConfigError for what is no HTTPS URL, nor one on the loopback where that was allowed. */
function requireUrl(given: string, at: string, allowHttp: boolean): URL {
  const url = URL.canParse(given) ? new URL(given) : undefined
  if (url === undefined || !['https:', 'http:'].includes(url.protocol))
    throw new IssuerConfigError(`${at} must be a URL like https://login.example, but is «${given}»`)
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '')
    throw new IssuerConfigError(`${at} «${url.origin}…» must have no user, query or fragment`)
  if (url.protocol === 'https:') return url
  if (!allowHttp) throw new IssuerConfigError(`${at} must begin with https://, but is «${given}»`)
  if (!isLoopback(url))
    throw new IssuerConfigError(`${at}: allowHttp is for the loopback alone, and «${given}» is not there`)
  return url
}

/** Whether a URL names the machine itself by a literal address: names can be made to mean anything. */
export function isLoopback({ hostname }: URL): boolean {
  return /^127\.\d+\.\d+\.\d+$/.test(hostname) || hostname === '[::1]'
}
