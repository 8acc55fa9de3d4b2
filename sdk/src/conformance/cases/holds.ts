import { durationFromMs } from '@bufbuild/protobuf/wkt'
import type { Case } from '../case.js'
import { expect, expectEqual } from '../until.js'
import { expectStandstill, pause, reportNumber, strikeAt } from './moments.js'

/** Claims that outlive a stream. */
export const holdsCases: readonly Case[] = [
  {
    id: 'holds/are-named-in-the-next-hello',
    rule: 'After a cut stream, Hello names what is held, with fence and generation, and the claim goes on under its old fence.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        instance.wire.cut()
        return 'lose-ack'
      })
      const before = await instance.claim(item)
      await reached()
      const { hello } = await instance.ready(before)
      const held = hello.holds.find((hold) => hold.item?.id === item.id)
      expect(held !== undefined, 'the item is not among the holds')
      expectEqual(held.fence, 1n, 'the fence of the hold')
      expectEqual(held.generation, 1n, 'the generation of the hold')
      await bench.drive(item)
      expectEqual(item.fence, 1n, 'the fence under which it was settled')
      await bench.server(item)
    },
  },
  {
    id: 'holds/end-when-the-hub-says-lost',
    rule: 'What Welcome calls lost is as if it had been revoked.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        item.free()
        instance.wire.cut()
        return 'ignore'
      })
      const before = await instance.claim(item)
      await reached()
      const session = await instance.ready(before)
      await expectStandstill(bench, 2_000, 'the claim was lost')
      const said = session.all('report').filter((report) => report.item?.id === item.id)
      expectEqual(said.length, 0, 'reports about it')
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'holds/nothing-that-was-released',
    rule: 'What was released is not held: the next Hello does not name it.',
    basic: true,
    async run(bench) {
      const { instance, session } = await bench.provisioned()
      instance.wire.cut()
      const { hello } = await instance.ready(session)
      expectEqual(hello.holds.length, 0, 'holds after all was released')
    },
  },
  {
    id: 'holds/nothing-after-a-crash',
    rule: 'A process that was started again holds nothing.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => 'lose-ack')
      await instance.claim(item)
      await reached()
      const { hello } = await instance.crash()
      expectEqual(hello.holds.length, 0, 'holds of a new process')
    },
  },
  {
    id: 'holds/hear-of-a-wish-that-changed-meanwhile',
    rule: 'A wish that changed while there was no stream is taken up on the next one.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        item.wish({})
        instance.wire.cut()
        return 'lose-ack'
      })
      await instance.claim(item)
      await reached()
      await bench.drive(item)
      expectEqual(item.settledAt, 2n, 'the generation at which it was settled')
      await bench.server(item)
    },
  },
  {
    id: 'holds/move-with-a-drain',
    rule: 'Drain makes an instance open another session with its holds, and then close the first: no claim is lost.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const session = await instance.ready()
      const drain = { reason: 'the kit drains', deadline: durationFromMs(10_000) }
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        session.send({ case: 'drain', value: drain })
        return 'ack'
      })
      await instance.claim(item)
      await reached()
      await instance.ready(session)
      await bench.drive(item)
      expectEqual(item.fence, 1n, 'the fence under which it was settled')
      await bench.server(item)
    },
  },
  {
    id: 'holds/survive-a-hub-that-is-away-for-a-while',
    rule: 'A hub that is away for less than a lease costs no claim.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(2), () => {
        instance.wire.close()
        return 'lose-ack'
      })
      await instance.claim(item)
      await reached()
      await pause(2_000)
      instance.wire.reopen()
      await bench.drive(item)
      expectEqual(item.fence, 1n, 'the fence under which it was settled')
      await bench.server(item)
    },
  },
]
