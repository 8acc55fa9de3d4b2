import { setTimeout as delay } from 'node:timers/promises'
import type { Report } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Item } from '../gateway/item.js'
import type { Verdict } from '../gateway/gateway.js'
import { CaseFailure, CaseSkipped, expect, expectEqual } from '../until.js'

/** Time for what must not happen to happen. */
export function pause(ms: number): Promise<void> {
  return delay(ms)
}

/** Which report of an item is meant. @param nth from 1. */
export type Fits = (report: Report, nth: number) => boolean

/**
 * Strikes once, at the first report of an item that fits, before it is answered; the verdict is the answer.
 *
 * @returns waits for that moment. @throws CaseSkipped where the item is settled before it comes.
 */
export function strikeAt(bench: Bench, item: Item, fits: Fits, strike: () => Verdict | Promise<Verdict>) {
  let seen = 0
  let striking = false
  let struck = false
  const before = bench.judge
  bench.judge = async (report, session) => {
    if (report.item?.id !== item.id || striking) return before(report, session)
    seen += 1
    if (!fits(report, seen)) return before(report, session)
    striking = true
    const verdict = await strike()
    struck = true
    return verdict
  }
  return async (): Promise<void> => {
    await bench.until('the report at which the case strikes', () => struck || !item.held, bench.createMs)
    if (struck) return
    const [failure] = item.failures
    if (failure !== undefined) throw new CaseFailure(`the item failed: ${failure.message}`)
    throw new CaseSkipped('the provider does not say that much on its way')
  }
}

/** The n-th report of an item, from 1. */
export function reportNumber(wanted: number): Fits {
  return (_report, nth) => nth === wanted
}

/** Waits until something exists under an item's key. */
export async function untilItExists(bench: Bench, item: Item): Promise<void> {
  await bench.until(
    'something to exist under the key of the request',
    async () => (await bench.owned(item)).length > 0,
    bench.createMs,
  )
}

/** Holds where nothing changes out there within the given time. */
export async function expectStandstill(bench: Bench, ms: number, whom: string): Promise<void> {
  const before = await bench.truth()
  await delay(ms)
  const after = await bench.truth()
  expectEqual(ids(after.things), ids(before.things), `what exists, a while after ${whom}`)
  if (before.writes !== undefined)
    expectEqual(after.writes, before.writes, `calls that change something, after ${whom}`)
}

/** Holds where nothing at all exists under an item's key. */
export async function expectGone(bench: Bench, item: Item): Promise<void> {
  const left = await bench.owned(item)
  expect(
    left.length === 0,
    `there still exist ${left.map(({ kind, externalId }) => `${kind} ${externalId}`).join(', ')}`,
  )
}

/** How long a create whose outcome nobody knows may land after the fact. */
export function doubtMs(bench: Bench): number {
  return bench.createMs - bench.waitMs - (bench.description.createMs ?? 60_000)
}

function ids(things: readonly { readonly externalId: string; readonly ownershipKey: string }[]): string {
  return things
    .map(({ externalId, ownershipKey }) => `${externalId}=${ownershipKey}`)
    .sort()
    .join(' ')
}
