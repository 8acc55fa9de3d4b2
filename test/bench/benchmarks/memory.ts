import type { Benchmark } from '../harness/benchmark.js'
import { drive, startHub } from './lifecycle.js'

const mib = 2 ** 20

export const memory: Benchmark = {
  name: 'memory',
  title: 'Memory under load',
  about:
    'Resident memory of one hub while lifecycles go through it, 64 at a time: sampled in each sixth of a minute, and the live heap after a collection of garbage before and after. A round goes on with the hub of the round before, so that what leaks adds up.',
  goals: [
    {
      text: 'the live heap grows by less than 10 MiB in a minute of load',
      series: 'hub',
      case: 'a minute of load',
      metric: 'heap growth MiB',
      atMost: 10,
    },
  ],
  charts: [],
  async prepare(bed) {
    const hub = await startHub(bed)
    await drive(hub, 64, bed.size(5_000, 100))
    await hub.settle()
    return {
      contenders: [
        {
          series: 'hub',
          case: 'a minute of load',
          async run() {
            const before = await hub.child.memory()
            const samples: number[] = []
            let count = 0
            for (let part = 0; part < 6; part++) {
              count += (await drive(hub, 64, bed.size(10_000, 50))).full.length
              samples.push(hub.child.rssBytes() / mib)
            }
            await hub.settle()
            const after = await hub.child.memory()
            return {
              lifecycles: count,
              'RSS after 10 s MiB': samples[0] ?? Number.NaN,
              'RSS after 60 s MiB': samples[5] ?? Number.NaN,
              'RSS at most MiB': Math.max(...samples),
              'heap MiB': after.heapUsed / mib,
              'heap growth MiB': (after.heapUsed - before.heapUsed) / mib,
            }
          },
        },
      ],
      close: async () => hub.fleet.close(),
    }
  },
}
