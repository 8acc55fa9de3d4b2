import { HubError } from '../domain/error/errors.js'
import type { ClassSpec, PlacementWish } from '../domain/host/host.js'
import { companyWishes, type Company } from '../domain/placement/company.js'
import type { Candidate } from '../domain/placement/placement.js'
import type { Pricing } from '../domain/price/pricing.js'
import { Batcher, type Settled } from '../store/batcher.js'
import { readCompany, type CompanyOrder } from '../store/company.js'
import type { Db } from '../store/database.js'
import { findWorkspaces, type WorkspaceKey, type WorkspaceRef } from '../store/hosts.js'
import { readLimitBook, type LimitBook } from '../store/limit-book.js'
import { findAnswers, type IdempotencyKey } from '../store/idempotency.js'
import { findClassesByName } from '../store/machine-classes.js'
import { loadCandidates, type CandidateOrderer } from '../store/placement.js'
import { readOpenPools, type OpenPools } from '../store/pools.js'
import { pricingOf, readPricing } from '../store/pricing.js'
import { findProvidersByName } from '../store/providers.js'
import { SharedReads, type SharedRead } from '../store/shared-reads.js'
import type { MachineClassRow, ProviderRow } from '../store/tables.js'

const maxBatch = 200

/** A workspace, as the call of a tenant may see it. */
interface SeenWorkspace {
  readonly name: string
  /** As far as the call reaches. */
  readonly db: Db
  /** Names that reach: calls of one token reach equally far. */
  readonly reach: string
}

interface Place {
  readonly orderer: CandidateOrderer
  readonly spec: ClassSpec
  readonly placement: PlacementWish
}

/**
 * What orders are checked against. Reads for orders that come at the same time are one round trip; each begins after whoever shares it has asked, so nobody is given what
 * is older than the question.
 */
export class OrderReads {
  readonly #workspaces: (name: string) => Promise<WorkspaceRef | undefined>
  readonly #seenWorkspaces = new Batcher<SeenWorkspace, WorkspaceRef | undefined>({ max: maxBatch, work: lookWithin })
  readonly #classes: (name: string) => Promise<MachineClassRow | undefined>
  readonly #providers: (name: string) => Promise<ProviderRow | undefined>
  readonly #answers: (key: IdempotencyKey) => Promise<Uint8Array | undefined>
  readonly #candidates: (place: Place) => Promise<readonly Candidate[]>
  readonly #limits: (workspace: WorkspaceKey) => Promise<LimitBook>
  readonly #pricing: (organizationId: string) => Promise<Pricing>
  readonly #openPools: (workspace: string) => Promise<OpenPools | undefined>
  readonly #db: Db

  constructor(db: Db) {
    this.#db = db
    const reads = new SharedReads(db)
    this.#workspaces = reads.kind(byName(findWorkspaces))
    this.#classes = reads.kind(byName(findClassesByName))
    this.#providers = reads.kind(byName(findProvidersByName))
    this.#answers = reads.kind(async (connection, keys) => {
      const found = await findAnswers(connection, keys)
      return keys.map((key) => {
        const answer = found.get(key)
        return answer instanceof HubError ? { ok: false, error: answer } : { ok: true, result: answer }
      })
    })
    this.#limits = reads.kind(async (connection, workspaces) => {
      const scopes = workspaces.map(({ organizationId, id }) => ({ organizationId, workspaceId: id }))
      const book = await readLimitBook(connection, scopes)
      return workspaces.map(() => ({ ok: true, result: book }))
    })
    this.#pricing = reads.kind(async (connection, organizationIds) => {
      const pricing = await readPricing(connection, organizationIds)
      return organizationIds.map((id) => ({ ok: true, result: pricingOf(pricing, id) }))
    })
    this.#openPools = reads.kind(async (connection, names) => {
      const open = await readOpenPools(connection, [...new Set(names)])
      return names.map((name) => ({ ok: true, result: open.get(name) }))
    })
    this.#candidates = reads.kind(async (connection, places) => {
      const keys = places.map((place) => JSON.stringify(place))
      const distinct = new Map(places.map((place, index) => [keys[index] ?? '', place]))
      const loaded = await Promise.all(
        [...distinct].map(async ([key, { orderer, spec, placement }]): Promise<[string, readonly Candidate[]]> => [
          key,
          await loadCandidates(connection, orderer, spec, placement),
        ]),
      )
      const byPlace = new Map(loaded)
      return keys.map((key) => ({ ok: true, result: byPlace.get(key) ?? [] }))
    })
  }

  /** What a workspace could claim of pools; undefined: nothing. */
  openPools(name: string): Promise<OpenPools | undefined> {
    return this.#openPools(name)
  }

  workspace(name: string): Promise<WorkspaceRef | undefined> {
    return this.#workspaces(name)
  }

  /** The same for a tenant: the database shows it what it reaches. Orders of one token share one look. */
  visibleWorkspace(workspace: SeenWorkspace): Promise<WorkspaceRef | undefined> {
    return this.#seenWorkspaces.submit(workspace)
  }

  machineClass(name: string): Promise<MachineClassRow | undefined> {
    return this.#classes(name)
  }

  provider(name: string): Promise<ProviderRow | undefined> {
    return this.#providers(name)
  }

  /** The answer that a key was given before. @throws HubError IDEMPOTENCY_KEY_REUSED */
  answer(key: IdempotencyKey): Promise<Uint8Array | undefined> {
    return this.#answers(key)
  }

  /** The limits that concern a workspace, and maybe others: only to be asked, never changed. */
  limits(workspace: WorkspaceKey): Promise<LimitBook> {
    return this.#limits(workspace)
  }

  /** How an organization's prices are made. */
  pricing(organizationId: string): Promise<Pricing> {
    return this.#pricing(organizationId)
  }

  /** Where the hosts are that an order's affinities and spreading are about; undefined, and nothing read, where it has none. */
  async company(order: CompanyOrder, placement: PlacementWish): Promise<readonly Company[] | undefined> {
    return companyWishes(placement).length === 0 ? undefined : readCompany(this.#db, order, placement)
  }

  /** The places to be judged for an order. */
  candidates(orderer: CandidateOrderer, spec: ClassSpec, placement: PlacementWish): Promise<readonly Candidate[]> {
    return this.#candidates({ orderer, spec, placement })
  }
}

async function lookWithin(asked: readonly SeenWorkspace[]): Promise<readonly Settled<WorkspaceRef | undefined>[]> {
  const groups = new Map<string, { readonly db: Db; readonly names: Set<string> }>()
  for (const { reach, db, name } of asked) {
    const group = groups.get(reach) ?? { db, names: new Set<string>() }
    group.names.add(name)
    groups.set(reach, group)
  }
  const found = new Map<string, WorkspaceRef>()
  await Promise.all(
    [...groups].map(async ([reach, { db, names }]) => {
      for (const row of await findWorkspaces(db, [...names])) found.set(`${reach} ${row.name}`, row)
    }),
  )
  return asked.map(({ reach, name }) => ({ ok: true, result: found.get(`${reach} ${name}`) }))
}

function byName<Row extends { readonly name: string }>(
  read: (connection: Db, names: readonly string[]) => Promise<readonly Row[]>,
): SharedRead<string, Row | undefined> {
  return async (connection, names) => {
    const rows = new Map((await read(connection, [...new Set(names)])).map((row) => [row.name, row]))
    return names.map((name) => ({ ok: true, result: rows.get(name) }))
  }
}
