import type { Logger } from 'pino'
import { create } from '@bufbuild/protobuf'
import { ClaimedSchema, DesiredChangedSchema, ItemRefSchema } from '@slipway/proto/provider/v1'
import { inStatement } from '../store/database.js'
import type { MachineRequestRow } from '../store/tables.js'
import {
  claimAlone,
  claimShared,
  creditsAt,
  loadItemDetails,
  takeChangedWishes,
  takeHeldItems,
  takenUpLookMs,
  type ClaimedItem,
  type ItemDetails,
} from '../store/work-items.js'
import {
  toItemKind,
  toMachineDesired,
  toObserved,
  toRequestDesired,
  toStepResults,
  type BootstrapSecrets,
} from './convert.js'
import type { GatewayDeps } from './deps.js'
import type { SessionRegistry } from './registry.js'

/**
 * Hands due items to the sessions of this replica, in batches over all of them: one statement claims for everybody. It runs when woken, when
 * credit comes back, and at every sweep.
 */
export class Dispatcher {
  readonly #deps: GatewayDeps
  readonly #registry: SessionRegistry
  readonly #log: Logger
  /** Providers that may have work that is due. */
  readonly #wanted = new Set<string>()
  /** Sessions that may hold claims, or were to be told of wishes, that they were not told of: the answer of the database was lost. */
  readonly #doubtful = new Set<string>()
  /** Providers that may have changed their wishes about what is held. */
  readonly #changed = new Set<string>()
  #running: Promise<void> | undefined
  #stopped = false
  #lookTimer: NodeJS.Timeout | undefined

  constructor(deps: GatewayDeps, registry: SessionRegistry) {
    this.#deps = deps
    this.#registry = registry
    this.#log = deps.log.child({ component: 'dispatcher' })
  }

