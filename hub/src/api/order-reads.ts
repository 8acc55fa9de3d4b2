import { HubError } from '../domain/error/errors.js'
import type { ClassSpec, PlacementWish } from '../domain/host/host.js'
import { companyWishes, type Company } from '../domain/placement/company.js'
import type { Candidate } from '../domain/placement/placement.js'
import type { Pricing } from '../domain/price/pricing.js'
import { Batcher, type Settled } from '../store/batcher.js'
import { readCompany, type CompanyOrder } from '../store/company.js'
import { onOneConnection, type Db } from '../store/database.js'
import { findWorkspaces, type WorkspaceKey, type WorkspaceRef } from '../store/hosts.js'
import { readLimitBook, type LimitBook } from '../store/limit-book.js'
import { findAnswers, type IdempotencyKey } from '../store/idempotency.js'
import { findClassesByName } from '../store/machine-classes.js'
import { loadCandidates, type CandidateOrderer } from '../store/placement.js'
import { readOpenPools, type OpenPools } from '../store/pools.js'
import { pricingOf, readPricing } from '../store/pricing.js'
import { findProvidersByName } from '../store/providers.js'
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
 * What orders are checked against. Reads for orders that come at the same time are one statement; each begins after whoever shares it has asked, so nobody is given what
 * is older than the question.
 */
export class OrderReads {
  readonly #workspaces: Batcher<string, WorkspaceRef | undefined>
  readonly #seenWorkspaces = new Batcher<SeenWorkspace, WorkspaceRef | undefined>({ max: maxBatch, work: lookWithin })
  readonly #classes: Batcher<string, MachineClassRow | undefined>
  readonly #providers: Batcher<string, ProviderRow | undefined>
  readonly #answers: Batcher<IdempotencyKey, Uint8Array | undefined>
  readonly #candidates: Batcher<Place, readonly Candidate[]>
  readonly #limits: Batcher<WorkspaceKey, LimitBook>
  readonly #pricing: Batcher<string, Pricing>
  readonly #openPools: Batcher<string, OpenPools | undefined>

  readonly #db: Db

  constructor(db: Db) {
    this.#db = db
    this.#workspaces = byName((names) => findWorkspaces(db, names))
    this.#classes = byName((names) => findClassesByName(db, names))
    this.#providers = byName((names) => findProvidersByName(db, names))
    this.#answers = new Batcher({
      max: maxBatch,
      work: async (keys) => {
        const found = await findAnswers(db, keys)
        return keys.map((key) => {
          const answer = found.get(key)
          return answer instanceof HubError ? { ok: false, error: answer } : { ok: true, result: answer }
        })
      },
    })
    this.#limits = new Batcher({
      max: maxBatch,
      work: async (workspaces) => {
        const scopes = workspaces.map(({ organizationId, id }) => ({ organizationId, workspaceId: id }))
        const book = await readLimitBook(db, scopes)
        return workspaces.map(() => ({ ok: true, result: book }))
      },
    })
    this.#pricing = new Batcher({
      max: maxBatch,
      work: async (organizationIds) => {
        const pricing = await readPricing(db, organizationIds)
        return organizationIds.map((id) => ({ ok: true, result: pricingOf(pricing, id) }))
      },
    })
    this.#openPools = new Batcher({
      max: maxBatch,
      work: async (names) => {
        const open = await readOpenPools(db, [...new Set(names)])
        return names.map((name) => ({ ok: true, result: open.get(name) }))
      },
    })
    this.#candidates = new Batcher({
      max: maxBatch,
      work: async (places) => {
        const distinct = new Map(places.map((place) => [JSON.stringify(place), place]))
        const loaded = await onOneConnection(db, (connection) =>
          Promise.all(
            [...distinct].map(async ([key, { orderer, spec, placement }]): Promise<[string, readonly Candidate[]]> => [
              key,
              await loadCandidates(connection, orderer, spec, placement),
            ]),
          ),
        )
        const byPlace = new Map(loaded)
        return places.map((place) => ({ ok: true, result: byPlace.get(JSON.stringify(place)) ?? [] }))
      },
    })
  }

  /** What a workspace could claim of pools; undefined: nothing. */
  openPools(name: string): Promise<OpenPools | undefined> {
    return this.#openPools.submit(name)
  }

  workspace(name: string): Promise<WorkspaceRef | undefined> {
    return this.#workspaces.submit(name)
  }

  /** The same for a tenant: the database shows it what it reaches. Orders of one token share one look. */
  visibleWorkspace(workspace: SeenWorkspace): Promise<WorkspaceRef | undefined> {
    return this.#seenWorkspaces.submit(workspace)
  }

  machineClass(name: string): Promise<MachineClassRow | undefined> {
    return this.#classes.submit(name)
  }

  provider(name: string): Promise<ProviderRow | undefined> {
    return this.#providers.submit(name)
  }

  /** The answer that a key was given before. @throws HubError IDEMPOTENCY_KEY_REUSED */
  answer(key: IdempotencyKey): Promise<Uint8Array | undefined> {
    return this.#answers.submit(key)
  }

  /** The limits that concern a workspace, and maybe others: only to be asked, never changed. */
  limits(workspace: WorkspaceKey): Promise<LimitBook> {
    return this.#limits.submit(workspace)
  }

  /** How an organization's prices are made. */
  pricing(organizationId: string): Promise<Pricing> {
    return this.#pricing.submit(organizationId)
  }

  /** Where the hosts are that an order's affinities and spreading are about; undefined, and nothing read, where it has none. */
  async company(order: CompanyOrder, placement: PlacementWish): Promise<readonly Company[] | undefined> {
    return companyWishes(placement).length === 0 ? undefined : readCompany(this.#db, order, placement)
  }

  /** The places to be judged for an order. */
  candidates(orderer: CandidateOrderer, spec: ClassSpec, placement: PlacementWish): Promise<readonly Candidate[]> {
    return this.#candidates.submit({ orderer, spec, placement })
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
  read: (names: readonly string[]) => Promise<readonly Row[]>,
): Batcher<string, Row | undefined> {
  return new Batcher({
    max: maxBatch,
    work: async (names) => {
      const rows = new Map((await read([...new Set(names)])).map((row) => [row.name, row]))
      return names.map((name) => ({ ok: true, result: rows.get(name) }))
    },
  })
}
