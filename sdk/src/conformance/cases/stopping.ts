import type { Case } from '../case.js'
import { expect, expectEqual } from '../until.js'
import { pause, reportNumber, strikeAt, untilItExists } from './moments.js'

/** How processes are stopped: in good order, and with nothing lost. */
export const stoppingCases: readonly Case[] = [
  {
    id: 'stopping/ends-when-asked',
    rule: 'SIGTERM ends an idle process soon, with exit code 0.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      expectEqual(await instance.stop(), 0, 'how it ended')
    },
  },
  {
    id: 'stopping/closes-its-session',
    rule: 'A process that stops closes its stream in good order, so that the hub need not wait for a lease.',
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      await instance.stop()
      await bench.until('the end of the session', () => !session.open)
      expect(session.ended === 'provider', 'the connection was just cut')
    },
  },
  {
    id: 'stopping/hands-back-what-it-holds',
    rule: 'A process that stops in the middle of its work finishes or hands it back, and another goes on.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      await untilItExists(bench, item)
      await instance.stop()
      await bench.until('the item to be released', () => !item.held, 2_000)
      const other = await bench.instance()
      await bench.drive(item, [other])
      await bench.server(item)
    },
  },
  {
    id: 'stopping/hands-back-what-was-just-begun',
    rule: 'A process that is stopped at its first report hands the item back.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        instance.process.mayEnd = true
        instance.process.signal('SIGTERM')
        return 'ack'
      })
      await instance.claim(item)
      await reached()
      await bench.until('the process to end', () => !instance.process.running)
      expect(!item.held, 'it ended without a release')
      const other = await bench.instance()
      await bench.drive(item, [other])
      await bench.server(item)
    },
  },
  {
    id: 'stopping/takes-nothing-new',
    rule: 'A process that stops takes no new work: what is handed to it still is released, and nothing is made of it by it.',
    async run(bench) {
      const instance = await bench.instance()
      const first = await bench.order()
      const second = await bench.order()
      const session = await instance.claim(first)
      await untilItExists(bench, first)
      instance.process.mayEnd = true
      instance.process.signal('SIGTERM')
      await pause(50)
      bench.gateway.claim(second, session)
      await bench.until('the process to end', () => !instance.process.running)
      if (second.held) second.free()
      const other = await bench.instance()
      await bench.drive(first, [other])
      await bench.drive(second, [other])
      await bench.server(first)
      await bench.server(second)
    },
  },
  {
    id: 'stopping/ends-without-a-hub',
    rule: 'SIGTERM ends a process also while no hub can be reached.',
    async run(bench) {
      const instance = await bench.instance()
      await instance.ready()
      instance.wire.close()
      await pause(500)
      expectEqual(await instance.stop(), 0, 'how it ended')
    },
  },
]
