import type { Message } from '@bufbuild/protobuf'
import type { Interceptor } from '@connectrpc/connect'
import { allowedEverywhere, decide, isAnywhere, nowhere, scopesOf, type Decision } from '../domain/access/decide.js'
import type { Permission } from '../domain/access/roles.js'
import { HubError } from '../domain/error/errors.js'
import type { Identity } from '../store/client-tokens.js'
import type { Db } from '../store/database.js'
import {
  placeOfEvent,
  placeOfMachine,
  placeOfOrganization,
  placeOfRequest,
  placeOfToken,
  placeOfWorkspace,
  type FoundPlace,
} from '../store/places.js'
import { callerKey, everything, type Access } from './access.js'
import { ruleOf, type PlaceName, type Rule, type Target } from './policy-table.js'

const maxKnownPlaces = 10_000

export interface Denial {
  /** Who it was; the principal is empty where nobody knows. */
  readonly identity: Pick<Identity, 'principal' | 'tokenId' | 'organizationId'>
  readonly method: string
  readonly requestId: string
  readonly source: string
  /** What the caller wanted to get at, as far as its request says. */
  readonly resource: string
}

/** The one policy that every call passes: what the method asks for, held against what the caller's roles allow. */
export class Policy {
  readonly #db: Db
  /** Organizations and workspaces never move, and their names are given once. */
  readonly #known = new Map<string, FoundPlace>()

  constructor(db: Db) {
    this.#db = db
  }

  /**
   * What the call may do.
   *
   * @throws HubError PERMISSION_MISSING, or whatever is said of what does not exist, where the caller may not know of it; and INVALID_FIELD for names that are none.
   */
  async accessOf(rule: Exclude<Rule, string>, identity: Identity, request: Message): Promise<Access> {
    const { permission } = rule
    const target = rule.target(request)
    if (allowedEverywhere(identity.grants, permission)) return everything
    const decision = await this.#decide(permission, identity, target)
    if (decision === 'hidden' && target.kind === 'place') throw target.hidden()
    if (decision !== 'tenant') throw permissionMissing(permission)
    return tenantAccess(permission, identity)
  }

  async #decide(permission: Permission, identity: Identity, target: Target): Promise<Decision> {
    switch (target.kind) {
      case 'hub':
        return 'denied'
      case 'anywhere':
        return isAnywhere(scopesOf(identity.grants, permission)) ? 'tenant' : 'denied'
      case 'own':
        return 'tenant'
      case 'place': {
        // Everybody may look at itself, and keep its own tokens.
        if (target.at.of === 'principal' && target.at.name === identity.principal && permission !== 'principal.write')
          return 'tenant'
        const place = await this.#find(target.at)
        if (place === undefined) return 'hidden'
        if (place.principalId === identity.principalId) return 'tenant'
        // What is found by an id of its own and belongs to the hub is not even there for anybody else.
        if (place.organizationId === null && target.at.of !== 'principal') return 'hidden'
        return decide(identity.grants, permission, place)
      }
    }
  }

  async #find(at: PlaceName): Promise<FoundPlace | undefined> {
    switch (at.of) {
      case 'organization':
        return this.#remembered(`organizations/${at.id}`, () => placeOfOrganization(this.#db, at.id))
      case 'workspace':
        return this.#remembered(`workspaces/${at.id}`, () => placeOfWorkspace(this.#db, at.id))
      case 'principal':
        return at.organization === null
          ? { organizationId: null, workspace: null }
          : this.#find({ of: 'organization', id: at.organization })
      case 'machine':
        return placeOfMachine(this.#db, at.id)
      case 'machine_request':
        return placeOfRequest(this.#db, at.id)
      case 'event':
        return /^[0-9a-f-]{36}$/.test(at.id) ? placeOfEvent(this.#db, at.id) : undefined
      case 'token':
        return placeOfToken(this.#db, at.id)
    }
  }

  async #remembered(key: string, find: () => Promise<FoundPlace | undefined>): Promise<FoundPlace | undefined> {
    const known = this.#known.get(key)
    if (known !== undefined) return known
    const found = await find()
    if (found === undefined) return undefined
    if (this.#known.size >= maxKnownPlaces) this.#known.clear()
    this.#known.set(key, found)
    return found
  }
}

/** What a tenant's call may do: everything that it sees is where the caller has any role, and all that it changes where that role allows it. */
function tenantAccess(permission: Permission, { grants, tokenId, principalId }: Identity): Access {
  const scopes = scopesOf(grants, permission)
  const write = permission.endsWith('.read') ? nowhere : scopes
  return { kind: 'tenant', scopes, reach: { read: scopesOf(grants), write, tokenId, principalId } }
}

function permissionMissing(permission: Permission): HubError {
  return new HubError('PERMISSION_MISSING', `your roles do not allow ${permission} here; ask whoever administers it`, {
    metadata: { permission },
  })
}

/** Lets calls through that the policy allows, and tells handlers what they may do. @param onDenied is told of calls that would have changed something. */
export function authorization(policy: Policy, onDenied: (denial: Denial) => void): Interceptor {
  return (next) => async (request) => {
    const method = `${request.service.typeName}/${request.method.name}`
    const rule = ruleOf(request.service.typeName, request.method.name)
    if (rule === undefined) throw new HubError('INTERNAL', `nothing says who may call ${method}`)
    if (rule === 'public' || rule === 'authenticated') return next(request)
    const allow = async (message: Message): Promise<void> => {
      const caller = request.contextValues.get(callerKey)
      const { identity } = caller
      if (identity === undefined) throw new HubError('INTERNAL', `nobody was asked who calls ${method}`)
      try {
        const access = await policy.accessOf(rule, identity, message)
        request.contextValues.set(callerKey, { ...caller, access })
      } catch (error) {
        if (error instanceof HubError && error.reason !== 'INVALID_FIELD' && !rule.permission.endsWith('.read')) {
          const { requestId, source = '' } = caller
          onDenied({ identity, method, requestId, source, resource: resourceIn(message) })
        }
        throw error
      }
    }
    if (!request.stream) {
      await allow(request.message)
      return next(request)
    }
    const messages = request.message as AsyncIterable<Message>
    return next({ ...request, message: allowed(messages, allow) as typeof request.message })
  }
}

/** Each message of a stream is a request of its own. */
async function* allowed(
  messages: AsyncIterable<Message>,
  allow: (message: Message) => Promise<void>,
): AsyncGenerator<Message> {
  for await (const message of messages) {
    await allow(message)
    yield message
  }
}

/** What a request names: its own name, its resource's, or its parent's. */
function resourceIn(message: Message): string {
  const fields = message as unknown as Readonly<Record<string, unknown>>
  if (typeof fields['name'] === 'string' && fields['name'] !== '') return fields['name']
  for (const value of Object.values(fields)) {
    if (typeof value === 'object' && value !== null && 'name' in value && typeof value.name === 'string' && value.name)
      return value.name
  }
  const parent = fields['parent'] ?? fields['principal']
  return typeof parent === 'string' ? parent : ''
}
