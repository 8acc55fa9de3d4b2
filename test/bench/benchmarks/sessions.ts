import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { GatewayAddress, Identity } from '@slipway/sdk/testing'
import { startBare } from '../harness/bare.js'
import type { Bed } from '../harness/bed.js'
import type { Benchmark, Contender, Sample } from '../harness/benchmark.js'
import { until, type Child } from '../harness/child.js'
import type { HolderSettings } from '../harness/holder.js'
import { BenchHub } from '../harness/hub.js'

const holder = join(dirname(fileURLToPath(import.meta.url)), '../harness/holder.js')
const sessionsPerHolder = 2_500
const providers = 20
const heartbeatMs = 5_000
const kib = 1024

interface Server {
  readonly child: Child
  readonly gateway: GatewayAddress
  readonly identities: readonly Identity[]
  restart(): Promise<void>
}

async function startHub(bed: Bed): Promise<Server> {
  const hub = await BenchHub.start(bed)
  const identities: Identity[] = []
  for (let index = 0; index < bed.size(providers, 2); index++) identities.push(await hub.addProvider(`bench-${index}`))
  return { child: hub.child, gateway: hub.gateway, identities, restart: () => hub.restart() }
}

async function startEcho(bed: Bed): Promise<Server> {
  const bare = await startBare(bed, 'gateway')
  return { child: bare.child, gateway: bare.gateway, identities: [bare.identity], restart: () => bare.restart() }
}

/** Processes that hold sessions of one server. */
class Holders {
  readonly #children: Child[] = []
  readonly #up = new Map<Child, number>()

  constructor(bed: Bed, server: Server, sessions: number) {
    for (let left = sessions; left > 0; left -= sessionsPerHolder) {
      const settings: HolderSettings = {
        gateway: server.gateway,
        identities: server.identities,
        sessions: Math.min(left, sessionsPerHolder),
        heartbeatMs,
      }
      const child = bed.spawn(`holder-${randomBytes(3).toString('hex')}`, [holder], {
        SLIPWAY_HOLDER: JSON.stringify(settings),
      })
      child.onMessage((message) => this.#up.set(child, (message as { up: number }).up))
      this.#children.push(child)
    }
  }

  get up(): number {
    return [...this.#up.values()].reduce((sum, up) => sum + up, 0)
  }

  async stop(): Promise<void> {
    await Promise.all(this.#children.map((child) => child.stop('SIGKILL')))
  }
}

async function measure(bed: Bed, server: Server, sessions: number): Promise<Sample> {
  const empty = await server.child.memory()
  const cpuBefore = server.child.cpuMs()
  const start = performance.now()
  const holders = new Holders(bed, server, sessions)
  const all = (ms: number) => until(`${sessions} sessions`, () => holders.up === sessions, ms)
  await all(300_000)
  const connectedMs = performance.now() - start
  const acceptCpu = server.child.cpuMs() - cpuBefore
  await sleep(bed.size(3_000, 50))
  const full = await server.child.memory()
  const idleMs = bed.size(15_000, 200)
  const cpu = server.child.cpuMs()
  await sleep(idleMs)
  const idleCpu = server.child.cpuMs() - cpu
  if (holders.up !== sessions) throw new Error(`${sessions - holders.up} sessions were lost while nothing happened`)
  await server.child.stop('SIGKILL')
  await until('the sessions to be cut', () => holders.up === 0)
  const down = performance.now()
  await server.restart()
  await all(300_000)
  const backMs = performance.now() - down
  await holders.stop()
  return {
    'RSS KiB each': (full.rss - empty.rss) / sessions / kib,
    'heap KiB each': (full.heapUsed - empty.heapUsed) / sessions / kib,
    'accept CPU ms each': acceptCpu / sessions,
    'connected in s': connectedMs / 1_000,
    'idle CPU %': (idleCpu / idleMs) * 100,
    'all back in s': backMs / 1_000,
  }
}

function contender(bed: Bed, series: string, sessions: number): Contender {
  return {
    series,
    case: `${sessions.toLocaleString('en-US')} sessions`,
    async run() {
      const server = await (series === 'hub' ? startHub(bed) : startEcho(bed))
      try {
        return await measure(bed, server, sessions)
      } finally {
        await server.child.stop('SIGKILL')
      }
    },
  }
}

const many = { series: 'hub', case: '10,000 sessions' } as const

export const sessions: Benchmark = {
  name: 'sessions',
  title: 'Idle sessions',
  about: `Sessions over mutual TLS on one hub, of ${providers} providers, each with a sign of life every ${heartbeatMs / 1_000} s: memory after a collection of garbage, CPU, and how long it takes until all are back after the hub was killed and started again. Instances of a provider share a certificate here. Beside it a bare grpc-js server with the same contract and TLS.`,
  goals: [
    {
      ...many,
      text: 'at most 1.3 × the memory of bare grpc-js',
      metric: 'RSS KiB each',
      of: 'bare grpc-js',
      atMost: 1.3,
    },
    { ...many, text: 'all back within a minute', metric: 'all back in s', atMost: 60 },
  ],
  charts: [
    { metric: 'RSS KiB each', title: 'Resident memory of one session, KiB' },
    { metric: 'all back in s', title: 'All back after a restart, s' },
  ],
  async prepare(bed) {
    const counts = bed.effort.quick ? [40] : [1_000, 10_000]
    return {
      contenders: counts.flatMap((count) => ['hub', 'bare grpc-js'].map((series) => contender(bed, series, count))),
      close: async () => undefined,
    }
  },
}
