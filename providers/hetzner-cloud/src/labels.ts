import { ProviderError, type HostContext } from '@slipway/sdk'
import type { Labels } from './api/types.js'

const ownPrefix = 'slipway/'
const vendorPrefix = 'hetzner.cloud/'
const hubLabel = 'slipway/hub'
const requestLabel = 'slipway/request'

const name = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/
const domain = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/

/** Selects all that any hub owns. */
export const anyOwner = hubLabel

/** An ownership key as labels: its two halves, for a label has no room for both. @throws ProviderError for a key that is no hub's. */
export function ownershipLabels(ownershipKey: string): Labels {
  const [hub = '', request = '', ...more] = ownershipKey.split('/')
  if (!name.test(hub) || !name.test(request) || more.length > 0)
    throw new ProviderError('INVALID_SPEC', `"${ownershipKey}" is no ownership key: two names with a slash between`)
  return { [hubLabel]: hub, [requestLabel]: request }
}

/** The ownership key that labels carry; undefined: none. */
export function ownershipKeyOf(labels: Labels | undefined): string | undefined {
  const { [hubLabel]: hub, [requestLabel]: request } = labels ?? {}
  return hub === undefined || request === undefined ? undefined : `${hub}/${request}`
}

/** Whose a server is, by its labels; empty: nobody's. Half a key is somebody's, too, and no key that anybody has given. */
export function claimOf(labels: Labels | undefined): string {
  const { [hubLabel]: hub, [requestLabel]: request } = labels ?? {}
  return hub === undefined && request === undefined ? '' : `${hub ?? ''}/${request ?? ''}`
}

/** The same labels without an ownership key. */
export function withoutOwnership(labels: Labels): Labels {
  return Object.fromEntries(Object.entries(labels).filter(([key]) => key !== hubLabel && key !== requestLabel))
}

/** Selects what carries an ownership key. */
export function selectorOf(ownershipKey: string): string {
  return Object.entries(ownershipLabels(ownershipKey))
    .map(([key, value]) => `${key}=${value}`)
    .join(',')
}

/** What a server is labelled with: those of its order, of its host, and ours, which win. What the vendor does not allow is left out. */
export function serverLabels(ownershipKey: string, host: HostContext, ordered: Labels): Labels {
  const theirs = { ...host.labels, ...ordered }
  const about = { workspace: host.workspace, host: host.host.split('/').at(-1) ?? '', class: host.machineClass }
  const ours = Object.entries(about).map(([key, value]) => [`${ownPrefix}${key}`, value] as const)
  return {
    ...Object.fromEntries(
      [...Object.entries(theirs).filter(([key]) => !key.startsWith(ownPrefix)), ...ours].filter(isAllowed),
    ),
    ...ownershipLabels(ownershipKey),
  }
}

/** Why labels cannot be had; undefined: they can. */
export function labelProblem(labels: Labels): string | undefined {
  const wrong = Object.entries(labels).find((label) => !isAllowed(label) || label[0].startsWith(ownPrefix))
  if (wrong === undefined) return undefined
  return `the label ${wrong[0]}=${wrong[1]} cannot be: keys and values are at most 63 letters, digits, dots, dashes and underscores, and ${vendorPrefix} and ${ownPrefix} are taken`
}

function isAllowed([key, value]: readonly [string, string]): boolean {
  const parts = key.split('/')
  const [prefix, own] = parts.length === 1 ? [undefined, parts[0]] : parts
  if (parts.length > 2 || !name.test(own ?? '') || key.startsWith(vendorPrefix)) return false
  if (prefix !== undefined && (prefix.length > 253 || !domain.test(prefix))) return false
  return value === '' || name.test(value)
}
