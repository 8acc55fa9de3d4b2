import { Client, Watcher, type Ordered } from './clients.js'
import type { SimDatabase } from './database.js'
import { healAll, inject, profileNames, profiles, type FaultKind, type Profile, type Stage } from './faults.js'
import { Keeper } from './keeper.js'
import { Keeper as SetKeeper } from './host-sets.js'
import { Network } from './network.js'
import { useScheduler } from './patch.js'
import { HubProcess, ProviderProcess, type Wiring } from './processes.js'
import { Random } from './random.js'
import { Scheduler, type Violation } from './scheduler.js'
import { rackMachines, type SetUp } from './setup.js'
import { listingLagMs, World } from './world.js'

// One seed: a few hubs and providers, orders and releases, faults in their midst; then all is healed, and everything must come to its end.

export interface SeedResult {
  readonly seed: number
  readonly violations: readonly Violation[]
  readonly journal: readonly string[]
  readonly faults: Readonly<Partial<Record<FaultKind, number>>>
  readonly virtualMs: number
  readonly events: number
  readonly statements: number
  readonly operations: number
  readonly hosts: number
  readonly creates: number
  readonly watched: number
}

const settleMs = 8 * 60_000
/** Which seeds have a host set. */
const setSalt = 2_956
const shareWithSets = 0.4

/** How many hosts the quota allows in seeds that have one, and within how long more than those are ordered. */
const quotaHosts = 2
const crowdMs = 400
const quotaStatement = `
  with quota as (
    insert into quotas (organization_id, id, name, max_hosts)
    select id, '00000000-0000-7000-8000-0000000000f0', 'few', ${quotaHosts} from organizations where name = 'default'
    returning organization_id, id
  )
  insert into quota_limits (id, organization_id, quota_id, quota_name, kind, maximum)
  select '00000000-0000-7000-8000-0000000000f1', organization_id, id, 'organizations/default/quotas/few', 'HOSTS', ${quotaHosts} from quota
`

export async function runSeed(
  setUp: SetUp,
  database: SimDatabase,
  seed: number,
  keepJournal = false,
  profile?: Profile,
): Promise<SeedResult> {
  const scheduler = new Scheduler(seed, keepJournal)
  await database.begin(scheduler)
  const uncaught = (error: unknown): void =>
    scheduler.violate('no uncaught error', error instanceof Error ? (error.stack ?? error.message) : String(error))
  process.on('unhandledRejection', uncaught)
  useScheduler(scheduler)
  try {
    return await new Seed(setUp, database, scheduler, seed, profile).run()
  } finally {
    useScheduler(undefined)
    process.off('unhandledRejection', uncaught)
    await database.end()
  }
}

interface Scene {
  readonly families: readonly string[]
  readonly classes: readonly string[]
}

const rackAlone: Scene = { families: ['rack'], classes: ['metal'] }

/** Which providers there are, and what is ordered of them. Each has two instances. */
const scenes: readonly Scene[] = [
  { families: ['cloud-a'], classes: ['any-cloud', 'calls-home'] },
  { families: ['cloud-b'], classes: ['any-cloud'] },
  rackAlone,
  { families: ['cloud-a', 'cloud-b'], classes: ['any-cloud', 'any-cloud', 'calls-home'] },
  { families: ['cloud-b', 'rack'], classes: ['any-cloud', 'metal', 'metal'] },
]

class Seed {
  readonly #scheduler: Scheduler
  readonly #database: SimDatabase
  readonly #seed: number
  readonly #world: World
  readonly #stage: Stage
  readonly #wiring: Wiring
  readonly #clients: Client[]
  readonly #keeper: Keeper | undefined
  readonly #setKeeper: SetKeeper | undefined
  readonly #classes: readonly string[]
  readonly #profile: Profile
  readonly #faults: Partial<Record<FaultKind, number>> = {}

