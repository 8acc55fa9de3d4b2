import { isos, locations, pricing, serverTypes, systemImages } from './catalogue.js'
import type { Faults } from './faults.js'
import { Ledger, type Kind } from './ledger.js'
import { notFound } from './refusal.js'
import type {
  Action,
  Firewall,
  Image,
  Location,
  Network,
  PlacementGroup,
  PrimaryIp,
  Server,
  ServerType,
  SshKey,
  Volume,
} from './views.js'

/** How long actions take, milliseconds; to be changed at any time. */
export interface Durations {
  /** Making a server, without starting it. */
  create: number
  start: number
  stop: number
  rebuild: number
  delete: number
  /** Whatever else there is. */
  other: number
  /** From running to phoning home. */
  boot: number
}

export const quick: Durations = { create: 60, start: 40, stop: 40, rebuild: 80, delete: 40, other: 20, boot: 20 }

/** A server, with what its views do not show. */
export interface ServerRecord {
  readonly view: Server
  userData: string
  /** Counts the times it began to run; a guest that phones home does so once for each installation. */
  installation: number
  runsSinceMs: number | undefined
  /** Whether it was booted into the rescue system, and who may log in there. */
  inRescue: boolean
  rescueKeys: readonly number[]
}

interface RunningAction {
  readonly view: Action
  readonly durationMs: number
  /** It begins when this one has ended well, and fails with it. */
  readonly after: Action | undefined
  readonly effect: () => void
  readonly isStuck: boolean
  readonly failure: { readonly code: string; readonly message: string } | undefined
  beganAtMs: number | undefined
}

export interface NewAction {
  readonly command: string
  readonly resources: Action['resources']
  readonly durationMs: number
  readonly after?: Action
  /** What is so when it has ended well. */
  readonly effect?: () => void
}

interface Made {
  readonly id: number
  readonly name?: string | null
  readonly labels?: Readonly<Record<string, string>>
}

/** A project of the cloud: all that exists in it, and what time makes of it. */
export class Project {
  readonly durations: Durations
  readonly faults: Faults
  readonly ledger = new Ledger()
  readonly locations: readonly Location[] = locations
  readonly serverTypes: ServerType[] = serverTypes()
  readonly isos = isos()
  readonly pricing = pricing(this.serverTypes)
  readonly servers = new Map<number, ServerRecord>()
  readonly volumes = new Map<number, Volume>()
  readonly primaryIps = new Map<number, PrimaryIp>()
  readonly networks = new Map<number, Network>()
  readonly firewalls = new Map<number, Firewall>()
  readonly placementGroups = new Map<number, PlacementGroup>()
  readonly sshKeys = new Map<number, SshKey>()
  readonly images = new Map<number, Image>(systemImages().map((image) => [image.id, image]))
  readonly actions = new Map<number, Action>()
  readonly #running = new Set<RunningAction>()
  readonly #seenFromMs = new Map<string, number>()
  #ghosts: { readonly kind: Kind; readonly view: Made; readonly untilMs: number }[] = []
  #lastId = 10_000
  #addresses = 0

  constructor(durations: Durations, faults: Faults) {
    this.durations = durations
    this.faults = faults
  }

  newId(): number {
    return ++this.#lastId
  }

  /** A number for an address, used once. */
  newAddress(): number {
    return ++this.#addresses
  }

  /** Keeps what was made, and writes it down. */
  add<View extends Made>(kind: Kind, map: Map<number, View>, view: View): View {
    map.set(view.id, view)
    this.noteCreated(kind, view)
    return view
  }

  /** Forgets what is gone, and writes it down. */
  remove<View extends Made>(kind: Kind, map: Map<number, View>, id: number): void {
    const view = map.get(id)
    if (view === undefined || !map.delete(id)) return
    this.noteDeleted(kind, view)
  }

