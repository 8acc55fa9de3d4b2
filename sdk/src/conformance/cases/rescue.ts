import { PowerState } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import { CaseSkipped, expectEqual } from '../until.js'
import { wishReinstall } from './reinstall.js'

const needs = { capabilities: ['RESCUE'] } as const

function wishRescue(bench: Bench, revision: bigint) {
  return { rescue: { revision, sshKeys: [...(bench.description.rescueKeys ?? ['kit'])], sshPublicKeys: [] } }
}

/** A wish that is no longer there is not a field with a value: the whole is said anew, without it. */
function wishOwn(item: Item): Item {
  const { rescue: _left, ...rest } = item.desired
  item.desired = rest
  return item.wish({})
}

async function expectRescue(bench: Bench, item: Item, revision: bigint): Promise<void> {
  const { rescue } = await bench.server(item)
  if (rescue === undefined) throw new CaseSkipped('the adapter does not tell which system was started')
  expectEqual(rescue, revision > 0n, 'whether the rescue system was started last')
  expectEqual(item.observed.rescue ?? 0n, revision, 'the revision of the rescue system that is reported')
}

/** The rescue system: a level that holds until it is taken away. */
export const rescueCases: readonly Case[] = [
  {
    id: 'rescue/is-started',
    rule: 'A machine that is to run its rescue system is started into it, and the revision of the wish is reported.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, wishRescue(bench, 1n))
      await expectRescue(bench, item, 1n)
    },
  },
  {
    id: 'rescue/is-started-once',
    rule: 'What runs its rescue system already is not started into it again, for a claim that comes again or at another instance.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, wishRescue(bench, 1n))
      const before = await bench.writes()
      await instance.claim(item)
      await bench.released(item)
      await instance.stop()
      item.wish({})
      await bench.drive(item, [await bench.instance()])
      expectEqual(await bench.writes(), before, 'calls that change something')
      await expectRescue(bench, item, 1n)
    },
  },
  {
    id: 'rescue/is-left',
    rule: 'A machine whose rescue system is wished for no more is started into its own.',
    needs,
    async run(bench) {
      const { item } = await bench.provisioned()
      item.wish(wishRescue(bench, 1n))
      await bench.drive(item)
      await bench.drive(wishOwn(item))
      await expectRescue(bench, item, 0n)
    },
  },
  {
    id: 'rescue/is-started-anew-for-a-newer-wish',
    rule: 'A newer wish, which may bring other keys, starts it anew.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, wishRescue(bench, 1n))
      const before = await bench.writes()
      await bench.fulfil(item, instance, wishRescue(bench, 2n))
      await expectRescue(bench, item, 2n)
      expectEqual((await bench.writes()) > before, true, 'that something was changed')
    },
  },
  {
    id: 'rescue/outlasts-a-reboot',
    rule: 'It is a level: after a reboot, and after power was off, the rescue system is started anew.',
    needs: { capabilities: ['RESCUE', 'POWER'] },
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, { ...wishRescue(bench, 1n), power: PowerState.ON })
      await bench.fulfil(item, instance, { reboots: 1n })
      await expectRescue(bench, item, 1n)
      await bench.fulfil(item, instance, { power: PowerState.OFF })
      await expectRescue(bench, item, 0n)
      await bench.fulfil(item, instance, { power: PowerState.ON })
      await expectRescue(bench, item, 1n)
    },
  },
  {
    id: 'rescue/ends-with-a-reinstall',
    rule: 'A machine that is reinstalled while it runs its rescue system runs its new system after.',
    needs: { capabilities: ['RESCUE', 'REINSTALL'] },
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.fulfil(item, instance, wishRescue(bench, 1n))
      wishOwn(item)
      await bench.drive(wishReinstall(bench, item))
      await expectRescue(bench, item, 0n)
    },
  },
]
