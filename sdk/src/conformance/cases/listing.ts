import { randomUUID } from 'node:crypto'
import type { Case } from '../case.js'
import { expect, expectEqual } from '../until.js'
import { listIntervalMs, listingsOf, untilListed } from './listings.js'
import { pause } from './moments.js'

const many = 250

/** What exists, told in full or not called complete. */
export const listingCases: readonly Case[] = [
  {
    id: 'listing/shows-what-was-made',
    rule: 'A complete listing shows a machine that was made, with its ownership key.',
    basic: true,
    needs: { capabilities: ['LIST'] },
    async run(bench) {
      const { item, session } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      const { ids } = await untilListed(
        bench,
        session,
        ({ ids }) => ids.has(externalId),
        `a listing with ${externalId}`,
      )
      if (!bench.isStatic) expectEqual(ids.get(externalId), item.key, 'the ownership key in the listing')
    },
  },
  {
    id: 'listing/is-whole-where-there-is-nothing',
    rule: 'A listing of nothing is final and complete, and empty.',
    basic: true,
    needs: { capabilities: ['LIST'], kind: 'dynamic' },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const { ids, final } = await untilListed(bench, session)
      expect(final, 'it is complete and not final')
      expectEqual(ids.size, 0, 'what it shows')
    },
  },
  {
    id: 'listing/comes-again-and-again',
    rule: 'Listings are repeated, each with an id of its own.',
    needs: { capabilities: ['LIST'], described: ['listIntervalMs'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      await bench.until(
        'three complete listings',
        () => listingsOf(session).filter(({ complete }) => complete).length >= 3,
      )
    },
  },
  {
    id: 'listing/shows-what-nobody-ordered',
    rule: 'A machine with a key of this hub that no request of this session knows is listed: the hub finds orphans so.',
    needs: { capabilities: ['LIST'], verbs: ['plant'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const key = `${bench.world.hubId}/${randomUUID()}`
      const [id = ''] = await bench.plant({ name: 'kit-planted', ownershipKey: key })
      const { ids } = await untilListed(bench, session, ({ ids }) => ids.has(id), `a listing with the planted ${id}`)
      expectEqual(ids.get(id), key, 'the key in the listing')
    },
  },
  {
    id: 'listing/shows-the-key-of-another-hub-as-it-is',
    rule: 'A machine that carries the key of another hub is listed with that very key.',
    needs: { capabilities: ['LIST'], verbs: ['plant'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const key = `${randomUUID()}/${randomUUID()}`
      const [id = ''] = await bench.plant({ name: 'kit-foreign', ownershipKey: key })
      const { ids } = await untilListed(bench, session, ({ ids }) => ids.has(id), `a listing with the foreign ${id}`)
      expectEqual(ids.get(id), key, 'the key in the listing')
    },
  },
  {
    id: 'listing/is-whole-over-many-pages',
    rule: `A listing of ${many} machines shows each of them once, in parts that the contract allows.`,
    needs: { capabilities: ['LIST'], verbs: ['plant'], described: ['isolated'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const key = `${bench.world.hubId}/${randomUUID()}`
      const planting = { name: 'kit-page', ownershipKey: key, count: many }
      const planted = await bench.plant(planting)
      // That which is complete first may have begun before all were there.
      await untilListed(bench, session)
      const { ids, listingId } = await untilListed(bench, session)
      const missing = planted.filter((id) => !ids.has(id))
      expectEqual(missing.length, 0, 'planted machines that a complete listing lacks')
      const parts = session.all('inventory').filter((part) => part.listingId === listingId)
      const shown = parts.flatMap(({ resources }) => resources.map(({ externalId }) => externalId))
      expectEqual(new Set(shown).size, shown.length, 'different machines in one listing')
    },
  },
  {
    id: 'listing/is-not-whole-when-a-page-failed',
    rule: 'A listing of which a page could not be read is never called complete.',
    needs: { capabilities: ['LIST'], verbs: ['plant'], faults: ['list-breaks', 'none'], described: ['isolated'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const key = `${bench.world.hubId}/${randomUUID()}`
      const planting = { name: 'kit-page', ownershipKey: key, count: many }
      const planted = await bench.plant(planting)
      await untilListed(bench, session, ({ ids }) => ids.size >= planted.length, 'all to be listed once')
      await bench.inject('list-breaks')
      const sinceMs = performance.now()
      await pause(4 * listIntervalMs(bench))
      await bench.inject('none')
      const whole = listingsOf(session).filter(({ atMs, complete }) => atMs >= sinceMs && complete)
      for (const { ids } of whole)
        expectEqual(ids.size, planted.length, 'machines in a listing that is called complete')
      await untilListed(bench, session, ({ ids }) => ids.size >= planted.length, 'a whole listing after that')
    },
  },
  {
    id: 'listing/goes-on-after-a-new-session',
    rule: 'After a cut stream listings go on, and none is called complete of which a part went down with the stream.',
    needs: { capabilities: ['LIST'] },
    async run(bench) {
      const { instance, item, session } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      instance.wire.cut()
      const next = await instance.ready(session)
      const { ids } = await untilListed(bench, next)
      expect(ids.has(externalId), `the first complete listing lacks ${externalId}`)
    },
  },
  {
    id: 'listing/is-the-same-at-all-instances',
    rule: 'Two instances list the same.',
    needs: { capabilities: ['LIST'] },
    async run(bench) {
      const { session } = await bench.provisioned()
      const other = await (await bench.instance()).ready()
      const [mine, theirs] = [await untilListed(bench, session), await untilListed(bench, other)]
      expectEqual([...theirs.ids.keys()].sort().join(), [...mine.ids.keys()].sort().join(), 'what the second lists')
    },
  },
  {
    id: 'listing/keeps-the-ids-of-a-rack',
    rule: 'A static provider lists all machines of its rack, under ids that outlive its process.',
    needs: { kind: 'static' },
    async run(bench) {
      const instance = await bench.instance()
      const first = await untilListed(bench, await instance.ready())
      expect(first.ids.size > 0, 'there is no machine')
      const exist = (await bench.truth()).things.map(({ externalId }) => externalId).sort()
      expectEqual([...first.ids.keys()].sort().join(), exist.join(), 'the machines listed')
      const second = await untilListed(bench, await instance.crash())
      expectEqual([...second.ids.keys()].sort().join(), exist.join(), 'the machines listed by the next process')
    },
  },
  {
    id: 'listing/changes-nothing',
    rule: 'Looking around changes nothing out there.',
    needs: { capabilities: ['LIST'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const before = await bench.writes()
      await untilListed(bench, session)
      await untilListed(bench, session)
      expectEqual(await bench.writes(), before, 'calls that change something')
    },
  },
]
