import type { Benchmark } from '../harness/benchmark.js'
import { claim } from './claim.js'
import { latency } from './latency.js'
import { lifecycle } from './lifecycle.js'
import { list } from './list.js'
import { memory } from './memory.js'
import { report } from './report.js'
import { sessions } from './sessions.js'
import { watch } from './watch.js'

/** In the order in which they run and are shown. */
export const benchmarks: readonly Benchmark[] = [lifecycle, latency, claim, report, watch, sessions, list, memory]
