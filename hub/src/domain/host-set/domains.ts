import type { PlacementWish } from '../host/host.js'
import type { Candidate } from '../placement/placement.js'
import type { Spread } from './host-set.js'

// Where members of a set may be, as far as they are spread over it. A place's name says what an order is narrowed to.

/** The name of the place that a candidate is in; empty: members are not spread. */
export function domainOf(spread: Spread, candidate: Pick<Candidate, 'location' | 'provider'>): string {
  switch (spread) {
    case 'NONE':
      return ''
    case 'PROVIDER':
      return candidate.provider.name
    case 'LOCATION':
      return candidate.location === '' ? `@${candidate.provider.name}` : candidate.location
    case 'FAILURE_DOMAIN':
      return `${candidate.location}@${candidate.provider.name}`
  }
}

/** The wish narrowed to a place. */
export function narrowTo(wish: PlacementWish, spread: Spread, domain: string): PlacementWish {
  if (spread === 'NONE' || domain === '') return wish
  const at = domain.indexOf('@')
  const provider = spread === 'PROVIDER' ? domain : at < 0 ? '' : domain.slice(at + 1)
  const location = spread === 'PROVIDER' ? '' : at < 0 ? domain : domain.slice(0, at)
  return {
    ...wish,
    ...(provider !== '' && { providers: [provider] }),
    ...(location !== '' && { locations: [location] }),
  }
}
