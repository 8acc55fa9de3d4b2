import type { Image, Iso, Location, Pricing, ServerType } from './views.js'

const place = (id: number, name: string, city: string, country: string, zone: string): Location => {
  return { id, name, city, country, description: `${city} DC`, latitude: 50, longitude: 10, network_zone: zone }
}

/** Where servers can be. */
export const locations: readonly Location[] = [
  place(1, 'fsn1', 'Falkenstein', 'DE', 'eu-central'),
  place(2, 'nbg1', 'Nuremberg', 'DE', 'eu-central'),
  place(3, 'hel1', 'Helsinki', 'FI', 'eu-central'),
  place(4, 'ash', 'Ashburn, VA', 'US', 'us-east'),
]

interface TypeRow {
  readonly id: number
  readonly name: string
  readonly cores: number
  readonly memory: number
  readonly disk: number
  readonly hourly: number
  readonly architecture?: 'x86' | 'arm'
  readonly dedicated?: true
  readonly places?: readonly string[]
  /** By location: when it can be had no more. */
  readonly retired?: Readonly<Record<string, string>>
}

const germany = ['fsn1', 'nbg1']
const europe = [...germany, 'hel1']

// Names and sizes are made up after the vendor's pattern; prices are not the vendor's.
const typeRows: readonly TypeRow[] = [
  {
    id: 1,
    name: 'cx11',
    cores: 1,
    memory: 2,
    disk: 20,
    hourly: 0.005,
    places: europe,
    retired: {
      fsn1: '2024-09-06T00:00:00+00:00',
      nbg1: '2024-09-06T00:00:00+00:00',
      hel1: '2024-09-06T00:00:00+00:00',
    },
  },
  { id: 22, name: 'cpx11', cores: 2, memory: 2, disk: 40, hourly: 0.007 },
  { id: 104, name: 'cx22', cores: 2, memory: 4, disk: 40, hourly: 0.006, places: europe },
  { id: 105, name: 'cx32', cores: 4, memory: 8, disk: 80, hourly: 0.0113, places: europe },
  {
    id: 23,
    name: 'cpx21',
    cores: 3,
    memory: 4,
    disk: 80,
    hourly: 0.0128,
    retired: { hel1: '2025-01-01T00:00:00+00:00' },
  },
  { id: 45, name: 'cax11', cores: 2, memory: 4, disk: 40, hourly: 0.0064, architecture: 'arm', places: germany },
  { id: 96, name: 'ccx13', cores: 2, memory: 8, disk: 80, hourly: 0.02, dedicated: true },
]

const price = (net: number) => ({ net: net.toFixed(10), gross: (net * 1.19).toFixed(16) })

const priceAt = (location: string, hourly: number) => ({
  location,
  price_hourly: price(location === 'ash' ? hourly * 1.1 : hourly),
  price_monthly: price(Math.round(hourly * 624 * 100) / 100),
  included_traffic: 21_990_232_555_520,
  price_per_tb_traffic: price(1),
})

/** The server types, all of them available where they are to be had at all. */
export function serverTypes(): ServerType[] {
  return typeRows.map((row) => {
    const { id, name, cores, memory, disk, hourly, architecture = 'x86', dedicated, retired = {} } = row
    const places = locations.filter((location) => (row.places ?? [...europe, 'ash']).includes(location.name))
    return {
      id,
      name,
      description: name.toUpperCase(),
      cores,
      memory,
      disk,
      architecture,
      deprecated: false,
      deprecation: null,
      storage_type: 'local',
      cpu_type: dedicated ? 'dedicated' : 'shared',
      category: dedicated ? 'dedicated' : 'shared',
      prices: places.map((location) => priceAt(location.name, hourly)),
      locations: places.map((location) => {
        const unavailableAfter = retired[location.name]
        return {
          id: location.id,
          name: location.name,
          available: unavailableAfter === undefined,
          recommended: unavailableAfter === undefined,
          deprecation:
            unavailableAfter === undefined
              ? null
              : { announced: '2024-06-06T00:00:00+00:00', unavailable_after: unavailableAfter },
        }
      }),
    }
  })
}

const imageRows = [
  ['debian-12', 'debian', '12'],
  ['debian-13', 'debian', '13'],
  ['ubuntu-24.04', 'ubuntu', '24.04'],
  ['rocky-9', 'rocky', '9'],
] as const

/** The system images: each for both architectures, and one that is on its way out. */
export function systemImages(): Image[] {
  const made = imageRows.flatMap(([name, flavor, version], index) =>
    (['x86', 'arm'] as const).map((architecture, half) => ({
      id: 1_000 + index * 2 + half,
      type: 'system' as const,
      status: 'available' as const,
      name,
      description: name,
      image_size: null,
      disk_size: 5,
      created: '2025-01-01T00:00:00+00:00',
      created_from: null,
      bound_to: null,
      os_flavor: flavor,
      os_version: version,
      rapid_deploy: true,
      protection: { delete: false },
      deprecated: null,
      deleted: null,
      labels: {},
      architecture,
    })),
  )
  const [first] = made
  if (first === undefined) return made
  return [
    ...made,
    {
      ...first,
      id: 900,
      name: 'debian-10',
      description: 'debian-10',
      os_version: '10',
      deprecated: '2024-07-01T00:00:00+00:00',
    },
  ]
}

export function isos(): Iso[] {
  return [
    {
      id: 8_000,
      name: 'netboot.iso',
      description: 'A boot loader',
      type: 'public',
      architecture: null,
      deprecation: null,
    },
  ]
}

export function pricing(types: readonly ServerType[]): Pricing {
  const everywhere = locations.map(({ name }) => ({
    location: name,
    price_hourly: price(0.0008),
    price_monthly: price(0.5),
  }))
  return {
    currency: 'EUR',
    vat_rate: '19.000000',
    floating_ip: { price_monthly: price(3) },
    floating_ips: [],
    load_balancer_types: [],
    image: { price_per_gb_month: price(0.011) },
    primary_ips: [
      { type: 'ipv4', prices: everywhere },
      {
        type: 'ipv6',
        prices: everywhere.map(({ location }) => ({ location, price_hourly: price(0), price_monthly: price(0) })),
      },
    ],
    server_backup: { percentage: '20.000000' },
    server_types: types.map(({ id, name, prices }) => ({ id, name, prices })),
    volume: { price_per_gb_month: price(0.044) },
  }
}
