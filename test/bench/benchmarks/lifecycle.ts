import type { GatewayAddress, Identity } from '@slipway/sdk/testing'
import { startBare } from '../harness/bare.js'
import { query, type Bed } from '../harness/bed.js'
import type { Benchmark, Contender, Sample } from '../harness/benchmark.js'
import { until, type Child } from '../harness/child.js'
import { addProviders, Fleet } from '../harness/fleet.js'
import { BenchHub } from '../harness/hub.js'
import { OrderClient } from '../harness/orders.js'
import { latencies } from '../harness/stats.js'

/** Something that takes orders and hands them to its provider connections. */
export interface Subject {
  readonly child: Child
  readonly url: string
  readonly token: string
  readonly classes: readonly string[]
  readonly fleet: Fleet
  /** Waits until nothing of what was ordered is under way any more. */
  settle(): Promise<void>
}

const providers = 10
const connections = 50

export async function startHub(bed: Bed): Promise<Subject> {
  const hub = await BenchHub.start(bed)
  const { names, identities } = await addProviders(hub, bed.size(providers, 2))
  const fleet = await connect(bed, hub.gateway, identities)
  const underWay = `select count(*)::int as count from hosts where state not in ('READY', 'RELEASED')`
  return {
    child: hub.child,
    url: hub.url,
    token: hub.token,
    classes: names,
    fleet,
    settle: async () => {
      await until(
        'all hosts to be READY',
        async () => (await query<{ count: number }>(hub.databaseUrl, underWay))[0]?.count === 0,
        120_000,
      )
    },
  }
}

export async function startPrototype(bed: Bed): Promise<Subject> {
  const bare = await startBare(bed, 'hub', await bed.freshDatabase())
  const fleet = await connect(bed, bare.gateway, [bare.identity])
  return { child: bare.child, url: bare.url, token: 'none', classes: ['any'], fleet, settle: async () => undefined }
}

function connect(bed: Bed, gateway: GatewayAddress, identities: readonly Identity[]): Promise<Fleet> {
  return Fleet.connect(gateway, identities, bed.size(connections, 4))
}

interface Times {
  readonly create: number[]
  readonly dispatch: number[]
  readonly full: number[]
}

/** Orders hosts, so many at a time, for so long: each worker orders the next one when the answer for its last one is stored. */
export async function drive(subject: Subject, concurrency: number, forMs: number): Promise<Times> {
  const orders = new OrderClient(subject.url, subject.token)
  const times: Times = { create: [], dispatch: [], full: [] }
  const end = performance.now() + forMs
  const worker = async (index: number): Promise<void> => {
    for (let turn = index; performance.now() < end; turn += concurrency) {
      const id = orders.nextId()
      const heard = subject.fleet.heardOf(id)
      const start = performance.now()
      await orders.order(id, subject.classes[turn % subject.classes.length] ?? '')
      const created = performance.now()
      const { claimedAt, ackedAt } = await heard
      times.create.push(created - start)
      times.dispatch.push(Math.max(0, claimedAt - created))
      times.full.push(ackedAt - start)
    }
  }
  await Promise.all(Array.from({ length: concurrency }, (_, index) => worker(index)))
  orders.close()
  return times
}

function contender(series: string, subject: Subject, concurrency: number, forMs: number): Contender {
  return {
    series,
    case: `${concurrency} at a time`,
    async run(): Promise<Sample> {
      const cpu = subject.child.cpuMs()
      const start = performance.now()
      const times = await drive(subject, concurrency, forMs)
      const elapsed = performance.now() - start
      await subject.settle()
      const count = times.full.length
      return {
        'lifecycles/s': (count / elapsed) * 1_000,
        'hub CPU µs': ((subject.child.cpuMs() - cpu) * 1_000) / count,
        ...latencies('create', times.create),
        ...latencies('dispatch', times.dispatch),
        ...latencies('full', times.full),
      }
    },
  }
}

export const lifecycle: Benchmark = {
  name: 'lifecycle',
  title: 'Durable lifecycles',
  about:
    'An order through the client API is stored, placed and dispatched; its provider answers at once; the answer is stored and acknowledged. 50 provider connections over mutual TLS, ten providers; the load generator runs on the same cores. CPU counts until every host is READY. Beside it a bare prototype on the same parts: grpc-js, one table, statements for a whole turn of the event loop, and no placement, requests, machines, events or changes.',
  goals: [
    {
      text: 'at least as many as the bare prototype',
      series: 'hub',
      case: '64 at a time',
      metric: 'lifecycles/s',
      of: 'bare prototype',
      atLeast: 1,
    },
  ],
  charts: [
    { metric: 'lifecycles/s', title: 'Lifecycles per second' },
    { metric: 'hub CPU µs', title: 'CPU of the hub for one lifecycle, µs' },
  ],
  async prepare(bed) {
    const subjects = { hub: await startHub(bed), 'bare prototype': await startPrototype(bed) }
    const forMs = bed.size(8_000, 500)
    const contenders = [1, 64].flatMap((concurrency) =>
      Object.entries(subjects).map(([series, subject]) => contender(series, subject, concurrency, forMs)),
    )
    for (const subject of Object.values(subjects)) await drive(subject, 8, bed.size(2_000, 100))
    return { contenders, close: async () => Object.values(subjects).forEach((subject) => subject.fleet.close()) }
  },
}
