import { NackReason, type Report } from '@slipway/proto/provider/v1'
import type { Truth } from '../adapter.js'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Verdict } from '../gateway/gateway.js'
import type { Item } from '../gateway/item.js'
import type { Instance } from '../instance.js'
import { expect, expectEqual } from '../until.js'
import { doubtMs, expectStandstill, pause, reportNumber, strikeAt, untilItExists } from './moments.js'

/** The reports that an instance said of an item, from now on. */
function reportsFromNow(instance: Instance, item: Item) {
  const all = () =>
    instance.sessions.flatMap((session) => session.all('report')).filter((report) => report.item?.id === item.id)
  const before = all().length
  return () => all().slice(before)
}

/**
 * Hands an item out, and ends its claim at its first report: from then on nothing may be done, and at most one report said that was on its way.
 *
 * @param end ends the claim, and gives the answer to the report.
 */
async function expectStop(bench: Bench, end: (item: Item, instance: Instance) => Verdict) {
  const instance = await bench.instance()
  const item = await bench.order()
  let said: () => readonly Report[] = () => []
  let before: Truth = { things: [] }
  const reached = strikeAt(bench, item, reportNumber(1), async () => {
    before = await bench.truth()
    said = reportsFromNow(instance, item)
    return end(item, instance)
  })
  await instance.claim(item)
  await reached()
  await pause(2_500)
  const { things, writes } = await bench.truth()
  expectEqual(things.length, before.things.length, 'things that exist, a while after the claim was over')
  expectEqual(writes, before.writes, 'calls that change something, after the claim was over')
  expect(said().length <= 1, `it said ${said().length} more reports`)
  if (item.held) item.free()
  return { instance, item }
}

