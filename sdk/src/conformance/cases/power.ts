import { Operation, PowerState } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import { CaseSkipped, expectEqual } from '../until.js'
import { strikeAt } from './moments.js'

const needs = { capabilities: ['POWER'] } as const

async function expectPower(bench: Bench, item: Item, power: 'on' | 'off'): Promise<void> {
  const server = await bench.server(item)
  if (server.power !== undefined) expectEqual(server.power, power, 'the power')
  expectEqual(PowerState[item.observed.power], power.toUpperCase(), 'the power reported')
}

/** How often a machine was rebooted. @throws CaseSkipped where the adapter cannot tell. */
async function reboots(bench: Bench, item: Item): Promise<number> {
  const { reboots: count } = await bench.server(item)
  if (count === undefined) throw new CaseSkipped('the adapter does not count reboots')
  return count
}

/** Power and reboots: a wish is met, each reboot happens once. */
export const powerCases: readonly Case[] = [
  {
    id: 'power/goes-off-and-on',
    rule: 'Power is brought to what is wished, and reported as it is then.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, { power: PowerState.OFF })
      await expectPower(bench, item, 'off')
      await bench.fulfil(item, instance, { power: PowerState.ON })
      await expectPower(bench, item, 'on')
    },
  },
  {
    id: 'power/is-switched-once',
    rule: 'A wish for the power that is there already changes nothing out there.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, { power: PowerState.OFF })
      const before = await bench.writes()
      await bench.fulfil(item, instance, { power: PowerState.OFF })
      await instance.claim(item)
      await bench.released(item)
      expectEqual(await bench.writes(), before, 'calls that change something')
    },
  },
  {
    id: 'power/is-left-where-nothing-is-wished',
    rule: 'With no power wished, a machine that is off stays off.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, { power: PowerState.OFF })
      await bench.fulfil(item, instance, { power: PowerState.UNSPECIFIED })
      await expectPower(bench, item, 'off')
    },
  },
  {
    id: 'power/reboots-once-for-each-wish',
    rule: 'A reboot that is wished for happens once, is counted, and is not repeated for a claim that comes again.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const before = await reboots(bench, item)
      await bench.fulfil(item, instance, { power: PowerState.ON, reboots: 1n })
      expectEqual(item.observed.rebootsDone, 1n, 'reboots_done')
      await instance.claim(item)
      await bench.released(item)
      expectEqual((await reboots(bench, item)) - before, 1, 'reboots')
    },
  },
  {
    id: 'power/reboots-as-often-as-wished',
    rule: 'Several wishes at once are several reboots.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const before = await reboots(bench, item)
      await bench.fulfil(item, instance, { power: PowerState.ON, reboots: 3n })
      expectEqual(item.observed.rebootsDone, 3n, 'reboots_done')
      expectEqual((await reboots(bench, item)) - before, 3, 'reboots')
    },
  },
  {
    id: 'power/reboots-once-over-a-lost-ack',
    rule: 'A reboot whose count was stored, with the ack lost and the stream cut, is not done again.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const before = await reboots(bench, item)
      const reached = strikeAt(
        bench,
        item,
        ({ observed }) => observed?.rebootsDone === 1n,
        () => {
          instance.wire.cut()
          return 'lose-ack'
        },
      )
      await instance.claim(item.wish({ power: PowerState.ON, reboots: 1n }))
      await reached()
      await bench.drive(item)
      expectEqual((await reboots(bench, item)) - before, 1, 'reboots')
    },
  },
  {
    id: 'power/does-not-reboot-again-at-another-instance',
    rule: 'Another instance does not repeat a reboot that was counted.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const before = await reboots(bench, item)
      await bench.fulfil(item, instance, { power: PowerState.ON, reboots: 1n })
      await instance.stop()
      const other = await bench.instance()
      item.wish({})
      await bench.drive(item, [other])
      expectEqual((await reboots(bench, item)) - before, 1, 'reboots')
    },
  },
  {
    id: 'power/is-repaired',
    rule: 'A machine that is off while ON is wished is switched on when it is claimed.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, { power: PowerState.OFF })
      await bench.fulfil(item, instance, { power: PowerState.ON, operation: Operation.UNSPECIFIED })
      await expectPower(bench, item, 'on')
    },
  },
  {
    id: 'power/changes-its-mind',
    rule: 'A wish that changes while power is switched is met as it is last.',
    needs,
    async run(bench) {
      const { instance, item, session } = await bench.provisioned()
      await instance.claim(item.wish({ power: PowerState.OFF }))
      bench.gateway.tellWish(item.wish({ power: PowerState.ON }), session)
      await bench.drive(item)
      await expectPower(bench, item, 'on')
    },
  },
]
