import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { readWorld } from '@slipway/provider-simulated/ledger'
import type { SlipwayClient } from '@slipway/sdk/client'
import { historyFiles, readLines, Writer, type Listing, type Seen, type WatchKind, type WatchLine } from './history.js'
import * as topology from './topology.js'
import { Caller, workspace } from './workload/caller.js'
import { seenEvent, seenHost, seenMachine, seenRequest } from './workload/seen.js'
import type { World } from './world.js'

const pageSize = 500

/** Lists what exists, waits for rest, and lets go of everything at the end: a client like the others, with a history of its own. */
export class Clerk {
  readonly #world: World
  readonly #caller: Caller
  readonly #listings: Writer<Listing>
  #turn = 0

  constructor(world: World) {
    this.#world = world
    const hubs = topology.hubs.map((hub) => world.hubUrl(hub))
    this.#caller = new Caller({ name: 'clerk', hubs, token: world.token, histories: world.histories })
    this.#listings = new Writer(world.histories, 'listings')
  }

  /** Waits until nothing is under way any more, or the time is up: the checker says what was still open then. @returns milliseconds that it took. */
  async untilRest(withinMs: number): Promise<number> {
    return this.#until(withinMs, async (client) => {
      const hosts = await listAll.host(client)
      const requests = await listAll.request(client)
      const machines = await listAll.machine(client)
      // A person's part: a machine whose wipe failed thrice is out of use until then, and the last order may wait for just that one.
      for (const { name, state } of machines)
        if (state.endsWith('_FAILED')) await client.machines.retryMachine({ name })
      return (
        hosts.every(({ state }) => ['READY', 'ERROR', 'RELEASED'].includes(state)) &&
        requests.every(isSettled) &&
        machines.every(isPowerSettled)
      )
    })
  }

  /** Releases every host that is left, and waits until nothing of ours lives in any ledger. @returns milliseconds that it took. */
  async releaseAll(withinMs: number): Promise<number> {
    return this.#until(withinMs, async (client) => {
      const hosts = (await listAll.host(client)).filter(({ state }) => state !== 'RELEASED')
      for (const { name, uid, state } of hosts)
        if (state !== 'RELEASING') await this.#caller.call(this.#turn, { op: 'release', host: name, uid })
      const requests = await listAll.request(client)
      return hosts.length === 0 && requests.every(({ state }) => state === 'GONE') && this.#liveServers() === 0
    })
  }

  /** Writes down all that exists. */
  async list(moment: Listing['moment']): Promise<void> {
    for (const kind of ['host', 'request', 'machine', 'event'] as const) {
      const hub = this.#next()
      const objects = await retried(() => listAll[kind](hub.client))
      this.#listings.write({ at: Date.now(), by: 'clerk', type: 'listing', moment, kind, hub: hub.name, objects })
    }
  }

  /** Waits until every watcher has told of what exists now, or the time is up. @returns milliseconds that it took. */
  async untilWatched(withinMs: number): Promise<number> {
    return this.#until(withinMs, async (client) => {
      for (const kind of ['host', 'request', 'machine'] as const) {
        const objects = await listAll[kind](client)
        for (const file of historyFiles(this.#world.histories, 'watch-')) {
          if (!file.endsWith(`-${kind}.jsonl`)) continue
          const last = lastVersions(readLines<WatchLine>(file))
          if (!objects.every(({ uid, version }) => (last.get(uid) ?? 0) >= version)) return false
        }
      }
      return true
    })
  }

  #liveServers(): number {
    return topology.clouds
      .map((cloud) => this.#world.worldFolder(cloud))
      .filter((folder) => existsSync(join(folder, 'ledger.jsonl')))
      .flatMap((folder) => readWorld(folder).servers)
      .filter(({ isLive, ownershipKey }) => isLive && !ownershipKey.startsWith('somebody-else')).length
  }

  #next(): { readonly name: string; readonly client: SlipwayClient } {
    const index = this.#turn++ % this.#caller.hubs.length
    const client = this.#caller.hubs[index]
    if (client === undefined) throw new Error('there is no hub')
    return { name: topology.hubs[index] ?? '', client }
  }

  async #until(withinMs: number, met: (client: SlipwayClient) => Promise<boolean>): Promise<number> {
    const beganAt = performance.now()
    while (performance.now() - beganAt < withinMs) {
      if (await met(this.#next().client).catch(() => false)) break
      await sleep(250)
    }
    return Math.round(performance.now() - beganAt)
  }
}

function isSettled({ state, observed, generation }: Seen): boolean {
  return state === 'GONE' || (state === 'PROVISIONED' && observed === generation)
}

function isPowerSettled(machine: Seen): boolean {
  if (machine.state === 'GONE') return true
  return machine['reboots'] === machine['rebootsDone'] && !/ING$|WAIT$/.test(machine.state)
}

/** Every resource of a kind, ended ones too. */
const listAll: Readonly<Record<WatchKind, (client: SlipwayClient) => Promise<readonly Seen[]>>> = {
  host: (client) =>
    paged(async (pageToken) => {
      const answer = await client.hosts.listHosts({
        parent: workspace,
        filter: { showReleased: true },
        pageSize,
        pageToken,
      })
      return { objects: answer.hosts.map(seenHost), next: answer.nextPageToken }
    }),
  request: (client) =>
    paged(async (pageToken) => {
      const answer = await client.machineRequests.listMachineRequests({
        filter: { showGone: true },
        pageSize,
        pageToken,
      })
      return { objects: answer.machineRequests.map(seenRequest), next: answer.nextPageToken }
    }),
  machine: (client) =>
    paged(async (pageToken) => {
      const answer = await client.machines.listMachines({ filter: { showGone: true }, pageSize, pageToken })
      return { objects: answer.machines.map(seenMachine), next: answer.nextPageToken }
    }),
  event: (client) =>
    paged(async (pageToken) => {
      const answer = await client.events.listEvents({ pageSize, pageToken })
      return { objects: answer.events.map(seenEvent), next: answer.nextPageToken }
    }),
}

async function paged(
  page: (token: string) => Promise<{ readonly objects: readonly Seen[]; readonly next: string }>,
): Promise<readonly Seen[]> {
  const all: Seen[] = []
  let token = ''
  do {
    const { objects, next } = await page(token)
    all.push(...objects)
    token = next
  } while (token !== '')
  return all
}

async function retried<Result>(work: () => Promise<Result>): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work()
    } catch (error) {
      if (attempt === 10) throw error
      await sleep(500)
    }
  }
}

/** The last version of each object that a watcher was told. */
function lastVersions(lines: readonly WatchLine[]): ReadonlyMap<string, number> {
  const last = new Map<string, number>()
  for (const line of lines)
    if (line.type === 'message') for (const { seen } of line.changes) last.set(seen.uid, seen.version)
  return last
}
