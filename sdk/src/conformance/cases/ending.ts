import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import { expect, expectEqual } from '../until.js'
import { gone } from './delete.js'
import { doubtMs, pause } from './moments.js'

/** The orphan query: after a busy life nothing is left. */
export const endingCases: readonly Case[] = [
  {
    id: 'ending/leaves-nothing-behind',
    rule: 'After orders, crashes, cuts and releases, all of them released: nothing with a key of this hub exists, then and later.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const items: Item[] = []
      for (let count = Math.min(4, bench.description.orders ?? 4); count > 0; count -= 1)
        items.push(await bench.order())
      for (const item of items) await instance.claim(item)
      await pause(100)
      instance.wire.cut()
      await pause(150)
      await instance.crash()
      const [dropped, ...kept] = items
      dropped?.wish(gone)
      for (const item of items) await bench.drive(item)
      for (const item of kept) await bench.server(item)
      for (const item of kept) item.wish(gone)
      for (const item of items) await bench.drive(item)
      await pause(Math.min(10_000, doubtMs(bench)) + bench.listingLagMs)
      const left = (await bench.truth()).things.filter(({ ownershipKey }) =>
        ownershipKey.startsWith(`${bench.world.hubId}/`),
      )
      expectEqual(left.map(({ kind, externalId }) => `${kind} ${externalId}`).join(', '), '', 'what is left')
    },
  },
  {
    id: 'ending/leaves-nothing-behind-with-two',
    rule: 'The same with two instances that take over from each other.',
    async run(bench) {
      const [one, two] = [await bench.instance(), await bench.instance()]
      const items: Item[] = []
      for (let count = Math.min(4, bench.description.orders ?? 4); count > 0; count -= 1)
        items.push(await bench.order())
      for (const [index, item] of items.entries()) await (index % 2 === 0 ? one : two).claim(item)
      await pause(200)
      await one.process.kill()
      bench.expireLeases(one)
      for (const item of items) await bench.drive(item, [two])
      for (const item of items) item.wish(gone)
      for (const item of items) await bench.drive(item, [two])
      await pause(Math.min(5_000, doubtMs(bench)) + bench.listingLagMs)
      const { things } = await bench.truth()
      const left = things.filter(({ ownershipKey }) => ownershipKey.startsWith(`${bench.world.hubId}/`))
      expect(left.length === 0, `there is left ${left.map(({ externalId }) => externalId).join(', ')}`)
    },
  },
]
