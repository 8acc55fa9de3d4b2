import { setTimeout as sleep } from 'node:timers/promises'
import type { Benchmark, Contender, Sample } from '../harness/benchmark.js'
import { OrderClient } from '../harness/orders.js'
import { latencies } from '../harness/stats.js'
import { startHub, startPrototype, type Subject } from './lifecycle.js'

/** Places orders at a steady rate, whatever becomes of them, and times each from the moment at which it should have gone out. */
async function steady(subject: Subject, perSecond: number, forMs: number): Promise<Sample> {
  const orders = new OrderClient(subject.url, subject.token)
  const create: number[] = []
  const dispatch: number[] = []
  const whole: number[] = []
  const count = Math.max(1, Math.round((perSecond * forMs) / 1_000))
  const start = performance.now() + 10
  const pending: Promise<void>[] = []
  for (let index = 0; index < count; index++) {
    const at = start + (index * 1_000) / perSecond
    const waitMs = at - performance.now()
    if (waitMs > 1) await sleep(waitMs)
    const id = orders.nextId()
    const heard = subject.fleet.heardOf(id)
    const one = async () => {
      await orders.order(id, subject.classes[index % subject.classes.length] ?? '')
      const created = performance.now()
      create.push(created - at)
      const { claimedAt } = await heard
      dispatch.push(Math.max(0, claimedAt - created))
      whole.push(claimedAt - at)
    }
    pending.push(one())
  }
  await Promise.all(pending)
  await subject.settle()
  orders.close()
  return {
    ...latencies('accepted to claimed', dispatch),
    ...latencies('create', create),
    ...latencies('sent to claimed', whole),
  }
}

const low = { series: 'hub', case: '10 orders/s' } as const
const busy = { series: 'hub', case: '200 orders/s' } as const

export const latency: Benchmark = {
  name: 'latency',
  title: 'Latency of dispatch',
  about:
    'From the answer that an order is stored until its provider sees the claim, at a steady rate; each order is timed from the moment at which it should have gone out. In between the hub finds a place, makes a request with its secrets, and claims. Beside it the bare prototype, which does none of that.',
  goals: [
    { ...low, text: 'p50 at low load under 3 ms', metric: 'accepted to claimed p50 ms', atMost: 3 },
    { ...low, text: 'p99 at low load under 15 ms', metric: 'accepted to claimed p99 ms', atMost: 15 },
    { ...busy, text: 'p99 at 200 orders/s under 50 ms', metric: 'accepted to claimed p99 ms', atMost: 50 },
  ],
  charts: [
    { metric: 'accepted to claimed p50 ms', title: 'Order accepted to claim seen, p50, ms' },
    { metric: 'accepted to claimed p99 ms', title: 'Order accepted to claim seen, p99, ms' },
  ],
  async prepare(bed) {
    const subjects = { hub: await startHub(bed), 'bare prototype': await startPrototype(bed) }
    for (const subject of Object.values(subjects)) await steady(subject, 100, bed.size(8_000, 100))
    const contenders = [10, 200].flatMap((rate) =>
      Object.entries(subjects).map(([series, subject]): Contender => ({
        series,
        case: `${rate} orders/s`,
        run: () => steady(subject, rate, bed.size(rate === 10 ? 15_000 : 8_000, 300)),
      })),
    )
    return { contenders, close: async () => Object.values(subjects).forEach((subject) => subject.fleet.close()) }
  },
}
