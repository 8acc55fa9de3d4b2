import { ConditionStatus } from '@slipway/proto/provider/v1'
import { usageError } from './failure.js'
import type { Common, ResourceType } from './resource-type.js'
import { hosts } from './resources-hosts.js'
import { hostSets } from './resources-host-sets.js'
import { machineRequests, machines } from './resources-machines.js'
import { orphans } from './resources-orphans.js'
import { providerPools } from './resources-pools.js'
import { billingAgreements, priceLists } from './resources-prices.js'
import { quotas } from './resources-quotas.js'
import { secrets } from './resources-secrets.js'
import { machineClasses, providers } from './resources-supply.js'
import { organizations, principals, roleBindings, tokens, workspaces } from './resources-tenancy.js'

// All resources that the generic commands know, and how a word or a reference leads to one.

const all = [
  providers,
  providerPools,
  secrets,
  quotas,
  priceLists,
  billingAgreements,
  machineClasses,
  machines,
  machineRequests,
  hosts,
  hostSets,
  orphans,
  organizations,
  workspaces,
  principals,
  roleBindings,
  tokens,
] as unknown as readonly ResourceType[]

export const resourceTypes: readonly ResourceType[] = all
export const hostType = hosts
export const hostSetType = hostSets
export const machineType = machines

/** The resource that a word means: singular, plural or short, in any case. @throws CliError. */
export function resourceType(word: string): ResourceType {
  const wanted = word.toLowerCase().replace(/-/g, '')
  const found = all.find((type) =>
    [type.singular, type.plural, type.kind.toLowerCase(), ...type.aliases].includes(wanted),
  )
  if (found !== undefined) return found
  throw usageError(
    `there is no resource «${word}»; there are ${[...all.map((type) => type.plural), 'events'].join(', ')}`,
  )
}

/** A reference like `host/web-1`, or a full resource name. @throws CliError. */
export function parseReference(
  text: string,
  workspace: string,
): { readonly type: ResourceType; readonly name: string } {
  if (/^workspaces\/[^/]+\/hosts\/[^/]+$/.test(text)) return { type: resourceType('host'), name: text }
  if (/^workspaces\/[^/]+\/hostSets\/[^/]+$/.test(text)) return { type: resourceType('hostset'), name: text }
  if (/^providers\/[^/]+\/orphans\/[^/]+$/.test(text)) return { type: resourceType('orphan'), name: text }
  const inOrganization = /^organizations\/[^/]+\/(secrets|quotas|billingAgreements|principals)\/[^/]+$/.exec(text)
  if (inOrganization?.[1] !== undefined) return { type: resourceType(inOrganization[1]), name: text }
  const [word = '', id = '', ...rest] = text.split('/')
  if (id === '' || rest.length > 0)
    throw usageError(`«${text}» is no reference: write RESOURCE/NAME, for example host/web-1`)
  const type = resourceType(word)
  return { type, name: type.fullName(id, workspace) }
}

/** Whether a condition of a resource stands as wanted. */
export function conditionIs(resource: Common, type: string, wanted: string): boolean {
  const found = resource.conditions?.find((condition) => condition.type.toLowerCase() === type.toLowerCase())
  const status =
    found === undefined
      ? 'UNKNOWN'
      : found.status === ConditionStatus.UNSPECIFIED
        ? 'UNKNOWN'
        : ConditionStatus[found.status]
  return status === wanted.toUpperCase()
}
