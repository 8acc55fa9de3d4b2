import { v7 as uuid } from 'uuid'
import { makeBootstrapSecrets } from '../../auth/bootstrap-secrets.js'
import { keepWaiting, placeHost } from '../../domain/host/placed.js'
import { watchMs, type HostDecision } from '../../domain/host/record.js'
import { externalName, ownershipKey, shortName } from '../../domain/names.js'
import { judgePlacement, layProviderData, type Candidate, type Judged } from '../../domain/placement/placement.js'
import type { Tx } from '../../store/database.js'
import type { SeenHost } from '../../store/host-reconcile.js'
import {
  allocateMachine,
  deleteSecrets,
  insertRequests,
  lockFreeMachine,
  type RequestDraft,
} from '../../store/host-requests.js'
import { loadCandidates } from '../../store/placement.js'
import type { HostRow } from '../../store/tables.js'
import type { ReconcilerDeps } from '../deps.js'

/** Where all machines that would do are just being taken by others. */
const takenPauseMs = 500

/** Finds places for the hosts of one transaction, which it knows of one another, and stores requests for them. */
export class Placing {
  readonly #deps: ReconcilerDeps
  readonly #tx: Tx
  readonly #candidates = new Map<string, Promise<Candidate[]>>()
  readonly #drafts: RequestDraft[] = []

  constructor(deps: ReconcilerDeps, tx: Tx) {
    this.#deps = deps
    this.#tx = tx
  }

  /** Reads the places for hosts like these, all in one round trip. */
  async expect(wishes: readonly Pick<HostRow, 'class_spec' | 'placement'>[]): Promise<void> {
    await Promise.all(wishes.map((wish) => this.#load(wish, false)))
  }

  /** Places one host, or says why not. */
  async place({ row, view, sealedUserData }: SeenHost, decision: HostDecision): Promise<HostDecision> {
    const candidates = await this.#load(row, false)
    const judged = this.#judge(row, decision, candidates)
    const eligible = judged.filter(({ rejected }) => rejected === undefined)
    if (eligible.length === 0) {
      const explained =
        row.class_spec.machineSelector === null ? judged : this.#judge(row, decision, await this.#load(row, true))
      return keepWaiting(decision.host, explained, view.now)
    }
    const request = newRequest()
    const chosen = await this.#take(eligible, row, decision, request)
    if (chosen === undefined) return { ...decision, action: { kind: 'none' }, lookAgainInMs: takenPauseMs }
    this.#use(candidates, chosen)
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

  /** Stores the requests of all hosts that were placed. */
  async finish(replacedRequestIds: readonly string[]): Promise<void> {
    await Promise.all([
      deleteSecrets(this.#tx, { hostIds: [], requestIds: replacedRequestIds }),
      insertRequests(this.#tx, this.#drafts),
    ])
  }

  #judge(row: HostRow, decision: HostDecision, candidates: readonly Candidate[]): readonly Judged[] {
    return judgePlacement(
      { shape: row.class_spec.shape, placement: row.placement, attempts: decision.host.attempts },
      candidates,
    )
  }

  #load(
    { class_spec: spec, placement }: Pick<HostRow, 'class_spec' | 'placement'>,
    explain: boolean,
  ): Promise<Candidate[]> {
    const key = JSON.stringify([explain, spec, placement])
    const known = this.#candidates.get(key)
    if (known !== undefined) return known
    const loaded = loadCandidates(this.#tx, spec, placement, { explain })
    this.#candidates.set(key, loaded)
    return loaded
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

  /** What is left for the other hosts of this transaction. */
  #use(candidates: Candidate[], chosen: Candidate): void {
    for (const [index, candidate] of candidates.entries()) {
      if (candidate.machine !== null || candidate.provider.id !== chosen.provider.id) continue
      const same = candidate.typeId === chosen.typeId && candidate.location === chosen.location
      candidates[index] = {
        ...candidate,
        provider: { ...candidate.provider, backlog: candidate.provider.backlog + 1 },
        ...(same && candidate.remaining !== null && { remaining: candidate.remaining - 1 }),
      }
    }
    const machineId = chosen.machine?.id
    if (machineId === undefined) return
    const at = candidates.findIndex((candidate) => candidate.machine?.id === machineId)
    if (at !== -1) candidates.splice(at, 1)
  }

  /** The order's own user-data, or its class's. */
  #openUserData(row: HostRow, sealed: Buffer | null): string {
    if (sealed === null) return row.class_spec.bootstrap.userData
    return this.#deps.keyring.open('host.user-data', row.id, sealed).toString('utf8')
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
      },
      static: chosen.machine !== null,
      machine_id: chosen.machine?.id ?? null,
      machine_name: chosen.machine?.name ?? null,
    },
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