  constructor(setUp: SetUp, database: SimDatabase, scheduler: Scheduler, seed: number, profile?: Profile) {
    this.#database = database
    this.#scheduler = scheduler
    this.#seed = seed
    const network = new Network(scheduler)
    this.#world = new World(scheduler, rackMachines)
    const hubs = new Map<string, HubProcess>()
    const instances = new Map<string, ProviderProcess>()
    const anyHub = (): HubProcess | undefined => {
      const alive = [...hubs.values()].filter((hub) => hub.node.alive)
      return alive.length === 0 ? undefined : scheduler.random.pick(alive)
    }
    // Drawn apart: a seed without a set is what it always was.
    const apart = new Random(seed + setSalt)
    const hostSets = apart.chance(shareWithSets)
    this.#wiring = {
      hostSets,
      scheduler,
      database,
      network,
      setUp,
      relay: (from, deliver) => {
        for (const hub of hubs.values()) {
          if (hub === from || scheduler.random.chance(this.#stage.wakeUpsLost)) continue
          scheduler.schedule(scheduler.random.between(0.5, 10), () => deliver(hub), hub.node)
        }
      },
    }
    const watchers = (scheduler.random.chance(0.3) ? [1, 2] : [1]).map(
      (number) => new Watcher(scheduler, `watcher-${number}`, anyHub),
    )
    this.#clients = [1, 2].map((number) => new Client(scheduler, `client-${number}`, anyHub))
    this.#stage = {
      scheduler,
      database,
      network,
      world: this.#world,
      hubs,
      instances,
      watchers,
      restartHub: (name) => this.#startHub(name),
      restartInstance: (name) => this.#startInstance(name, anyHub),
      wakeUpsLost: 0,
    }
    this.#observe(anyHub)
    for (const name of ['hub-1', 'hub-2']) this.#startHub(name)
    const scene = scheduler.random.pick(scenes)
    const drawn = scheduler.random.pick(profileNames)
    this.#profile = profile ?? drawn
    const { families, classes } = this.#iron ? rackAlone : scene
    this.#classes = classes
    this.#keeper = families.includes('rack') ? new Keeper(scheduler, database, anyHub) : undefined
    const withCloud = hostSets && classes.includes('any-cloud')
    this.#setKeeper = withCloud ? new SetKeeper(scheduler, apart, anyHub) : undefined
    for (const family of families) for (const number of [1, 2]) this.#startInstance(`${family}/${number}`, anyHub)
  }

  async run(): Promise<SeedResult> {
    const { random } = this.#scheduler
    const faultsMs = random.between(3_000, 12_000) * (this.#iron ? 3 : 1)
    if (this.#limited) await this.#database.look(quotaStatement)
    this.#plan(faultsMs)
    await this.#scheduler.until(() => false, faultsMs)
    if (this.#well) await this.#settle()
    await this.#lookForViolations()
    const { totals } = this.#world
    return {
      seed: this.#seed,
      violations: this.#scheduler.violations,
      journal: this.#scheduler.journal,
      faults: this.#faults,
      virtualMs: this.#scheduler.nowMs,
      events: this.#scheduler.steps,
      statements: this.#database.statements,
      operations: this.#clients.reduce((sum, client) => sum + client.operations, 0),
      hosts: this.#orders.length,
      creates: totals.creates + totals.installs,
      watched: this.#stage.watchers.reduce((sum, watcher) => sum + watcher.changes, 0),
    }
  }

  /** Whether a quota allows fewer hosts than are ordered. */
  get #limited(): boolean {
    return this.#profile === 'quotas'
  }

  /** Whether machines change hands all the time: that takes longer than to make servers. */
  get #iron(): boolean {
    return this.#profile === 'iron'
  }

  get #well(): boolean {
    return this.#scheduler.violations.length === 0
  }

