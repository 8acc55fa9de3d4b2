/** What becomes of a call: `lost`: its answer is, after the effect; `dropped`: it never comes to anything; or a refusal without effect. */
export type CallFault =
  'lost' | 'dropped' | { readonly status: number; readonly code: string; readonly message?: string }

/** What becomes of an action that was accepted. */
export type ActionFault = 'stuck' | { readonly code: string; readonly message: string }

interface PlannedCall {
  readonly method: string
  readonly path: RegExp
  readonly fault: CallFault
  times: number
}

interface PlannedAction {
  readonly command: string
  readonly fault: ActionFault
  times: number
}

/** The highest number of things that a project may have. The names are those that the API gives the limits. */
export interface Limits {
  server_limit: number
  primary_ip_limit: number
  volume_limit: number
}

/** What goes wrong, to be changed at any time. */
export class Faults {
  /** How long each call takes, milliseconds; half of it before the effect. */
  latencyMs = 0
  /** How long what was just created does not show in listings, milliseconds. It can be read by its id meanwhile. */
  listingLagMs = 0
  /** How long what was just deleted still shows in listings, milliseconds. */
  listingGhostMs = 0
  readonly limits: Limits = { server_limit: 100_000, primary_ip_limit: 200_000, volume_limit: 100_000 }
  /** Refuses every token. */
  refuseTokens = false
  /** Listings fail from their second page on. */
  breakListings = false
  /** Servers that do nothing on an ACPI signal, by name. */
  readonly deaf = new Set<string>()
  readonly #capacity = new Map<string, number>()
  #calls: PlannedCall[] = []
  #actions: PlannedAction[] = []

  /** How many more servers can be made in a location, of one type or of any. Whether offers show it is another matter: they often do not. */
  setCapacity(location: string, servers: number, type = '*'): void {
    this.#capacity.set(`${location}/${type}`, servers)
  }

  /** Takes room for one server. @returns false: there is none. */
  takeRoom(location: string, type: string): boolean {
    const keys = [`${location}/*`, `${location}/${type}`].filter((key) => this.#capacity.has(key))
    if (keys.some((key) => (this.#capacity.get(key) ?? 0) <= 0)) return false
    for (const key of keys) this.#capacity.set(key, (this.#capacity.get(key) ?? 0) - 1)
    return true
  }

  /** The next calls of this method whose path matches come to this. */
  planCall(method: string, path: RegExp, fault: CallFault, times = 1): void {
    this.#calls.push({ method, path, fault, times })
  }

  /** The next actions of this command come to this. */
  planAction(command: string, fault: ActionFault, times = 1): void {
    this.#actions.push({ command, fault, times })
  }

  /** Takes back what was planned and has not struck yet. */
  clearPlans(): void {
    this.#calls = []
    this.#actions = []
  }

  /** There is room again everywhere. */
  clearCapacity(): void {
    this.#capacity.clear()
  }

  /** What was planned and has not struck yet. A test that leaves any has not tested it. */
  get pending(): number {
    return [...this.#calls, ...this.#actions].reduce((sum, { times }) => sum + times, 0)
  }

  takeCallFault(method: string, path: string): CallFault | undefined {
    const planned = this.#calls.find((each) => each.method === method && each.path.test(path))
    this.#calls = strike(this.#calls, planned)
    return planned?.fault
  }

  takeActionFault(command: string): ActionFault | undefined {
    const planned = this.#actions.find((each) => each.command === command)
    this.#actions = strike(this.#actions, planned)
    return planned?.fault
  }
}

function strike<Planned extends { times: number }>(plans: Planned[], struck: Planned | undefined): Planned[] {
  if (struck !== undefined) struck.times -= 1
  return plans.filter(({ times }) => times > 0)
}
