import type { Case } from '../case.js'
import { expect, expectEqual } from '../until.js'
import { listIntervalMs } from './listings.js'

const needs = { capabilities: ['OFFERINGS'] } as const

/** What can be had, where, and at what price. */
export const offeringsCases: readonly Case[] = [
  {
    id: 'offerings/show-what-can-be-ordered',
    rule: 'Offerings are told soon after the start, and the type and location of an order that works are among them, available.',
    needs: { ...needs, described: ['order'] },
    async run(bench) {
      const { typeId = '', location = '' } = bench.description.order
      const session = await (await bench.instance()).ready()
      const { offerings } = await session.expect('offerings')
      const found = offerings.find((offering) => offering.typeId === typeId && offering.location === location)
      expect(found !== undefined, `${typeId} in "${location}" is not offered`)
      expect(found.available, `${typeId} in "${location}" is not available`)
    },
  },
  {
    id: 'offerings/are-told-once-each',
    rule: 'A type in a location is one offering.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const { offerings } = await session.expect('offerings')
      const keys = offerings.map(({ typeId, location }) => `${typeId} in ${location}`)
      expectEqual(new Set(keys).size, keys.length, 'different offerings')
    },
  },
  {
    id: 'offerings/say-what-a-type-has',
    rule: 'Each offering has a shape with processors, memory and disk.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const { offerings } = await session.expect('offerings')
      for (const { typeId, shape } of offerings) {
        const whole = shape !== undefined && shape.vcpus > 0 && shape.memoryMib > 0n && shape.diskGib > 0n
        expect(whole, `the shape of ${typeId} lacks something`)
      }
    },
  },
  {
    id: 'offerings/are-told-again-on-a-new-session',
    rule: 'Offerings go on to be told after a new session.',
    needs,
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      await first.expect('offerings')
      instance.wire.cut()
      const second = await instance.ready(first)
      const told = () => second.all('offerings').length > 0
      await bench.until('offerings on the new session', told, bench.waitMs + 3 * listIntervalMs(bench))
    },
  },
  {
    id: 'offerings/change-nothing',
    rule: 'Offerings are found out without changing anything.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      await session.expect('offerings')
      expectEqual(await bench.writes(), 0, 'calls that change something')
    },
  },
]
