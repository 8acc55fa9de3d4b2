import { Operation, PowerState, Presence } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import { expectEqual } from '../until.js'
import { doubtMs, expectGone, pause, reportNumber, strikeAt, untilItExists } from './moments.js'

/** The wish that an item's machine is no more. */
export const gone = { operation: Operation.DEPROVISION, presence: Presence.ABSENT, power: PowerState.UNSPECIFIED }

/** Holds where an item is seen to its end, and nothing of it comes up afterwards. */
async function expectEnd(bench: Bench, item: Item): Promise<void> {
  expectEqual(item.completions(Operation.DEPROVISION) > 0, true, 'whether DEPROVISION was called complete')
  expectEqual(item.observed.presence, Presence.ABSENT, 'the presence reported')
  await expectGone(bench, item)
}

/** Deletion always arrives: missing is success, and what was begun is undone. */
export const deleteCases: readonly Case[] = [
  {
    id: 'delete/removes-the-machine',
    rule: 'A request to deprovision ends with nothing left under its key when DEPROVISION is called complete, and ABSENT reported.',
    basic: true,
    async run(bench) {
      const { item } = await bench.provisioned()
      await bench.deprovision(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/of-missing-is-success',
    rule: 'Deprovisioning a machine that is gone already succeeds.',
    basic: true,
    needs: { verbs: ['vanish'] },
    async run(bench) {
      const { item } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      await bench.vanish(externalId)
      item.wish(gone)
      await bench.drive(item)
      expectEqual(item.completions(Operation.DEPROVISION), 1, 'reports that DEPROVISION is complete')
      await expectGone(bench, item)
    },
  },
  {
    id: 'delete/of-what-was-never-made',
    rule: 'A request that is released before anybody began with it is deprovisioned without a trace.',
    basic: true,
    async run(bench) {
      await bench.instance()
      const item = await bench.order()
      await bench.deprovision(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/twice',
    rule: 'A request that is deprovisioned already is settled again when it is claimed again, whoever remembers it.',
    basic: true,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.deprovision(item)
      await instance.claim(item)
      await bench.drive(item)
      item.forget({ attempts: 1 })
      await instance.claim(item)
      await bench.drive(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/finds-it-by-its-key',
    rule: 'A machine whose reports were lost, of a request that was tried before, is found by its key and removed.',
    async run(bench) {
      const { item } = await bench.provisioned()
      item.forget({ attempts: 1 })
      item.wish(gone)
      await bench.drive(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/by-another-instance',
    rule: 'Another process than that which made a machine removes it.',
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await instance.stop()
      const other = await bench.instance()
      item.wish(gone)
      await bench.drive(item, [other])
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/only-its-own',
    rule: 'Removing one machine leaves all others alone.',
    basic: true,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const other = await bench.order()
      await bench.drive(other, [instance])
      const kept = await bench.server(other)
      await bench.deprovision(item)
      await expectEnd(bench, item)
      expectEqual((await bench.server(other)).externalId, kept.externalId, 'the other machine')
    },
  },
  {
    id: 'delete/while-it-is-made',
    rule: 'A request that is released while its machine is made ends with nothing left.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const session = await instance.claim(item)
      await untilItExists(bench, item)
      item.wish(gone)
      if (item.held) bench.gateway.tellWish(item, session)
      await bench.drive(item)
      await expectEnd(bench, item)
      await pause(2_000)
      await expectGone(bench, item)
    },
  },
  {
    id: 'delete/while-it-is-made-slowly',
    rule: 'The holder of a machine that takes long to be made is not kept from removing it, and removes it.',
    needs: { faults: ['slow-create'] },
    async run(bench) {
      await bench.inject('slow-create')
      const instance = await bench.instance()
      const item = await bench.order()
      const session = await instance.claim(item)
      await untilItExists(bench, item)
      bench.gateway.tellWish(item.wish(gone), session)
      await bench.drive(item)
      await expectEnd(bench, item)
      await pause(6_000)
      await expectGone(bench, item)
    },
  },
  ...[1, 2, 3].map((nth): Case => {
    return {
      id: `delete/at-report-${nth}-of-a-create`,
      rule: `A request that is released when report ${nth} of its creation comes ends with nothing left.`,
      async run(bench) {
        const instance = await bench.instance()
        const item = await bench.order()
        const session = await instance.ready()
        const reached = strikeAt(bench, item, reportNumber(nth), () => {
          bench.gateway.tellWish(item.wish(gone), session)
          return 'ack'
        })
        await instance.claim(item)
        await reached()
        await bench.drive(item)
        await expectEnd(bench, item)
        await pause(Math.min(5_000, doubtMs(bench)))
        await expectGone(bench, item)
      },
    }
  }),
  {
    id: 'delete/while-it-is-made-by-one-that-died',
    rule: 'What a process was making when it was killed is removed by the next, however far it had come.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      await untilItExists(bench, item)
      await instance.crash()
      item.wish(gone)
      await bench.drive(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/what-a-lost-answer-made',
    rule: 'A create whose answer was lost is waited out and its machine removed, when the request is released.',
    needs: { faults: ['lost-answer'] },
    async run(bench) {
      await bench.inject('lost-answer')
      const instance = await bench.instance()
      const item = await bench.order()
      const session = await instance.claim(item)
      await untilItExists(bench, item)
      item.wish(gone)
      if (item.held) bench.gateway.tellWish(item, session)
      await bench.drive(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/what-failed-while-it-was-made',
    rule: 'A machine whose creation failed is removed.',
    needs: { faults: ['create-fails'] },
    async run(bench) {
      await bench.inject('create-fails')
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      await bench.failed(item)
      await bench.released(item)
      item.wish(gone)
      await bench.drive(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/is-complete-only-when-it-is-seen-gone',
    rule: 'A machine that takes long to go is called ABSENT only when it is gone.',
    needs: { faults: ['slow-delete'] },
    async run(bench) {
      await bench.inject('slow-delete')
      const { item } = await bench.provisioned()
      await bench.deprovision(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/asks-again',
    rule: 'A deletion that is stuck is shown as a failure or waited for, and asked for again until the machine is gone.',
    needs: { faults: ['delete-sticks'] },
    async run(bench) {
      await bench.inject('delete-sticks')
      const { item } = await bench.provisioned()
      await bench.deprovision(item)
      await expectEnd(bench, item)
    },
  },
  {
    id: 'delete/many-at-once',
    rule: 'Many machines are removed at once, each to its end.',
    async run(bench) {
      const instance = await bench.instance()
      const items: Item[] = []
      for (let count = Math.min(5, bench.description.orders ?? 5); count > 0; count -= 1)
        items.push(await bench.order())
      for (const item of items) await instance.claim(item)
      for (const item of items) await bench.drive(item)
      for (const item of items) await instance.claim(item.wish(gone))
      for (const item of items) await bench.drive(item)
      for (const item of items) await expectEnd(bench, item)
    },
  },
]