/** Two claims in a row, two instances at once, old fences: who may act, and who must stop. */
export const takeoverCases: readonly Case[] = [
  {
    id: 'takeover/by-another-instance',
    rule: 'A second instance goes on where a killed one stopped, with the steps that are stored, and makes no second machine.',
    async run(bench) {
      const first = await bench.instance()
      const second = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(2), () => 'ack')
      await first.claim(item)
      await reached()
      await first.process.kill()
      bench.expireLeases(first)
      await bench.drive(item, [second])
      await bench.server(item)
      expect(item.fence >= 2n, 'it was never claimed anew')
    },
  },
  {
    id: 'takeover/shares-the-work',
    rule: 'Two instances of one provider work side by side, each on what it was handed.',
    async run(bench) {
      const instances = [await bench.instance(), await bench.instance()]
      const items: Item[] = []
      for (let count = 0; count < Math.min(6, bench.description.orders ?? 6); count += 1) {
        const item = await bench.order()
        await instances[count % 2]?.claim(item)
        items.push(item)
      }
      for (const item of items) await bench.drive(item, instances)
      for (const item of items) await bench.server(item)
    },
  },
  {
    id: 'takeover/from-one-that-sleeps',
    rule: 'A holder that slept through its lease, and wakes when another has taken over, does nothing more out there.',
    options: { leaseMs: 4_000 },
    async run(bench) {
      const sleeper = await bench.instance()
      const other = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        sleeper.process.signal('SIGSTOP')
        return 'ack'
      })
      await sleeper.claim(item)
      await reached()
      await pause(4_500)
      bench.expireLeases(sleeper)
      await bench.drive(item, [other])
      const before = await bench.server(item)
      const said = reportsFromNow(sleeper, item)
      sleeper.process.signal('SIGCONT')
      await expectStandstill(bench, 4_000, 'the sleeper woke up')
      expectEqual((await bench.server(item)).externalId, before.externalId, 'the machine')
      expectEqual(said().filter(({ completed }) => completed !== undefined).length, 0, 'completions by the sleeper')
    },
  },
  {
    id: 'takeover/from-one-that-sleeps-in-the-middle',
    rule: 'A holder that slept in the middle of a create makes no second machine when it wakes after its successor.',
    options: { leaseMs: 4_000 },
    async run(bench) {
      const sleeper = await bench.instance()
      const other = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(2), () => {
        sleeper.process.signal('SIGSTOP')
        return 'ack'
      })
      await sleeper.claim(item)
      await reached()
      await pause(4_500)
      bench.expireLeases(sleeper)
      await bench.drive(item, [other])
      sleeper.process.signal('SIGCONT')
      await pause(3_000)
      await bench.server(item)
    },
  },
  {
    id: 'takeover/from-one-that-is-cut-off',
    rule: 'A holder that cannot reach the hub stops within its lease: what another does after that, it does alone.',
    options: { leaseMs: 4_000 },
    async run(bench) {
      const lonely = await bench.instance()
      const other = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        lonely.wire.close()
        return 'lose-ack'
      })
      await lonely.claim(item)
      await reached()
      await pause(5_000)
      bench.expireLeases(lonely)
      await bench.drive(item, [other])
      await bench.server(item)
      const before = lonely.sessions.at(-1)
      lonely.wire.reopen()
      await lonely.ready(before)
      await expectStandstill(bench, 2_000, 'the lost one came back')
    },
  },
  {
    id: 'takeover/while-both-are-awake',
    rule: 'Where an item is handed to a second instance while the first still works on it, the first is refused by its fence and stops; one machine is made.',
    async run(bench) {
      const first = await bench.instance()
      const second = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        item.free()
        return 'ack'
      })
      await first.claim(item)
      await reached()
      await bench.drive(item, [second])
      const said = reportsFromNow(first, item)
      await expectStandstill(bench, 2_000, 'the second was done')
      await bench.server(item)
      expect(said().length <= 1, `the first went on to report ${said().length} times`)
    },
  },
  {
    id: 'takeover/stops-for-a-stale-fence',
    rule: 'A report that is refused with STALE_FENCE ends the claim: nothing more is done under that fence.',
    basic: true,
    async run(bench) {
      const { item } = await expectStop(bench, () => ({ nack: NackReason.STALE_FENCE, message: 'stale' }))
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'takeover/stops-for-an-unknown-item',
    rule: 'A report that is refused with UNKNOWN_ITEM ends the claim in the same way.',
    async run(bench) {
      await expectStop(bench, () => ({ nack: NackReason.UNKNOWN_ITEM, message: 'unknown' }))
    },
  },
  {
    id: 'takeover/says-again-what-could-not-be-stored',
    rule: 'A report that is refused with UNAVAILABLE is said again after a pause, under another sequence, and the work goes on.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      let refusals = 3
      bench.judge = () => {
        refusals -= 1
        return refusals >= 0 ? { nack: NackReason.UNAVAILABLE, message: 'the database is busy' } : 'ack'
      }
      await bench.drive(item, [instance])
      await bench.server(item)
    },
  },
  {
    id: 'takeover/ends-what-makes-no-sense',
    rule: 'A report that is refused with INVALID is not said over and over: the item is released, and the process lives on.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      let refused = 0
      bench.judge = (report) => {
        if (report.observed === undefined || report.failure !== undefined) return 'ack'
        refused += 1
        return { nack: NackReason.INVALID, message: 'the kit does not like it' }
      }
      await instance.claim(item)
      await bench.released(item)
      expect(refused <= 5, `it was said ${refused} times`)
      bench.judge = () => 'ack'
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'takeover/stops-when-revoked',
    rule: 'Revoked ends a claim at once: nothing more is done under its fence, and whoever claims the item next makes the one machine.',
    basic: true,
    async run(bench) {
      const { item } = await expectStop(bench, (item, { current }) => {
        if (current !== undefined) bench.gateway.revoke(item, current)
        return 'ack'
      })
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'takeover/does-not-stop-for-an-old-revocation',
    rule: 'Revoked with the fence of an earlier claim says nothing of the present one.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const first = await instance.claim(item)
      bench.gateway.revoke(item, first)
      const session = await instance.claim(item)
      session.send({ case: 'revoked', value: { item: item.ref, fence: 1n, reason: 'late' } })
      await bench.drive(item)
      expectEqual(item.fence, 2n, 'the fence under which it was settled')
      await bench.server(item)
    },
  },
  {
    id: 'takeover/knows-its-own-claims-apart',
    rule: 'Claimed again under a higher fence by the same instance, it says nothing more under the lower one.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        item.free()
        const session = instance.current
        if (session !== undefined) bench.gateway.claim(item, session)
        return 'ignore'
      })
      await instance.claim(item)
      await reached()
      await pause(300)
      const said = reportsFromNow(instance, item)
      await bench.drive(item)
      const old = said().filter(({ fence }) => fence < 2n)
      expectEqual(old.length, 0, 'reports under the lower fence')
      await bench.server(item)
    },
  },
  {
    id: 'takeover/of-a-create-in-doubt',
    rule: 'The successor of one that died in the middle of a create waits until it has either happened or never will, and then makes the machine.',
    needs: { faults: ['timeout-before'] },
    async run(bench) {
      await bench.inject('timeout-before')
      const first = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(
        bench,
        item,
        ({ observed }) => observed?.createInDoubt === true,
        () => 'ack',
      )
      await first.claim(item)
      await reached()
      await pause(Math.min(150, doubtMs(bench)))
      await first.process.kill()
      bench.expireLeases(first)
      const other = await bench.instance()
      await bench.drive(item, [other])
      await bench.server(item)
    },
  },
  {
    id: 'takeover/says-when-a-create-is-in-doubt',
    rule: 'A create that was sent and whose outcome is not known is reported as in doubt, and as settled once it is known.',
    needs: { kind: 'dynamic', faults: ['lost-answer'] },
    async run(bench) {
      await bench.inject('lost-answer')
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      await untilItExists(bench, item)
      await bench.drive(item)
      const said = item.reports.map(({ observed }) => observed?.createInDoubt).filter((doubt) => doubt !== undefined)
      expect(said.includes(true), 'nothing says that the create is in doubt')
      expectEqual(said.at(-1), false, 'what was said last of the doubt')
    },
  },
]
