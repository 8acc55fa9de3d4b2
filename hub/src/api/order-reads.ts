import { HubError } from '../domain/error/errors.js'
import type { ClassSpec, PlacementWish } from '../domain/host/host.js'
import type { Candidate } from '../domain/placement/placement.js'
import { Batcher } from '../store/batcher.js'
import { onOneConnection, type Db } from '../store/database.js'
import { findWorkspaces, type WorkspaceRef } from '../store/hosts.js'
import { findAnswers, type IdempotencyKey } from '../store/idempotency.js'
import { findClassesByName } from '../store/machine-classes.js'
import { loadCandidates } from '../store/placement.js'
import { findProvidersByName } from '../store/providers.js'
import type { MachineClassRow, ProviderRow } from '../store/tables.js'

const maxBatch = 200

interface Place {
  readonly spec: ClassSpec
  readonly placement: PlacementWish
}

/**
 * What orders are checked against. Reads for orders that come at the same time are one statement; each begins after whoever shares it has asked, so nobody is given what
 * is older than the question.
 */
export class OrderReads {
  readonly #workspaces: Batcher<string, WorkspaceRef | undefined>
  readonly #classes: Batcher<string, MachineClassRow | undefined>
  readonly #providers: Batcher<string, ProviderRow | undefined>
  readonly #answers: Batcher<IdempotencyKey, Uint8Array | undefined>
  readonly #candidates: Batcher<Place, readonly Candidate[]>

  constructor(db: Db) {
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
    this.#candidates = new Batcher({
      max: maxBatch,
      work: async (places) => {
        const distinct = new Map(places.map((place) => [JSON.stringify(place), place]))
        const loaded = await onOneConnection(db, (connection) =>
          Promise.all(
            [...distinct].map(async ([key, { spec, placement }]): Promise<[string, readonly Candidate[]]> => [
              key,
              await loadCandidates(connection, spec, placement),
            ]),
          ),
        )
        const byPlace = new Map(loaded)
        return places.map((place) => ({ ok: true, result: byPlace.get(JSON.stringify(place)) ?? [] }))
      },
    })
  }

  workspace(name: string): Promise<WorkspaceRef | undefined> {
    return this.#workspaces.submit(name)
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

  /** The places to be judged for an order. */
  candidates(spec: ClassSpec, placement: PlacementWish): Promise<readonly Candidate[]> {
    return this.#candidates.submit({ spec, placement })
  }
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
