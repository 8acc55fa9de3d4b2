import { answer, answerIfAny, type Api } from './api/client.js'
import { listAll } from './api/paging.js'
import { Shared } from './api/shared.js'
import type { Firewall, Image, Location, Network, PlacementGroup, PrimaryIp, ServerType, SshKey } from './api/types.js'
import type { Reference } from './config.js'

/** For how long what was read is taken for so. Orders are checked in bursts, and these things change slowly. */
const keptMs = 30_000

/** What the vendor has to offer. */
export interface Offer {
  readonly types: readonly ServerType[]
  readonly locations: readonly Location[]
  readonly currency: string
}

/** Things of the project that orders name. */
interface Things {
  readonly sshKey: SshKey
  readonly network: Network
  readonly firewall: Firewall
  readonly placementGroup: PlacementGroup
  readonly primaryIp: PrimaryIp
}

export type Kind = keyof Things

interface LookUp {
  readonly byId: (id: number) => Promise<unknown>
  readonly byName: (name: string) => Promise<unknown>
  /** Whether it changes as servers come and go. */
  readonly changes?: true
}

/** What can be ordered, and what orders name, each read when it is asked for and kept for a short while. */
export class Catalogue {
  readonly #api: Api
  readonly #kept = new Shared(keptMs)

  constructor(api: Api) {
    this.#api = api
  }

  /** What the vendor has to offer. */
  offer(signal: AbortSignal): Promise<Offer> {
    return this.#kept.get('offer', signal, (shared) => this.#readOffer(shared))
  }

  /** The image of this name for an architecture, or of this id; undefined: there is none. */
  image(wanted: Reference, architecture: 'x86' | 'arm', signal: AbortSignal): Promise<Image | undefined> {
    return this.#kept.get(`image/${architecture}/${wanted}`, signal, (shared) =>
      byIdOrName(
        wanted,
        async (id) => (await answerIfAny(this.#client.GET('/images/{id}', at(id, shared))))?.image,
        async (name) => {
          const params = { query: { name, architecture, include_deprecated: true } }
          const { images } = await answer(this.#client.GET('/images', { params, signal: shared }))
          return images[0]
        },
      ),
    )
  }

  /** The newest image of a system that is not on its way out. */
  async newestImage(flavor: string, architecture: 'x86' | 'arm', signal: AbortSignal): Promise<string | undefined> {
    const query = { type: ['system' as const], architecture, per_page: 50 }
    const { images } = await answer(this.#client.GET('/images', { params: { query }, signal }))
    const [newest] = images
      .filter((image) => image.os_flavor === flavor && image.deprecated === null && image.name !== null)
      .sort((a, b) => Number(b.os_version ?? 0) - Number(a.os_version ?? 0) || b.id - a.id)
    return newest?.name ?? undefined
  }

  /** A thing of the project by name or id; undefined: there is none. What changes with use is read each time. */
  async find<K extends Kind>(kind: K, wanted: Reference, signal: AbortSignal): Promise<Things[K] | undefined> {
    const read = (shared: AbortSignal): Promise<unknown> => {
      const { byId, byName } = this.#lookUps(shared)[kind]
      return byIdOrName(wanted, byId, byName)
    }
    const { changes } = this.#lookUps(signal)[kind]
    const found = changes === true ? read(signal) : this.#kept.get(`${kind}/${wanted}`, signal, read)
    return (await found) as Things[K] | undefined
  }

  get #client() {
    return this.#api.as('normal')
  }

  async #readOffer(signal: AbortSignal): Promise<Offer> {
    const types: ServerType[] = []
    const pages = listAll(async (query) => {
      const page = await answer(this.#client.GET('/server_types', { params: { query }, signal }))
      return { items: page.server_types, meta: page.meta }
    })
    for await (const type of pages) types.push(type)
    const [{ locations }, { pricing }] = await Promise.all([
      answer(this.#client.GET('/locations', { params: { query: { per_page: 50 } }, signal })),
      answer(this.#client.GET('/pricing', { signal })),
    ])
    return { types, locations, currency: pricing.currency }
  }

  #lookUps(signal: AbortSignal): Record<Kind, LookUp> {
    const client = this.#client
    return {
      sshKey: {
        byId: async (id) => (await answerIfAny(client.GET('/ssh_keys/{id}', at(id, signal))))?.ssh_key,
        byName: async (name) => (await answer(client.GET('/ssh_keys', named(name, signal)))).ssh_keys[0],
      },
      network: {
        byId: async (id) => (await answerIfAny(client.GET('/networks/{id}', at(id, signal))))?.network,
        byName: async (name) => (await answer(client.GET('/networks', named(name, signal)))).networks[0],
      },
      firewall: {
        byId: async (id) => (await answerIfAny(client.GET('/firewalls/{id}', at(id, signal))))?.firewall,
        byName: async (name) => (await answer(client.GET('/firewalls', named(name, signal)))).firewalls[0],
      },
      placementGroup: {
        byId: async (id) => (await answerIfAny(client.GET('/placement_groups/{id}', at(id, signal))))?.placement_group,
        byName: async (name) =>
          (await answer(client.GET('/placement_groups', named(name, signal)))).placement_groups[0],
        changes: true,
      },
      primaryIp: {
        byId: async (id) => (await answerIfAny(client.GET('/primary_ips/{id}', at(id, signal))))?.primary_ip,
        byName: async (name) => (await answer(client.GET('/primary_ips', named(name, signal)))).primary_ips[0],
        changes: true,
      },
    }
  }
}

function at(id: number, signal: AbortSignal) {
  return { params: { path: { id } }, signal }
}

function named(name: string, signal: AbortSignal) {
  return { params: { query: { name } }, signal }
}

/** A reference of digits alone is an id first, as the vendor takes it. */
async function byIdOrName<Thing>(
  wanted: Reference,
  byId: (id: number) => Promise<Thing | undefined>,
  byName: (name: string) => Promise<Thing | undefined>,
): Promise<Thing | undefined> {
  const id = /^[1-9]\d{0,15}$/.test(String(wanted)) ? Number(wanted) : undefined
  const found = id === undefined ? undefined : await byId(id)
  return found ?? (typeof wanted === 'string' ? byName(wanted) : undefined)
}
