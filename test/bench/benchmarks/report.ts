import type { Claimed, HubMessage } from '@slipway/proto/provider/v1'
import { create } from '@bufbuild/protobuf'
import { ClaimedSchema } from '@slipway/proto/provider/v1'
import { startBare } from '../harness/bare.js'
import type { Bed } from '../harness/bed.js'
import type { Benchmark, Contender, Sample } from '../harness/benchmark.js'
import { until, type Child } from '../harness/child.js'
import { BenchHub } from '../harness/hub.js'
import { OrderClient } from '../harness/orders.js'
import { RawSession, type SessionOptions } from '../harness/session.js'
import { latencies } from '../harness/stats.js'

/** Reports under way at a time on one stream, each of another item. */
const window = 8

/** A stream that holds items, and reports of them: the next one for an item when the last one is acknowledged. */
class Reporter {
  readonly #session: RawSession
  readonly #items: Claimed[] = []
  readonly #sent = new Map<bigint, { readonly item: Claimed; readonly at: number }>()
  latenciesMs: number[] = []
  #until = 0
  #percent = 0

  private constructor(session: RawSession) {
    this.#session = session
  }

  static async open(options: Omit<SessionOptions, 'onMessages' | 'capacity'>): Promise<Reporter> {
    const early: HubMessage[] = []
    let receive = (messages: readonly HubMessage[]): void => void early.push(...messages)
    const session = await RawSession.open({
      ...options,
      capacity: window,
      onMessages: (messages) => receive(messages),
    })
    const reporter = new Reporter(session)
    receive = (messages) => reporter.#receive(messages)
    receive(early)
    return reporter
  }

  get held(): number {
    return this.#items.length
  }

  hold(item: Claimed): void {
    this.#items.push(item)
  }

  async run(untilMs: number): Promise<void> {
    this.latenciesMs = []
    this.#until = untilMs
    for (const item of this.#items) this.#report([item])
    await until('the last acknowledgements', () => this.#sent.size === 0 && performance.now() >= untilMs)
  }

  close(): void {
    this.#session.close()
  }

  #report(items: readonly Claimed[]): void {
    const at = performance.now()
    const bodies = items.map((item) => {
      const { sequence, body } = this.#session.progress(item, ++this.#percent % 100)
      this.#sent.set(sequence, { item, at })
      return body
    })
    if (bodies.length > 0) this.#session.send(bodies)
  }

  #receive(messages: readonly HubMessage[]): void {
    const now = performance.now()
    const next: Claimed[] = []
    for (const { body } of messages) {
      if (body.case === 'claimed') this.hold(body.value)
      if (body.case === 'nack') throw new Error(body.value.message)
      if (body.case !== 'ack') continue
      const sent = this.#sent.get(body.value.sequence)
      this.#sent.delete(body.value.sequence)
      if (sent === undefined) continue
      this.latenciesMs.push(now - sent.at)
      if (now < this.#until) next.push(sent.item)
    }
    this.#report(next)
  }
}

function contender(series: string, child: Child, reporters: readonly Reporter[], forMs: number): Contender {
  return {
    series,
    case: reporters.length === 1 ? '1 stream' : `${reporters.length} streams`,
    async run(): Promise<Sample> {
      const cpu = child.cpuMs()
      const start = performance.now()
      await Promise.all(reporters.map((reporter) => reporter.run(start + forMs)))
      const all = reporters.flatMap((reporter) => reporter.latenciesMs)
      return {
        'reports/s': (all.length / (performance.now() - start)) * 1_000,
        'CPU µs': ((child.cpuMs() - cpu) * 1_000) / all.length,
        ...latencies('report to ack', all),
      }
    },
  }
}

async function ofHub(bed: Bed, streams: number): Promise<{ child: Child; reporters: Reporter[] }> {
  const hub = await BenchHub.start(bed)
  // A provider of its own for each stream, so that each is given as many items as any other.
  const reporters: Reporter[] = []
  const orders = new OrderClient(hub.url, hub.token)
  for (let index = 0; index < streams; index++) {
    const name = `bench-${index}`
    const identity = await hub.addProvider(name)
    await hub.addClass(name, name)
    reporters.push(await Reporter.open({ gateway: hub.gateway, identity, name }))
    for (let order = 0; order < window; order++) await orders.order(orders.nextId(), name)
  }
  orders.close()
  await until('every stream to hold its items', () => reporters.every((reporter) => reporter.held === window))
  return { child: hub.child, reporters }
}

async function ofBare(bed: Bed, streams: number): Promise<{ child: Child; reporters: Reporter[] }> {
  const bare = await startBare(bed, 'gateway')
  const reporters: Reporter[] = []
  for (let index = 0; index < streams; index++) {
    const reporter = await Reporter.open({ gateway: bare.gateway, identity: bare.identity, name: `i${index}` })
    for (let item = 0; item < window; item++)
      reporter.hold(create(ClaimedSchema, { item: { kind: 1, id: crypto.randomUUID() }, fence: 1n }))
    reporters.push(reporter)
  }
  return { child: bare.child, reporters }
}

export const report: Benchmark = {
  name: 'report',
  title: 'Reports',
  about: `A report of progress until its acknowledgement, which the hub gives when all that follows is committed. Each stream has ${window} items and a report under way for each. Beside it a bare grpc-js server with the same contract and TLS, which acknowledges at once and keeps nothing.`,
  goals: [],
  charts: [
    { metric: 'reports/s', title: 'Reports acknowledged per second' },
    { metric: 'report to ack p50 ms', title: 'Report to acknowledgement, p50, ms' },
  ],
  async prepare(bed) {
    const counts = bed.effort.quick ? [1, 2] : [1, 10, 50]
    const most = Math.max(...counts)
    const [hub, bare] = [await ofHub(bed, most), await ofBare(bed, most)]
    const forMs = bed.size(5_000, 300)
    const all = [...hub.reporters, ...bare.reporters]
    await contender('warm-up', hub.child, hub.reporters, bed.size(2_000, 100)).run(0)
    return {
      contenders: counts.flatMap((count) => [
        contender('hub', hub.child, hub.reporters.slice(0, count), forMs),
        contender('bare grpc-js', bare.child, bare.reporters.slice(0, count), forMs),
      ]),
      close: async () => all.forEach((reporter) => reporter.close()),
    }
  },
}
