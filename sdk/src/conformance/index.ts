// The conformance kit as a library: for adapters, and for those who run it from a program of their own.
export {
  adapterVerbs,
  faultNames,
  type Adapter,
  type AdapterVerb,
  type BadOrder,
  type Description,
  type FaultName,
  type Injected,
  type JsonObject,
  type OrderSample,
  type Planting,
  type Settings,
  type Thing,
  type Truth,
  type World,
} from './adapter.js'
export type { Bench, BenchOptions } from './bench.js'
export type { Case, Needs } from './case.js'
export { allCases } from './cases/index.js'
export { AdapterError, executableAdapter, loadAdapter } from './load-adapter.js'
export { main, type Ending } from './main.js'
export { describeCounts } from './report/people.js'
export { toJunit } from './report/junit.js'
export { toTap } from './report/tap.js'
export { runConformance, type CaseResult, type RunOptions, type RunResult } from './runner.js'
