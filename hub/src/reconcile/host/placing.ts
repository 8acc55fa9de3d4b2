import { v7 as uuid } from 'uuid'
import { makeBootstrapSecrets } from '../../auth/bootstrap-secrets.js'
import { keepWaiting, placeHost } from '../../domain/host/placed.js'
import { watchMs, type HostDecision } from '../../domain/host/record.js'
import { externalName, ownershipKey, shortName } from '../../domain/names.js'
import {
  companyWishes,
  domainOf,
  isCompany,
  mustKeepCompany,
  whereIs,
  type Company,
} from '../../domain/placement/company.js'
import {
  judgePlacement,
  layProviderData,
  promisedElsewhere,
  type Candidate,
  type Judged,
} from '../../domain/placement/placement.js'
import { pricedFor } from '../../domain/placement/priced.js'
import { listPrices, type Pricing } from '../../domain/price/pricing.js'
import { demandOf, limitReason, placeOf, type Orderer } from '../../domain/quota/demand.js'
import { lockCompany, readCompany } from '../../store/company.js'
import type { Tx } from '../../store/database.js'
import type { SeenHost } from '../../store/host-reconcile.js'
import {
  allocateMachine,
  deleteSecrets,
  insertRequests,
  lockFreeMachine,
  type RequestDraft,
} from '../../store/host-requests.js'
import { openLimitBook, type LimitBook } from '../../store/limit-book.js'
import { lockIncluded } from '../../store/pools.js'
import { loadCandidates } from '../../store/placement.js'
import { pricingOf, readPricing } from '../../store/pricing.js'
import type { HostRow } from '../../store/tables.js'
import type { ReconcilerDeps } from '../deps.js'
import { Turns } from './turns.js'

/** Where all machines that would do are just being taken by others. */
const takenPauseMs = 500

/** What a place is looked for by, and at whose prices. */
export type PlaceWish = Pick<HostRow, 'class_spec' | 'placement' | 'class_name' | 'organization_id' | 'workspace_id'>

/** Where the hosts are that one order's wishes are about; kept up as more of them are placed. */
interface KnownCompany {
  readonly of: HostRow
  readonly company: readonly (Company & { readonly counts: Map<string, number> })[]
}

/** Finds places for the hosts of one transaction, which it knows of one another, and stores requests for them. */
export class Placing {
  readonly #deps: ReconcilerDeps
  readonly #tx: Tx
  readonly #candidates = new Map<string, Promise<Candidate[]>>()
  /** All that is known of places, for whichever order. */
  readonly #lists: Candidate[][] = []
  readonly #drafts: RequestDraft[] = []
  readonly #pricing = new Map<string, Promise<Pricing>>()
  readonly #company = new Map<string, Promise<KnownCompany>>()
  readonly #turns: Turns
  #opened: Promise<LimitBook> | undefined

  /** @param limits of the hosts to be placed, where they are open already. */
  constructor(deps: ReconcilerDeps, tx: Tx, limits?: Promise<LimitBook>) {
    this.#deps = deps
    this.#tx = tx
    this.#opened = limits
    this.#turns = new Turns(tx)
  }

