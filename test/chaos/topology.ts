/** The parties of every run, and the links between them. Each party is a network namespace of its own. */

export const hubs = ['hub-1', 'hub-2'] as const
export const clouds = ['cloud-a', 'cloud-b'] as const
export const rack = 'rack'
export const providers = ['cloud-a-1', 'cloud-a-2', 'cloud-b-1', 'cloud-b-2', 'rack-1'] as const
export const clients = ['client-1', 'client-2', 'client-3'] as const
export const watchers = ['watcher-1', 'watcher-2'] as const
export const database = 'db'

/** The lease of the hubs; what stands still for longer loses it. */
export const leaseMs = 3_000

/** A link of the proxy, by who dials through it. */
export interface Wire {
  readonly name: string
  /** The party that dials. */
  readonly near: string
  /** The parties that it reaches. */
  readonly far: readonly string[]
  readonly class: 'hub-db' | 'provider-hub' | 'client-hub' | 'watcher-hub'
}

export const wires: readonly Wire[] = [
  ...hubs.map((near): Wire => ({ name: `${near}/db`, near, far: [database], class: 'hub-db' })),
  ...providers.map((near): Wire => ({ name: `${near}/hub`, near, far: hubs, class: 'provider-hub' })),
  ...clients.map((near): Wire => ({ name: `${near}/hub`, near, far: hubs, class: 'client-hub' })),
  ...watchers.map((near): Wire => ({ name: `${near}/hub`, near, far: hubs, class: 'watcher-hub' })),
]

export function wireNamed(name: string): Wire {
  const wire = wires.find((candidate) => candidate.name === name)
  if (wire === undefined) throw new Error(`there is no wire ${name}`)
  return wire
}

const groups: readonly { readonly parties: readonly string[]; readonly subnet: number }[] = [
  { parties: [database], subnet: 1 },
  { parties: hubs, subnet: 2 },
  { parties: providers, subnet: 3 },
  { parties: clients, subnet: 4 },
  { parties: watchers, subnet: 5 },
]

export const parties: readonly string[] = groups.flatMap((group) => group.parties)

/** A party's own address. */
export function addressOf(party: string): string {
  for (const { parties, subnet } of groups) {
    const index = parties.indexOf(party)
    if (index !== -1) return `10.99.${subnet}.${index + 1}`
  }
  throw new Error(`there is no party ${party}`)
}

/** The address that a wire has at the proxy. */
export function wireAddress(name: string): string {
  const index = wires.findIndex((wire) => wire.name === name)
  if (index === -1) throw new Error(`there is no wire ${name}`)
  return `10.99.200.${index + 10}`
}

/** Where booted machines phone home. */
export const homeAddress = '10.99.200.5'
/** Where the clerk reaches the hubs. */
export const clerkAddress = '10.99.200.6'