  get #orders(): readonly Ordered[] {
    return this.#clients.flatMap((client) => client.orders)
  }

  /** Draws what is ordered, what is released meanwhile, and what goes wrong. */
  #plan(untilMs: number): void {
    const { random } = this.#scheduler
    // Only a crowd of faults and releases at once finds what comes of creates in doubt.
    const crowded = this.#profile === 'doubts' || this.#iron
    const atLeast = this.#limited ? quotaHosts + 2 : this.#iron ? 3 * rackMachines : 1
    const hosts = atLeast + random.int(this.#classes.includes('metal') ? 5 : 3)
    for (let number = 1; number <= hosts; number++) {
      const client = random.pick(this.#clients)
      const machineClass = random.pick(this.#classes)
      this.#scheduler.schedule(
        random.between(0, this.#limited ? crowdMs : untilMs * 0.6),
        () => {
          const ordered = client.order(`host-${number}`, machineClass)
          if (random.chance(crowded ? 0.9 : 0.5))
            this.#scheduler.schedule(
              random.between(0, untilMs * (crowded ? 0.3 : 0.6)),
              () => client.release(ordered),
              'world',
            )
        },
        'world',
      )
    }
    const keeper = this.#keeper
    if (keeper !== undefined)
      for (let number = random.int(4); number > 0; number--)
        this.#scheduler.schedule(random.between(500, untilMs), () => keeper.pauseOne(), 'world')
    this.#setKeeper?.plan('any-cloud', untilMs)
    const kinds = [1, 2, 3, 4].map(() => random.pick<FaultKind>(profiles[this.#profile]))
    // A watcher lists each time it is cut, and only one that lists at the wrong moment sees anything amiss.
    const faults = (this.#iron ? 20 : crowded || this.#profile === 'lists' ? 10 : 2) + random.int(9)
    for (let number = 0; number < faults; number++) {
      const kind = random.pick(kinds)
      this.#scheduler.schedule(
        random.between(0, untilMs),
        () => {
          const happened = inject(this.#stage, kind)
          this.#scheduler.note(`fault ${kind}${happened ? '' : ': not possible now'}`)
          if (happened) this.#faults[kind] = (this.#faults[kind] ?? 0) + 1
        },
        'world',
      )
    }
  }

  /** All works again: every order must come to an end, every release must arrive, and nothing may be left. */
  async #settle(): Promise<void> {
    const { nowMs } = this.#scheduler
    this.#scheduler.note('all is healed')
    healAll(this.#stage)
    const atRest = await this.#poll(nowMs + settleMs, async () => {
      const rows = await this.#database.look<{ n: number }>(
        `select count(*)::int as n from hosts where state not in ('READY', 'ERROR', 'RELEASED')`,
      )
      await this.#keeper?.putInOrder()
      await this.#makeRoom()
      if (rows[0]?.n !== 0) return false
      return this.#orders.every((order) => order.uid !== undefined) || (await this.#setHoldsQuota())
    })
    if (!this.#well) return
    if (!atRest) return this.#stuck('I4', 'orders did not come to an end')
    if (!(await this.#keep())) return
    await this.#compareWithWorld()
    if (!this.#well) return
    this.#setKeeper?.end()
    for (const order of this.#orders) this.#clients[0]?.release(order)
    const gone = await this.#poll(this.#scheduler.nowMs + settleMs, async () => {
      const rows = await this.#database.look<{ n: number }>(
        `select count(*)::int as n from hosts where state <> 'RELEASED'`,
      )
      const inOrder = (await this.#keeper?.putInOrder()) ?? true
      const sets = await this.#database.look<{ n: number }>(`select count(*)::int as n from host_sets`)
      return rows[0]?.n === 0 && sets[0]?.n === 0 && inOrder && this.#orders.every((order) => order.releaseAccepted)
    })
    if (!this.#well) return
    if (!gone) return this.#stuck('I5', 'releases did not arrive')
    // A server that nobody asked for any more may still be told of by the next listing, as an orphan, and no later.
    const left = [...this.#world.servers.values()]
    if (left.length > 0)
      await this.#stuck('I2', `servers are left: ${left.map((server) => `${server.id} (${server.name})`).join(', ')}`)
  }

  /** A set must come to what is wanted of it, once a person goes on where its rollout has failed. */
  async #keep(): Promise<boolean> {
    const keeper = this.#setKeeper
    if (keeper === undefined) return true
    let resumed = false
    const kept = await this.#poll(this.#scheduler.nowMs + settleMs, async () => {
      const rows = await this.#database.look<{ state: string; members: number; replicas: number; refused: boolean }>(
        `select s.state, s.replicas, s.conditions @> '[{"type": "Ordered", "reason": "QuotaExceeded"}]' as refused, (select count(*)::int from hosts h where h.host_set_id = s.id and h.state = 'READY') as members from host_sets s`,
      )
      const [set] = rows
      if (set?.state === 'PAUSED' && !resumed) keeper.resume()
      resumed ||= set?.state === 'PAUSED'
      // Where orders take the whole quota, a set waits for one of them to be released.
      if (this.#profile === 'quotas' && set?.refused === true) return true
      return keeper.made && set?.state === 'READY' && set.replicas === keeper.replicas && set.members === set.replicas
    })
    if (!this.#well) return false
    if (!kept) {
      const sets = await this.#database.look('select state, state_message, replicas, counts, conditions from host_sets')
      await this.#stuck('H2', `a host set did not come to what is wanted of it: ${JSON.stringify(sets)}`)
    }
    return kept
  }

  /**
   * Whether all that a quota allows belongs to the host set: what is released it takes again, rightly, and
   * whoever else has ordered waits until the set is gone.
   */
  async #setHoldsQuota(): Promise<boolean> {
    if (!this.#limited || this.#setKeeper === undefined) return false
    const rows = await this.#database.look<{ members: number; others: number }>(
      `select count(*) filter (where host_set_id is not null and state = 'READY')::int as members,
         count(*) filter (where host_set_id is null or state <> 'READY')::int as others
       from hosts where state <> 'RELEASED'`,
    )
    return rows[0]?.members === quotaHosts && rows[0].others === 0
  }

  /** There are fewer machines in the rack than hosts that want one: those that have had theirs give them up. */
  async #makeRoom(): Promise<void> {
    const rows = await this.#database.look<{ name: string }>(
      `select name from hosts where class_name = 'metal' and state = 'READY'
       and exists (select 1 from hosts where class_name = 'metal' and state = 'ORDERED')`,
    )
    // And so do those that take up a quota which others wait for.
    const waiting = this.#limited && this.#orders.some((order) => order.uid === undefined)
    const ready = waiting
      ? await this.#database.look<{ name: string }>(`select name from hosts where state in ('READY', 'ERROR')`)
      : []
    for (const order of this.#orders) {
      if (!order.releaseAccepted && [...rows, ...ready].some((row) => row.name === order.name))
        this.#clients[0]?.release(order)
    }
  }

  /** What the hub says is there must be there, and nothing else. */
  async #compareWithWorld(): Promise<void> {
    const rows = await this.#database.look<{ ownership_key: string; external_id: string; state: string }>(
      `select r.ownership_key, r.external_id, h.state from hosts h join machine_requests r on r.id = h.request_id
       where h.state = 'READY' and not r.static`,
    )
    const wanted = new Map(rows.map((row) => [row.ownership_key, row.external_id]))
    for (const [key, id] of wanted) {
      const live = this.#world.live(key)
      if (live.length !== 1 || live[0]?.id !== id)
        this.#scheduler.violate(
          'I1',
          `host of ${key} is READY on ${id}, but there is ${live.map((server) => server.id).join(', ') || 'nothing'}`,
        )
    }
  }

  async #poll(deadlineMs: number, done: () => Promise<boolean>): Promise<boolean> {
    for (;;) {
      if (await done()) return true
      if (!this.#well || this.#scheduler.nowMs >= deadlineMs) return false
      for (const hub of ['hub-1', 'hub-2']) if (this.#stage.hubs.get(hub)?.node.alive !== true) this.#startHub(hub)
      await this.#scheduler.until(() => false, this.#scheduler.nowMs + 1_000)
    }
  }

  async #stuck(invariant: string, message: string): Promise<void> {
    const hosts = await this.#database.look(
      `select h.name, h.state, h.state_message, r.state as request, r.operation, w.session_id is not null as held, w.fence, w.attempt, w.due_at
       from hosts h left join machine_requests r on r.id = h.request_id left join work_items w on w.id = r.id
       where h.state not in ('READY', 'RELEASED')`,
    )
    this.#scheduler.violate(
      invariant,
      `${message}; ${JSON.stringify(hosts)}; orders ${JSON.stringify(this.#orders.filter((order) => order.uid === undefined))}`,
    )
  }

  async #lookForViolations(): Promise<void> {
    const rows = await this.#database.look<{ invariant: string; message: string }>(
      'select invariant, message from sim.violations',
    )
    for (const row of rows) this.#scheduler.violate(row.invariant, row.message)
  }

  /** The witness tells of what the records must have said before. */
  #observe(anyHub: () => HubProcess | undefined): void {
    const world = this.#world
    const check = (what: string, text: string, values: readonly string[]): void => {
      this.#scheduler.schedule(
        0,
        async () => {
          const rows = await this.#database.look(text, values)
          if (rows.length === 0)
            this.#scheduler.violate(
              what === 'create' ? 'S2' : 'S4',
              `${what} of ${values.join(' ')} that no record asks for`,
            )
        },
        'world',
      )
    }
    world.onCreated = ({ ownershipKey }) =>
      check('create', 'select 1 from machine_requests where ownership_key = $1', [ownershipKey])
    world.onDeleted = ({ ownershipKey }) =>
      check(
        'delete',
        `select 1 from machine_requests where ownership_key = $1 and (operation = 'DEPROVISION' or state = 'GONE')`,
        [ownershipKey],
      )
    world.onBooted = (token) => {
      const attempt = (): void => {
        const hub = anyHub()
        this.#scheduler.schedule(
          300,
          () => {
            if (hub === undefined) return attempt()
            hub.phoneHome(token).then(
              () => undefined,
              () => undefined,
            )
          },
          'world',
        )
      }
      // A guest says it until it is heard; that it says it more often is harmless.
      for (let round = 0; round < 20; round++) this.#scheduler.schedule(500 + round * 4_000, attempt, 'world')
    }
  }

  #startHub(name: string): void {
    const old = this.#stage.hubs.get(name)
    if (old?.node.alive === true) return
    this.#stage.hubs.set(name, new HubProcess(this.#wiring, name))
  }

  #startInstance(name: string, nextHub: () => HubProcess | undefined): void {
    const old = this.#stage.instances.get(name)
    if (old?.node.alive === true) return
    const provider = name.split('/')[0] ?? ''
    const world = this.#world
    this.#stage.instances.set(
      name,
      new ProviderProcess(this.#wiring, {
        provider,
        name,
        nextHub,
        define: (node) =>
          provider === 'rack'
            ? world.rackProvider(node)
            : world.cloud(node, provider, provider === 'cloud-a' ? listingLagMs : 0),
      }),
    )
  }
}
