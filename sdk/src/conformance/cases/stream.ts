import { create, type UnknownField } from '@bufbuild/protobuf'
import { WireType } from '@bufbuild/protobuf/wire'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { HubMessageSchema } from '@slipway/proto/provider/v1'
import type { Case } from '../case.js'
import type { Verdict } from '../gateway/gateway.js'
import { expect, expectEqual } from '../until.js'
import { pause, reportNumber, strikeAt } from './moments.js'

/** A field of a version that nobody has written yet: number 999, text. */
const newField: UnknownField = {
  no: 999,
  wireType: WireType.LengthDelimited,
  data: new Uint8Array([5, ...new TextEncoder().encode('later')]),
}

/** A message with such a field and nothing else. */
function newMessage() {
  const message = create(HubMessageSchema)
  message.$unknown = [newField]
  return message
}

/** Streams that break, hubs that are slow, and words that are new. */
export const streamCases: readonly Case[] = [
  {
    id: 'stream/comes-back-after-a-cut',
    rule: 'After a connection was reset, another session is opened and takes work.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      instance.wire.cut()
      await instance.ready(first)
      const item = await bench.order()
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'stream/comes-back-after-unavailable',
    rule: 'A stream that the hub ends with UNAVAILABLE is opened again after a pause.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      first.fail()
      await instance.ready(first)
    },
  },
  {
    id: 'stream/comes-back-to-a-hub-that-was-restarted',
    rule: 'A hub that went away and came back is found again.',
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      bench.gateway.close()
      await pause(1_500)
      await bench.gateway.listen()
      await instance.ready(first)
      const item = await bench.order()
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'stream/does-not-storm',
    rule: 'Streams that break again and again are opened again after pauses.',
    async run(bench) {
      const instance = await bench.instance()
      await instance.ready()
      const before = bench.gateway.attempts.length
      const refuse = () => ({ code: 'UNAVAILABLE', reason: 'DRAINING' }) as const
      bench.gateway.refuseHello = refuse
      instance.wire.cut()
      await pause(4_000)
      bench.gateway.refuseHello = () => undefined
      const tries = bench.gateway.attempts.length - before
      expect(tries > 0 && tries <= 40, `${tries} streams were opened in 4 s`)
    },
  },
  {
    id: 'stream/finishes-over-a-cut',
    rule: 'Work that was begun on one stream is finished on the next, once.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(3), () => {
        instance.wire.cut()
        return 'lose-ack'
      })
      await instance.claim(item)
      await reached()
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'stream/finishes-over-many-cuts',
    rule: 'A stream that is cut at every single report costs time, and neither the order nor a second machine.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      let cuts = 0
      bench.judge = () => {
        cuts += 1
        if (cuts > 4) return 'ack'
        instance.wire.cut()
        return cuts % 2 === 0 ? 'ignore' : 'lose-ack'
      }
      await bench.drive(item, [instance])
      await bench.server(item)
    },
  },
  {
    id: 'stream/says-again-what-was-not-acked',
    rule: 'A report that was not acked when the stream broke is said again on the next.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(
        bench,
        item,
        ({ completed }) => completed !== undefined,
        () => {
          instance.wire.cut()
          return 'ignore'
        },
      )
      await instance.claim(item)
      await reached()
      await bench.drive(item)
      const again = item.reports.some(({ completed, fence }) => completed !== undefined && fence === 1n)
      expect(again, 'the completion was not said again under the claim that it was said under')
      await bench.server(item)
    },
  },
  {
    id: 'stream/minds-neither-duplicates-nor-lost-acks',
    rule: 'A report that was stored, with its ack lost, is said again and does no harm.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(
        bench,
        item,
        ({ completed }) => completed !== undefined,
        () => {
          instance.wire.cut()
          return 'lose-ack'
        },
      )
      await instance.claim(item)
      await reached()
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'stream/bears-a-slow-hub',
    rule: 'A hub that takes its time with every answer slows work down and breaks nothing; heartbeats go on.',
    options: { leaseMs: 8_000 },
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      const item = await bench.order()
      bench.judge = async (): Promise<Verdict> => {
        await pause(1_500)
        return 'ack'
      }
      await bench.drive(item, [instance])
      await bench.server(item)
      expect(session.open, 'the session was given up')
      const beats = session.heard.filter(({ body }) => body.case === 'heartbeat').map(({ atMs }) => atMs)
      const longest = Math.max(...beats.slice(1).map((atMs, index) => atMs - (beats[index] ?? 0)))
      expect(longest < 4_000, `${Math.round(longest)} ms passed without a heartbeat`)
    },
  },
  {
    id: 'stream/bears-a-hub-that-does-not-read',
    rule: 'A hub that reads nothing for a while is waited for, and nothing is lost.',
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      session.pause()
      await pause(3_000)
      session.resume()
      const item = await bench.order()
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'stream/bears-a-line-that-stands-still',
    rule: 'A line on which nothing moves for a while, and nobody is told, is borne or left for another.',
    async run(bench) {
      const instance = await bench.instance()
      await instance.ready()
      instance.wire.stall()
      await pause(4_000)
      instance.wire.unstall()
      const item = await bench.order()
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'stream/takes-many-messages-in-one-frame',
    rule: 'Messages of one frame are handled in order, each as if it had come alone.',
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      const items = [await bench.order(), await bench.order(), await bench.order()]
      for (const item of items) {
        item.holder = session.hello.instanceId
        const claimed = item.nextClaim()
        bench.gateway.rules.claimed(item.id, claimed.fence)
      }
      session.send(...items.map((item) => ({ case: 'claimed' as const, value: item.sameClaim() })))
      for (const item of items) await bench.drive(item)
      for (const item of items) await bench.server(item)
    },
  },
  {
    id: 'stream/ignores-messages-that-are-new',
    rule: 'A message with a body that it does not know is ignored: newer hubs may say more.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      session.sendMessages([newMessage()])
      session.sendMessages([])
      await session.beats(2)
      const item = await bench.order()
      await bench.drive(item)
      expect(session.open, 'the session was closed for it')
      await bench.server(item)
    },
  },
  {
    id: 'stream/ignores-fields-that-are-new',
    rule: 'Fields that it does not know, in frames and in messages that it does, are ignored.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      const item = await bench.order()
      item.holder = session.hello.instanceId
      const value = item.nextClaim()
      bench.gateway.rules.claimed(item.id, value.fence)
      const message = create(HubMessageSchema, { body: { case: 'claimed', value } })
      if (message.body.case === 'claimed') {
        message.body.value.$unknown = [newField]
        const { desired } = message.body.value
        if (desired !== undefined) message.body.value.desired = { ...desired, $unknown: [newField] }
      }
      session.sendMessages([message], [newField])
      await bench.drive(item)
      expectEqual(item.fence, 1n, 'the fence under which it was settled')
      await bench.server(item)
    },
  },
  {
    id: 'stream/welcomes-a-newer-minor',
    rule: 'A Welcome with fields that it does not know is a Welcome.',
    async run(bench) {
      bench.gateway.welcome = () => ({ $unknown: [newField] }) as never
      const instance = await bench.instance()
      const item = await bench.order()
      await bench.drive(item, [instance])
      await bench.server(item)
    },
  },
  {
    id: 'stream/moves-when-drained',
    rule: 'Drain makes an idle instance open another session, and close the one that is drained before its deadline.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      first.send({ case: 'drain', value: { reason: 'the kit drains', deadline: durationFromMs(8_000) } })
      await instance.ready(first)
      await bench.until('the first session to be closed', () => !first.open, 9_000)
      expect(first.ended !== 'hub', 'it waited until the hub closed the stream')
    },
  },
  {
    id: 'stream/is-never-without-a-session-when-drained',
    rule: 'The next session is open before the drained one is closed.',
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      let closedWith: number | undefined
      first.send({ case: 'drain', value: { reason: 'the kit drains', deadline: durationFromMs(8_000) } })
      await bench.until('the first session to be closed', () => {
        if (first.open) return false
        closedWith ??= instance.sessions.length
        return true
      })
      expectEqual(closedWith, 2, 'sessions when the first was closed')
    },
  },
]