  /** Reads the places for hosts like these, all in one round trip; and the limits that concern those that are there already, and where others are that they speak of. */
  async expect(wishes: readonly PlaceWish[], hosts: readonly HostRow[] = []): Promise<void> {
    if (hosts.length > 0) {
      this.#opened ??= openLimitBook(
        this.#tx,
        hosts.map((host) => ({ organizationId: host.organization_id, workspaceId: host.workspace_id })),
        { hostIds: hosts.map((host) => host.id) },
      )
    }
    this.#readPricing(wishes.map((wish) => wish.organization_id))
    const workspaceIds = [...new Set(wishes.map((wish) => wish.workspace_id))]
    const included = workspaceIds.length === 0 ? undefined : lockIncluded(this.#tx, workspaceIds)
    await Promise.all([this.#opened, included, ...wishes.map((wish) => this.#load(wish, false))])
    const kept = hosts.filter(({ placement }) => companyWishes(placement).length > 0)
    if (kept.length === 0) return
    // Whoever must keep company looks where it is after all others have placed theirs.
    await lockCompany(
      this.#tx,
      kept.filter(({ placement }) => mustKeepCompany(placement)).map((row) => row.workspace_id),
    )
    await Promise.all(kept.map((row) => this.#companyOf(row)))
  }

  /** Places one host, or says why not. */
  async place({ row, view, sealedUserData }: SeenHost, decision: HostDecision): Promise<HostDecision> {
    const candidates = await this.#load(row, false)
    const limits = await this.#opened
    const company = await this.#companyOf(row)
    const judge = (places: readonly Candidate[]) => this.#judge(row, decision, places, { limits, company })
    const judged = judge(candidates)
    const eligible = judged.filter(({ rejected }) => rejected === undefined)
    if (eligible.length === 0) {
      this.#turns.wait(row, true)
      const explained = row.class_spec.machineSelector === null ? judged : judge(await this.#load(row, true))
      return keepWaiting(decision.host, explained, view.now)
    }
    const machines = eligible.flatMap(({ candidate }) => (candidate.machine === null ? [] : [candidate]))
    const mine = await this.#turns.mine(row, machines, view.now)
    const allowed = eligible.filter(({ candidate }) => candidate.machine === null || mine.includes(candidate))
    if (allowed.length === 0) {
      this.#turns.wait(row, false)
      return keepWaiting(decision.host, judged.map(promisedElsewhere), view.now)
    }
    const request = newRequest()
    const chosen = await this.#take(allowed, row, decision, request)
    if (chosen === undefined) return { ...decision, action: { kind: 'none' }, lookAgainInMs: takenPauseMs }
    if (chosen.machine !== null) await this.#turns.took(row, chosen)
    await this.#use(chosen, row)
    limits?.charge(row.id, demandOf(ordererOf(row), placeOf(chosen)))
    const userData = this.#openUserData(row, sealedUserData)
    this.#drafts.push(makeDraft(this.#deps, row, decision.host.name, chosen, request, userData, view.now))
    const placed = placeHost(decision.host, { ...request, price: chosen.price }, chosen, view.now)
    return {
      host: placed.host,
      action: { kind: 'none' },
      events: [...decision.events, ...placed.events],
      lookAgainInMs: Math.min(watchMs, row.class_spec.bootstrap.provisionTimeoutMs),
    }
  }

  /** Where hosts were placed. */
  get providerIds(): readonly string[] {
    return this.#drafts.map((draft) => draft.request.provider_id)
  }

  /** Stores the requests of all hosts that were placed, what counts against limits by now, and who waits. Says whether other hosts are to be looked at now. */
  async finish(replacedRequestIds: readonly string[], now: Date): Promise<boolean> {
    const limits = await this.#opened
    const [, , , turns] = await Promise.all([
      deleteSecrets(this.#tx, { hostIds: [], requestIds: replacedRequestIds }),
      insertRequests(this.#tx, this.#drafts),
      limits?.flush(this.#tx),
      this.#turns.finish(now),
    ])
    return turns
  }

  #judge(
    row: HostRow,
    decision: HostDecision,
    candidates: readonly Candidate[],
    { limits, company }: { readonly limits: LimitBook | undefined; readonly company: readonly Company[] | undefined },
  ): readonly Judged[] {
    const order = {
      ...{ shape: row.class_spec.shape, placement: row.placement, attempts: decision.host.attempts },
      providerData: row.provider_data,
      ...(company !== undefined && { company }),
    }
    if (limits === undefined || limits.isEmpty) return judgePlacement(order, candidates)
    const excess = (candidate: Candidate) => {
      const found = limits.excess(demandOf(ordererOf(row), placeOf(candidate)), row.id)
      return found && { reason: limitReason(found), message: found.message }
    }
    return judgePlacement({ ...order, excess }, candidates)
  }

  #load(wish: PlaceWish, explain: boolean): Promise<Candidate[]> {
    const { class_spec: spec, placement, class_name: className, organization_id: organizationId } = wish
    this.#readPricing([organizationId])
    const key = JSON.stringify([explain, spec, placement, wish.workspace_id])
    let loaded = this.#candidates.get(key)
    if (loaded === undefined) {
      const orderer = { organizationId, workspaceId: wish.workspace_id }
      loaded = loadCandidates(this.#tx, orderer, spec, placement, { explain }).then((list) => this.#known(list))
      // Whoever waits for it is told, once prices are known: until then, nobody listens.
      loaded.catch(() => undefined)
      this.#candidates.set(key, loaded)
    }
    return this.#priced(loaded, `${key} ${organizationId} ${className}`, organizationId, className)
  }

  /** Places at the prices of whoever orders: the very same as for all others, where there are no prices of its own. */
  async #priced(
    loaded: Promise<Candidate[]>,
    key: string,
    organizationId: string,
    className: string,
  ): Promise<Candidate[]> {
    const pricing = (await this.#pricing.get(organizationId)) ?? listPrices
    if (pricing === listPrices) return loaded
    const known = this.#candidates.get(key)
    if (known !== undefined) return known
    const priced = loaded.then((candidates) => this.#known([...pricedFor(candidates, pricing, className)]))
    this.#candidates.set(key, priced)
    return priced
  }

  #known(candidates: Candidate[]): Candidate[] {
    this.#lists.push(candidates)
    return candidates
  }

  /** Reads how organizations' prices are made, those that are not known yet in one statement. */
  #readPricing(organizationIds: readonly string[]): void {
    const unknown = [...new Set(organizationIds)].filter((id) => !this.#pricing.has(id))
    if (unknown.length === 0) return
    const read = readPricing(this.#tx, unknown)
    for (const id of unknown) {
      const pricing = read.then((found) => pricingOf(found, id))
      // Whoever waits for it is told; nobody may be.
      pricing.catch(() => undefined)
      this.#pricing.set(id, pricing)
    }
  }

  /** The best place that can be had: machines may be taken by others at this very moment. */
  async #take(
    eligible: readonly Judged[],
    row: HostRow,
    decision: HostDecision,
    request: NewRequest,
  ): Promise<Candidate | undefined> {
    for (let index = 0; index < eligible.length;) {
      const candidate = eligible[index]?.candidate
      if (candidate === undefined || candidate.machine === null) return candidate
      const end = eligible.findIndex((judged, at) => at > index && judged.candidate.machine === null)
      const run = eligible.slice(index, end === -1 ? eligible.length : end).map((judged) => judged.candidate)
      const machineId = await lockFreeMachine(
        this.#tx,
        run.flatMap(({ machine }) => (machine === null ? [] : [machine.id])),
      )
      const taken = run.find(({ machine }) => machine !== null && machine.id === machineId)
      if (taken?.machine != null) {
        await allocateMachine(this.#tx, {
          providerId: taken.provider.id,
          machineId: taken.machine.id,
          requestId: request.id,
          requestName: request.name,
          hostId: row.id,
          hostName: decision.host.name,
        })
        return taken
      }
      index += run.length
    }
    return undefined
  }

  /** Where the hosts are that an order speaks of; undefined: it speaks of none. */
  async #companyOf(row: HostRow): Promise<readonly Company[] | undefined> {
    if (companyWishes(row.placement).length === 0) return undefined
    const { affinities, spread } = row.placement
    const key = JSON.stringify([row.workspace_id, row.host_set_id, affinities, spread, row.labels])
    let known = this.#company.get(key)
    if (known === undefined) {
      const order = { workspaceName: row.workspace_name, hostSetId: row.host_set_id, labels: row.labels }
      known = readCompany(this.#tx, order, row.placement).then((company) => ({ of: row, company }))
      known.catch(() => undefined)
      this.#company.set(key, known)
    }
    return (await known).company
  }

  /** What is left for the other hosts of this transaction, of whatever workspace; and whose company they are in now. */
  async #use(chosen: Candidate, row: HostRow): Promise<void> {
    for (const candidates of this.#lists) takeFrom(candidates, chosen)
    const host = { labels: row.labels, hostSetId: row.host_set_id }
    for (const known of this.#company.values()) {
      const { of, company } = await known
      if (of.workspace_id !== row.workspace_id) continue
      for (const [index, wish] of companyWishes(of.placement).entries()) {
        const counts = company[index]?.counts
        const domain = domainOf(wish.domain, whereIs(chosen))
        if (counts === undefined || domain === undefined || !isCompany(wish, { hostSetId: of.host_set_id }, host))
          continue
        counts.set(domain, (counts.get(domain) ?? 0) + 1)
      }
    }
  }

  /** The order's own user-data, or its class's. */
  #openUserData(row: HostRow, sealed: Buffer | null): string {
    if (sealed === null) return row.class_spec.bootstrap.userData
    return this.#deps.keyring.open('host.user-data', row.id, sealed).toString('utf8')
  }
}

/** Takes a place out of what is known of places. */
function takeFrom(candidates: Candidate[], chosen: Candidate): void {
  for (const [index, candidate] of candidates.entries()) {
    if (candidate.provider.id !== chosen.provider.id) continue
    const same = candidate.typeId === chosen.typeId && candidate.location === chosen.location
    const { machine } = candidate
    const sameRack = machine !== null && machine.rack === chosen.machine?.rack
    candidates[index] = {
      ...candidate,
      provider: oneMore(candidate.provider),
      ...(same && candidate.remaining !== null && { remaining: candidate.remaining - 1 }),
      ...(sameRack && { machine: { ...machine, rackLoad: machine.rackLoad + 1 } }),
    }
  }
  const machineId = chosen.machine?.id
  if (machineId === undefined) return
  const at = candidates.findIndex((candidate) => candidate.machine?.id === machineId)
  if (at !== -1) candidates.splice(at, 1)
}

/** A provider with one more host on it. */
function oneMore(provider: Candidate['provider']): Candidate['provider'] {
  const { backlog, claim } = provider
  return { ...provider, backlog: backlog + 1, claim: claim && { ...claim, hosts: claim.hosts + 1 } }
}

function ordererOf(row: HostRow): Orderer {
  return {
    organizationId: row.organization_id,
    workspaceId: row.workspace_id,
    className: row.class_name,
    classSpec: row.class_spec,
  }
}

interface NewRequest {
  readonly id: string
  readonly name: string
}

function newRequest(): NewRequest {
  const id = uuid()
  return { id, name: shortName('r', id) }
}

function makeDraft(
  { config, hubId, keyring }: ReconcilerDeps,
  row: HostRow,
  hostName: string,
  chosen: Candidate,
  request: NewRequest,
  userData: string,
  now: Date,
): RequestDraft {
  const { bootstrap, shape } = row.class_spec
  return {
    request: {
      provider_id: chosen.provider.id,
      id: request.id,
      name: request.name,
      provider_name: chosen.provider.name,
      organization_id: row.organization_id,
      workspace_name: row.workspace_name,
      host_id: row.id,
      host_name: hostName,
      class_id: row.class_id,
      class_name: row.class_name,
      state: 'PENDING',
      external_name: externalName(row.hostname, request.id),
      ownership_key: ownershipKey(hubId, request.id),
      type_id: chosen.typeId,
      location: chosen.location,
      price: chosen.price,
      spec: {
        shape,
        providerData: layProviderData(chosen.providerData, row.provider_data),
        hostname: row.hostname,
        phoneHome: bootstrap.phoneHome,
        phoneHomeTimeoutMs: bootstrap.phoneHomeTimeoutMs,
        provisionTimeoutMs: bootstrap.provisionTimeoutMs,
        labels: row.labels,
        sshPublicKeys: row.ssh_public_keys,
      },
      static: chosen.machine !== null,
      machine_id: chosen.machine?.id ?? null,
      machine_name: chosen.machine?.name ?? null,
    },
    lane: { workspaceId: row.workspace_id, priority: row.priority },
    secrets: makeBootstrapSecrets(keyring, {
      requestId: request.id,
      hostname: row.hostname,
      bootstrap,
      userData,
      publicUrl: config.publicUrl,
      now,
    }),
  }
}