  /** Looks for work of these providers, and for changed wishes, soon. */
  request(...providerIds: readonly string[]): void {
    if (this.#stopped) return
    for (const id of providerIds) {
      if (!this.#registry.hasProvider(id)) continue
      this.#wanted.add(id)
      this.#changed.add(id)
    }
    if (this.#wanted.size > 0) this.#running ??= this.#run()
  }

  /** Looks for work of a provider that had no credit left, soon. */
  requestWork(providerId: string): void {
    if (this.#stopped || !this.#registry.hasProvider(providerId)) return
    this.#wanted.add(providerId)
    this.#running ??= this.#run()
  }

  /** Claims nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#running
    clearTimeout(this.#lookTimer)
  }

  async #run(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    while (this.#wanted.size > 0 && !this.#stopped) {
      const providers = new Set(this.#wanted)
      const changed = new Set(this.#changed)
      this.#wanted.clear()
      this.#changed.clear()
      try {
        await this.#tellAnew()
        if (await this.#claim(providers)) for (const id of providers) this.#wanted.add(id)
        await this.#tellChanges(changed)
      } catch (error) {
        // Committed or not: the sessions are told anew of all that they hold, when the sweep asks again.
        for (const session of this.#registry.sessionsOf(providers)) this.#doubtful.add(session.id)
        this.#log.warn({ err: error }, 'cannot dispatch now')
        break
      }
    }
    this.#running = undefined
  }

  /** Claims once. True: more may be due. */
  async #claim(providers: ReadonlySet<string>): Promise<boolean> {
    const credits = this.#registry.credits(providers)
    if (credits.length === 0) return false
    const alone = await inStatement(this.#deps.db, (db) => claimAlone(db, credits), 'claim')
    const rivals = creditsAt(credits, alone.contested)
    const shared =
      rivals.length === 0 ? undefined : await inStatement(this.#deps.db, (db) => claimShared(db, rivals), 'claim')
    const items = [...alone.items, ...(shared?.items ?? [])]
    const takenUp = [...alone.takenUp, ...(shared?.takenUp ?? [])]
    if (items.length === 0) return false
    // Once the claim stands, nobody else can store anything of the item: what is read now is what its holder has to know.
    const details = await loadItemDetails(this.#deps.db, items, takenUp)
    for (const item of items) this.#sendClaimed(item, details)
    this.#followUp(takenUp.length > 0)
    const claimedBy = new Map<string, number>()
    for (const item of items) claimedBy.set(item.sessionId, (claimedBy.get(item.sessionId) ?? 0) + 1)
    return (
      items.length > alone.items.length || credits.some((credit) => claimedBy.get(credit.sessionId) === credit.credit)
    )
  }

  /** Tells sessions of everything that is theirs by the records. What they know already does them no harm. */
  async #tellAnew(): Promise<void> {
    const holders = [...this.#doubtful].flatMap((id) => this.#registry.get(id)?.holder ?? [])
    if (holders.length > 0) {
      const { items, takenUp } = await inStatement(this.#deps.db, (db) => takeHeldItems(db, holders), 'wish')
      const details = await loadItemDetails(this.#deps.db, items, takenUp)
      for (const item of items) this.#sendClaimed(item, details)
      this.#followUp(takenUp.length > 0)
    }
    this.#doubtful.clear()
  }

  /** What was taken up is shown to watchers at once, and its hosts are looked at soon. */
  #followUp(takenUp: boolean): void {
    this.#deps.wake.signal({ kind: 'change' })
    if (!takenUp || this.#stopped) return
    this.#lookTimer ??= setTimeout(() => {
      this.#lookTimer = undefined
      this.#deps.wake.signal({ kind: 'host' })
    }, takenUpLookMs)
  }

  async #tellChanges(providers: ReadonlySet<string>): Promise<void> {
    const sessions = this.#registry.sessionsOf(providers).filter((session) => session.holds)
    if (sessions.length === 0) return
    const holders = sessions.map((session) => session.holder)
    const { items, takenUp } = await inStatement(this.#deps.db, (db) => takeChangedWishes(db, holders), 'wish')
    if (items.length === 0) return
    const details = await loadItemDetails(this.#deps.db, items, takenUp)
    for (const item of items) {
      const wish = this.#wish(item, details)
      if (wish === undefined) continue
      const changed = create(DesiredChangedSchema, {
        item: create(ItemRefSchema, { kind: toItemKind(item.kind), id: item.id }),
        fence: BigInt(item.fence),
        desired: wish.desired,
        steps: wish.steps,
      })
      this.#registry.get(item.sessionId)?.send({ case: 'desiredChanged', value: changed })
    }
    this.#followUp(takenUp.length > 0)
  }

  #sendClaimed(item: ClaimedItem, details: ItemDetails): void {
    const session = this.#registry.get(item.sessionId)
    const wish = this.#wish(item, details)
    // A session that is gone by now says so with its next Hello, or by its silence.
    if (session === undefined || wish === undefined) return
    const ref = create(ItemRefSchema, { kind: toItemKind(item.kind), id: item.id })
    session.hold(ref, item.fence)
    session.send({
      case: 'claimed',
      value: create(ClaimedSchema, {
        item: ref,
        fence: BigInt(item.fence),
        desired: wish.desired,
        steps: wish.steps,
        observed: wish.observed,
        attempt: item.attempt + 1,
      }),
    })
  }

  #wish(item: ClaimedItem, details: ItemDetails) {
    const steps = details.steps.get(item.id) ?? []
    const request = details.requests.get(item.id)
    if (request !== undefined) {
      const machine = request.machine_id === null ? undefined : details.machines.get(request.machine_id)
      return {
        desired: toRequestDesired(request, machine, this.#secrets(request, details)),
        steps: toStepResults(steps, request.operation, request.operation_generation),
        observed: toObserved(request),
      }
    }
    const machine = details.machines.get(item.id)
    if (machine === undefined) return undefined
    return {
      desired: toMachineDesired(machine),
      steps: toStepResults(steps, machine.operation, machine.operation_generation),
      observed: toObserved(machine),
    }
  }

  #secrets(request: MachineRequestRow, details: ItemDetails): BootstrapSecrets | undefined {
    const sealed = details.secrets.get(request.id)
    // What a machine needs to set itself up is nobody's business once it is to go.
    if (sealed === undefined || request.desired_presence === 'ABSENT') return undefined
    const { keyring, config } = this.#deps
    return {
      userData: keyring.open('request.user-data', request.id, sealed.userData).toString('utf8'),
      phoneHomeToken: keyring.open('request.phone-home', request.id, sealed.phoneHomeToken).toString('utf8'),
      publicUrl: config.publicUrl,
    }
  }
}
