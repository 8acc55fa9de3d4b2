import type { PowerState, WantedPower } from './driver.js'
import type { BmcErrorKind } from './errors.js'

/** How a fleet's power is watched. */
export interface PowerRules {
  /** How often a healthy BMC is asked. */
  readonly intervalMs: number
  /** A BMC that fails is asked after this at first, and then after twice as long each time. */
  readonly firstBackOffMs: number
  readonly maxBackOffMs: number
  /** How soon at most a BMC is asked again that refuses our login: many lock the account otherwise. */
  readonly loginBackOffMs: number
  /** How many machines may be switched off, in each interval, because they were found on. */
  readonly correctionsPerPass: number
  /** So many corrections of one machine within `contestWindowMs` are enough: who switches it on means it. */
  readonly correctionsPerMachine: number
  readonly contestWindowMs: number
}

export const defaultPowerRules: PowerRules = {
  intervalMs: 30_000,
  firstBackOffMs: 5_000,
  maxBackOffMs: 15 * 60_000,
  loginBackOffMs: 10 * 60_000,
  correctionsPerPass: 10,
  correctionsPerMachine: 3,
  contestWindowMs: 60 * 60_000,
}

/** What is remembered of one machine. Times are of the monotonic clock. */
export interface PowerRecord {
  readonly wanted: WantedPower
  /** As last read, by whomever. */
  readonly power: PowerState
  /** Whether power has been as wanted since that was wished: from then on, another reading is somebody else's doing. */
  readonly confirmed: boolean
  readonly contested: boolean
  /** When it was corrected, as far as that still counts. */
  readonly corrections: readonly number[]
  /** Whether it was said that the correction has to wait, so that it is said once. */
  readonly delayed: boolean
  /** The BMC accepted our last change and did nothing: that it can be read does not make it well. */
  readonly ignoring: boolean
  /** In a row. */
  readonly failures: number
  readonly nextAtMs: number
}

export type PowerNews =
  | { readonly kind: 'changed-outside'; readonly from: PowerState; readonly to: PowerState }
  | { readonly kind: 'contested' | 'correction-delayed' | 'recovered' }

/** What follows from something seen. */
export interface Verdict {
  readonly record: PowerRecord
  readonly news: readonly PowerNews[]
  /** The machine is to be switched off, now. Whoever does so says {@link corrected}. */
  readonly correct: boolean
}

export function newRecord(nowMs: number): PowerRecord {
  return {
    wanted: 'any',
    power: 'unknown',
    confirmed: false,
    contested: false,
    corrections: [],
    delayed: false,
    ignoring: false,
    failures: 0,
    nextAtMs: nowMs,
  }
}

/** @param claimed whether power is said to be so already, and not only to be brought there. */
export function wish(record: PowerRecord, wanted: WantedPower, claimed: boolean): PowerRecord {
  if (record.wanted === wanted && claimed) return record
  return { ...record, wanted, confirmed: claimed, contested: false, delayed: false }
}

/** A person has looked after the machine: corrections begin anew. */
export function resume(record: PowerRecord): PowerRecord {
  return { ...record, contested: false, corrections: [], delayed: false, confirmed: false }
}

/**
 * Power was read.
 * @param correctionsLeft how many machines may still be corrected in this pass. Absent: it was read for another purpose, and what there is to
 * correct is left to the watching, which then comes at once.
 */