  noteCreated(kind: Kind, { id, name, labels = {} }: Made): void {
    this.#seenFromMs.set(`${kind}/${id}`, Date.now() + this.faults.listingLagMs)
    this.ledger.entries.push({ atMs: Date.now(), what: 'created', kind, id, name: name ?? '', labels: { ...labels } })
  }

  noteDeleted(kind: Kind, view: Made): void {
    const { id, name, labels = {} } = view
    if (this.faults.listingGhostMs > 0)
      this.#ghosts.push({ kind, view, untilMs: Date.now() + this.faults.listingGhostMs })
    this.ledger.entries.push({ atMs: Date.now(), what: 'deleted', kind, id, name: name ?? '', labels: { ...labels } })
  }

  /** What a listing shows now: not yet what was just made, and still what was just deleted. */
  shown<View extends Made>(kind: Kind, views: Iterable<View>): View[] {
    const nowMs = Date.now()
    this.#ghosts = this.#ghosts.filter(({ untilMs }) => nowMs < untilMs)
    const ghosts = this.#ghosts.filter((ghost) => ghost.kind === kind).map(({ view }) => view as View)
    return [...views].filter(({ id }) => (this.#seenFromMs.get(`${kind}/${id}`) ?? 0) <= nowMs).concat(ghosts)
  }

  /** @throws Refusal where it does not exist. */
  get<View>(map: ReadonlyMap<number, View>, id: number, what: string): View {
    const found = map.get(id)
    if (found === undefined) throw notFound(what)
    return found
  }

  /** What is named by its id or its name. */
  byIdOrName<View extends Made>(views: Iterable<View>, wanted: string | number): View | undefined {
    const text = String(wanted)
    return [...views].find((view) => String(view.id) === text || view.name === text)
  }

  /** Begins an action. */
  begin(order: NewAction): Action {
    const view: Action = {
      id: this.newId(),
      command: order.command,
      status: 'running',
      progress: 0,
      started: new Date().toISOString(),
      finished: null,
      resources: order.resources,
      error: null,
    }
    const fault = this.faults.takeActionFault(order.command)
    this.actions.set(view.id, view)
    this.#running.add({
      view,
      durationMs: order.durationMs,
      after: order.after,
      effect: order.effect ?? (() => undefined),
      isStuck: fault === 'stuck',
      failure: typeof fault === 'object' ? fault : undefined,
      beganAtMs: order.after === undefined ? Date.now() : undefined,
    })
    return view
  }

  /** Whether an action of a resource is under way. */
  isLocked(type: string, id: number): boolean {
    return [...this.#running].some(({ view }) => view.resources.some((each) => each.type === type && each.id === id))
  }

  /** Lets the stuck actions of a resource go on, or end as if they had done nothing. */
  dropActionsOf(type: string, id: number): void {
    for (const action of this.#running)
      if (action.view.resources.some((each) => each.type === type && each.id === id)) this.#running.delete(action)
  }

  /** Brings about what is due by now. */
  settle(): void {
    for (let ended = true; ended;) {
      ended = false
      for (const action of [...this.#running]) ended = this.#advance(action, Date.now()) || ended
    }
  }

  #advance(action: RunningAction, nowMs: number): boolean {
    if (action.after?.status === 'running') return false
    if (action.after?.status === 'error')
      return this.#end(action, { code: 'server_error', message: 'the action before it failed' })
    action.beganAtMs ??= nowMs
    const spentMs = nowMs - action.beganAtMs
    action.view.progress = Math.min(99, Math.floor((spentMs * 100) / Math.max(1, action.durationMs)))
    if (action.isStuck || spentMs < action.durationMs) return false
    return this.#end(action, action.failure)
  }

  #end(action: RunningAction, failure: RunningAction['failure']): true {
    const { view } = action
    this.#running.delete(action)
    view.finished = new Date().toISOString()
    view.progress = 100
    view.status = failure === undefined ? 'success' : 'error'
    view.error = failure ?? null
    if (failure === undefined) action.effect()
    return true
  }
}
