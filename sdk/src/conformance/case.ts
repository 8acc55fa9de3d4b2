import { existsSync } from 'node:fs'
import { Capability, type Hello } from '@slipway/proto/provider/v1'
import type { AdapterVerb, Description, FaultName } from './adapter.js'
import type { Bench, BenchOptions } from './bench.js'

export type CapabilityName = Exclude<keyof typeof Capability, 'UNSPECIFIED'>

/** What a case needs to tell anything. Where it is missing the case is skipped, with the reason. */
export interface Needs {
  readonly kind?: 'dynamic' | 'static'
  readonly capabilities?: readonly CapabilityName[]
  readonly faults?: readonly FaultName[]
  readonly verbs?: readonly AdapterVerb[]
  /** Parts of the adapter's description that must be there. */
  readonly described?: readonly (keyof Description)[]
}

/** One thing that must hold of a provider. */
export interface Case {
  /** `theme/name`. */
  readonly id: string
  /** What must hold, in one sentence. */
  readonly rule: string
  /** Whether it is of the basic set: what a provider must get right before anything else matters. */
  readonly basic?: boolean
  readonly needs?: Needs
  readonly options?: BenchOptions
  /** @throws CaseFailure where it does not hold, CaseSkipped where it cannot be told here. */
  run(bench: Bench): Promise<void>
}

/** The library that shows a process another time of day. */
export const faketimeLibrary = [
  '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1',
  '/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1',
].find((path) => existsSync(path))

/** Why a case cannot tell anything of this provider; undefined: it can. */
export function whySkipped({ needs = {} }: Case, description: Description, hello: Hello): string | undefined {
  const { kind, capabilities = [], faults = [], verbs = [], described = [] } = needs
  if (kind !== undefined && kind !== description.kind) return `the provider is ${description.kind}`
  const lacking = capabilities.filter((name) => !hello.capabilities.includes(Capability[name]))
  if (lacking.length > 0) return `the provider does not declare ${lacking.join(', ')}`
  const missingFaults = faults.filter((fault) => description.faults?.includes(fault) !== true)
  if (missingFaults.length > 0) return `the adapter cannot inject ${missingFaults.join(', ')}`
  const missingVerbs = verbs.filter((verb) => description.verbs?.includes(verb) !== true)
  if (missingVerbs.length > 0) return `the adapter cannot ${missingVerbs.join(', ')}`
  const missing = described.filter((key) => !description[key])
  if (missing.length > 0) return `the adapter does not say: ${missing.join(', ')}`
  return undefined
}