export function read(
  record: PowerRecord,
  power: PowerState,
  nowMs: number,
  rules: PowerRules,
  correctionsLeft?: number,
): Verdict {
  const ignoring = record.ignoring && record.wanted !== 'any' && record.wanted !== power
  const news: readonly PowerNews[] = record.failures > 0 && !ignoring ? [{ kind: 'recovered' }] : []
  const failures = ignoring ? record.failures : 0
  const seen = { ...record, ignoring, failures, nextAtMs: nowMs + rules.intervalMs }
  // On its way from one to the other, or the BMC does not know: no ground to judge.
  if (power === 'unknown') return { record: seen, news, correct: false }
  const outside = isOutside(record, power)
  const change: readonly PowerNews[] = outside ? [{ kind: 'changed-outside', from: record.power, to: power }] : []
  const confirmed = record.wanted === power || (record.confirmed && !outside)
  const known: Verdict = { record: { ...seen, power, confirmed }, news: [...news, ...change], correct: false }
  if (record.wanted === power || record.wanted === 'any')
    return { ...known, record: { ...known.record, contested: false, delayed: false } }
  return record.contested ? known : judge(known, outside, nowMs, rules, correctionsLeft)
}

/** What to do about power that is not as wanted. */
function judge(
  known: Verdict,
  outside: boolean,
  nowMs: number,
  rules: PowerRules,
  correctionsLeft: number | undefined,
): Verdict {
  // Wanted on and found off: whoever took the power away may be at work inside. Nobody is helped by switching it on under their hands.
  if (known.record.wanted === 'on') return outside ? contest(known) : known
  if (correctionsLeft === undefined) return { ...known, record: { ...known.record, nextAtMs: nowMs } }
  return correction(known, nowMs, rules, correctionsLeft)
}

function contest({ record, news }: Verdict): Verdict {
  return { record: { ...record, contested: true }, news: [...news, { kind: 'contested' }], correct: false }
}

function isOutside(record: PowerRecord, power: PowerState): boolean {
  // What was as wanted, and is not any more; or where nothing is wanted, what was known and has changed.
  if (record.wanted !== 'any') return record.confirmed && record.wanted !== power && record.power !== power
  return record.power !== 'unknown' && record.power !== power
}

function correction(found: Verdict, nowMs: number, rules: PowerRules, correctionsLeft: number): Verdict {
  const corrections = found.record.corrections.filter((atMs) => nowMs - atMs < rules.contestWindowMs)
  const verdict = { ...found, record: { ...found.record, corrections } }
  if (corrections.length >= rules.correctionsPerMachine) return contest(verdict)
  if (correctionsLeft > 0) return { ...verdict, correct: true }
  const told: readonly PowerNews[] = found.record.delayed ? [] : [{ kind: 'correction-delayed' }]
  return { record: { ...verdict.record, delayed: true }, news: [...found.news, ...told], correct: false }
}

/** The machine was switched off, and is seen to be. */
export function corrected(record: PowerRecord, nowMs: number): PowerRecord {
  const seen = { ...record, power: 'off' as const, confirmed: true, delayed: false, ignoring: false, failures: 0 }
  return { ...seen, corrections: [...record.corrections, nowMs] }
}

/** The correction was left to whoever holds the machine: it counts, and what comes of it is seen by the next reading. */
export function handedOver(record: PowerRecord, nowMs: number): PowerRecord {
  return { ...record, delayed: false, corrections: [...record.corrections, nowMs] }
}

/** Failures that mean that the controller does not let us in. */
export const loginKinds: ReadonlySet<BmcErrorKind> = new Set([
  'unknown-user',
  'wrong-password',
  'privilege',
  'cipher-suite-refused',
  'tls-identity',
  'address-forbidden',
  'unsupported',
])

/**
 * The BMC could not be asked, or did not do as told.
 * @param random between 0 and 1, so that BMCs that failed together are not all asked again together.
 */
export function failed(
  record: PowerRecord,
  kind: BmcErrorKind,
  nowMs: number,
  rules: PowerRules,
  random: number,
): PowerRecord {
  const doubled = Math.min(rules.maxBackOffMs, rules.firstBackOffMs * 2 ** Math.min(record.failures, 30))
  const backOffMs = loginKinds.has(kind) ? Math.max(doubled, rules.loginBackOffMs) : doubled
  const ignoring = record.ignoring || kind === 'ignored'
  return { ...record, ignoring, failures: record.failures + 1, nextAtMs: nowMs + backOffMs * (0.75 + random / 2) }
}
