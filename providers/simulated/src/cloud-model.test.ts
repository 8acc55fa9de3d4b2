import fc from 'fast-check'
import t from 'tap'
import { Cloud, type ServerView } from './cloud.js'
import { cloudRules, type CloudState } from './cloud-state.js'
import type { CloudConfig } from './config.js'
import { CloudError } from './errors.js'
import { readWorld } from './report.js'
import { cloudConfig, serverOrder, StillClock, tempDir } from './testing/world.js'
import { World } from './world.js'

const { signal } = new AbortController()

type ModelStep =
  | { readonly kind: 'create'; readonly name: string; readonly location: string }
  | { readonly kind: 'delete'; readonly name: string }
  | { readonly kind: 'power'; readonly name: string; readonly wish: 'on' | 'off' }
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'restart' }

const name = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f')
const modelStep: fc.Arbitrary<ModelStep> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('create' as const),
      name,
      location: fc.constantFrom('sim-east', 'sim-west'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('delete' as const), name }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('power' as const),
      name,
      wish: fc.constantFrom('on' as const, 'off' as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(1, 500, 1_000, 5_000) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
)

interface ModelServer {
  readonly id: string
  readonly location: string
  readonly runsAtMs: number
  goneAtMs: number
  power: 'on' | 'off'
}

/** A faulty cloud beside what it should be, kept in a plain map. Each step says whether the two still agree. */
class ModelledCloud {
  readonly clock = new StillClock()
  readonly #dir: string
  readonly #config: CloudConfig
  readonly #servers = new Map<string, ModelServer>()
  world: World<CloudState>

  constructor(dir: string, seed: number) {
    this.#dir = dir
    this.#config = cloudConfig({
      seed,
      powerDuration: 0,
      capacity: [{ location: 'sim-west', servers: 1 }],
      quotaServers: 3,
      faults: { lostAnswerRate: 0.2, timeoutBeforeRate: 0.1, unavailableRate: 0.1 },
    })
    this.world = this.#open()
  }

  async take(step: ModelStep): Promise<boolean> {
    if (step.kind === 'wait') this.clock.nowMs += step.ms
    else if (step.kind === 'restart') {
      this.world.close()
      this.world = this.#open()
    } else if (step.kind === 'create') {
      if (!(await this.#create(step.name, step.location))) return false
    } else if (step.kind === 'delete') await this.#delete(step.name)
    else await this.#power(step.name, step.wish)
    return this.#agrees()
  }

  async #create(name: string, location: string): Promise<boolean> {
    const live = [...this.#live().values()]
    const isFull = live.length >= 3 || (location === 'sim-west' && live.some((server) => server.location === location))
    const wasThere = this.#live().has(name)
    const linesBefore = this.world.ledger.seq
    const code = await codeOf(this.#faulty().createServer(serverOrder(name, { location }), signal))
    const [found] = await all(this.#eye(), { name })
    const wasMade = !wasThere && found !== undefined
    if (this.world.ledger.seq !== linesBefore + 1) return false
    if (!wasMade) return code !== 'ok'
    const runsAtMs = this.clock.nowMs + 1_000
    this.#servers.set(name, { id: found.id, location, runsAtMs, goneAtMs: Infinity, power: 'on' })
    return !isFull && (code === 'ok' || code === 'timeout')
  }

  async #delete(name: string): Promise<void> {
    const server = this.#live().get(name)
    if (server === undefined) return
    await codeOf(this.#faulty().deleteServer(server.id, signal))
    const isDeleting = (await this.#eye().getServer(server.id, signal))?.status === 'deleting'
    if (isDeleting && server.goneAtMs === Infinity) server.goneAtMs = this.clock.nowMs + 1_000
  }

  async #power(name: string, wish: 'on' | 'off'): Promise<void> {
    const server = this.#live().get(name)
    if (server === undefined) return
    const code = await codeOf(this.#faulty().powerServer(server.id, wish, signal))
    const power = (await this.#eye().getServer(server.id, signal))?.power
    if (code === 'ok' || (code === 'timeout' && power === wish)) server.power = wish
  }

  async #agrees(): Promise<boolean> {
    const seen = await all(this.#eye())
    const { nowMs } = this.clock
    const expected = [...this.#live()].map(([name, { id, power, runsAtMs, location, goneAtMs }]) => {
      // On its way out, its power is nobody's business.
      return { name, id, location, power: nowMs < runsAtMs || goneAtMs < Infinity ? undefined : power }
    })
    const actual = seen.map(({ name, id, location, power, status }) => {
      return { name, id, location, power: status === 'deleting' ? undefined : power }
    })
    const sorted = (list: readonly { readonly id: string }[]) => [...list].sort((x, y) => (x.id < y.id ? -1 : 1))
    return JSON.stringify(sorted(expected)) === JSON.stringify(sorted(actual))
  }

  #live(): Map<string, ModelServer> {
    return new Map([...this.#servers].filter(([, { goneAtMs }]) => this.clock.nowMs < goneAtMs))
  }

  #open(): World<CloudState> {
    return new World(this.#dir, cloudRules, { clock: this.clock.read })
  }

  #faulty(): Cloud {
    return new Cloud(this.world, this.#config, { apiToken: undefined })
  }

  /** Looks at the truth, without faults. */
  #eye(): Cloud {
    return new Cloud(this.world, cloudConfig(), { apiToken: undefined })
  }
}

void t.test('any orders, deletions, outages and restarts: the cloud is what a plain model says', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(modelStep, { maxLength: 40 }), fc.nat(1_000), async (steps, seed) => {
      const dir = tempDir(t)
      const cloud = new ModelledCloud(dir, seed)
      for (const step of steps) if (!(await cloud.take(step))) return false
      const report = readWorld(dir)
      cloud.world.close()
      const { maxLiveByOwner, maxLive } = report.totals
      return maxLiveByOwner <= 1 && maxLive <= 3 && report.lines === cloud.world.ledger.seq
    }),
    { numRuns: 150 },
  )
  t.pass()
})

async function all(cloud: Cloud, filter = {}): Promise<ServerView[]> {
  const servers: ServerView[] = []
  for await (const server of cloud.listServers(filter, signal)) servers.push(server)
  return servers
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => 'ok',
    (error: unknown) => {
      if (error instanceof CloudError) return error.code
      throw error
    },
  )
}
