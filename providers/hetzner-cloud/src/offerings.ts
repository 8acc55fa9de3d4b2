import type { Offering, Shape } from '@slipway/sdk'
import type { Location, ServerType } from './api/types.js'
import type { Offer } from './catalogue.js'
import type { Config } from './config.js'
import { microsOf } from './price.js'

type PlaceOfType = ServerType['locations'][number]

/** What can be had under a configuration: each type in each location that has it, with what it costs there without tax, and without addresses. */
export function offeringsOf(offer: Offer, config: Config, nowMs: number): Offering[] {
  const places = new Set(locationsOf(offer, config).map(({ name }) => name))
  return offer.types.flatMap((type) =>
    type.locations
      .filter(({ name }) => places.has(name))
      .map((place) => {
        const price = type.prices.find(({ location }) => location === place.name)
        return {
          typeId: type.name,
          location: place.name,
          shape: shapeOf(type),
          available: place.available && !isRetired(place, nowMs),
          ...(price !== undefined && {
            price: {
              currency: offer.currency,
              hourlyMicros: microsOf(price.price_hourly.net),
              monthlyMicros: microsOf(price.price_monthly.net),
            },
          }),
        }
      }),
  )
}

/** The locations that a configuration offers. */
export function locationsOf({ locations }: Pick<Offer, 'locations'>, config: Config): readonly Location[] {
  return locations.filter(
    ({ name, network_zone: zone }) =>
      (config.locations?.includes(name) ?? true) && (config.networkZone === undefined || config.networkZone === zone),
  )
}

/** Whether a type can be had no more where it once could. */
export function isRetired({ deprecation }: PlaceOfType, nowMs: number): boolean {
  return deprecation !== null && Date.parse(deprecation.unavailable_after) <= nowMs
}

/** The type to take in place of one that is retired: the cheapest that has no less of anything, and is not on its way out itself. */
export function successorOf(retired: ServerType, location: string, { types }: Offer): string | undefined {
  const costOf = (type: ServerType): bigint => {
    const price = type.prices.find((each) => each.location === location)
    return microsOf(price?.price_hourly.net ?? '0')
  }
  const [cheapest] = types
    .filter(
      (type) =>
        type.architecture === retired.architecture &&
        (type.cpu_type === retired.cpu_type || type.cpu_type === 'dedicated') &&
        type.cores >= retired.cores &&
        type.memory >= retired.memory &&
        type.disk >= retired.disk &&
        type.locations.some((place) => place.name === location && place.available && place.deprecation === null),
    )
    .sort((a, b) => Number(costOf(a) - costOf(b)) || a.memory - b.memory)
  return cheapest?.name
}

/** What a type has. */
export function shapeOf({ cores, memory, disk, storage_type: storage, architecture }: ServerType): Shape {
  return {
    vcpus: cores,
    memoryMib: Math.floor(memory * 1024),
    diskGib: disk,
    // The vendor says where the disk is, and not what it is made of; its local disks are flash.
    ...(storage === 'local' && { diskClass: 'ssd' }),
    architecture: architecture === 'arm' ? 'arm64' : 'amd64',
  }
}
