import { randomUUID } from 'node:crypto'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import { expect, expectEqual } from '../until.js'
import { gone } from './delete.js'
import { pause } from './moments.js'

/** Plants something that is not the provider's to touch. @returns its id. */
async function plantForeign(bench: Bench, ownershipKey: string, name = 'kit-foreign'): Promise<string> {
  const [id = ''] = await bench.plant({ name, ownershipKey })
  return id
}

async function expectUntouched(bench: Bench, id: string, key: string): Promise<void> {
  const thing = (await bench.truth()).things.find(({ externalId }) => externalId === id)
  expect(thing !== undefined, `${id}, which is not ours, was removed`)
  expectEqual(thing.ownershipKey, key, `the key on ${id}, which is not ours`)
}

/** Orders under a name that is taken by something foreign; what becomes of the order is the provider's business. */
async function tryOver(bench: Bench, key: (item: Item) => string): Promise<void> {
  const instance = await bench.instance()
  const item = await bench.order()
  const theirs = key(item)
  const id = await plantForeign(bench, theirs, item.desired.spec?.name)
  // Tried before: so there may be something to look for.
  item.forget({ attempts: 1 })
  await instance.claim(item)
  await bench.released(item)
  await expectUntouched(bench, id, theirs)
  expect(item.observed.externalId !== id, 'a machine that is not ours was adopted')
  await bench.deprovision(item)
  await expectUntouched(bench, id, theirs)
}

/** What carries no key of ours is not ours. */
export const ownershipCases: readonly Case[] = [
  {
    id: 'ownership/leaves-the-machines-of-another-hub-alone',
    rule: 'A machine with the key of another hub is neither changed nor removed by anything that is done here.',
    needs: { verbs: ['plant'], kind: 'dynamic' },
    async run(bench) {
      const instance = await bench.instance()
      const key = `${randomUUID()}/${randomUUID()}`
      const id = await plantForeign(bench, key)
      const item = await bench.order()
      await bench.drive(item, [instance])
      await bench.deprovision(item)
      await expectUntouched(bench, id, key)
    },
  },
  {
    id: 'ownership/leaves-machines-without-a-key-alone',
    rule: 'A machine without any ownership key is neither changed nor removed.',
    needs: { verbs: ['plant'], kind: 'dynamic' },
    async run(bench) {
      const { item } = await bench.provisioned()
      const id = await plantForeign(bench, '')
      await bench.deprovision(item)
      await expectUntouched(bench, id, '')
    },
  },
  {
    id: 'ownership/does-not-adopt-by-name-what-is-of-another-hub',
    rule: 'A machine of the ordered name that carries the key of another hub is not adopted, and not removed when the request goes.',
    needs: { verbs: ['plant'], kind: 'dynamic' },
    run: (bench) => tryOver(bench, (item) => `${randomUUID()}/${item.id}`),
  },
  {
    id: 'ownership/does-not-adopt-by-name-what-has-no-key',
    rule: 'A machine of the ordered name without a key is not adopted, and not removed when the request goes.',
    needs: { verbs: ['plant'], kind: 'dynamic' },
    run: (bench) => tryOver(bench, () => ''),
  },
  {
    id: 'ownership/leaves-other-requests-alone',
    rule: 'A machine of another request of this hub is not touched by the work on this one.',
    needs: { verbs: ['plant'], kind: 'dynamic' },
    run: (bench) => tryOver(bench, () => `${bench.world.hubId}/${randomUUID()}`),
  },
  {
    id: 'ownership/removes-no-orphan-by-itself',
    rule: 'A machine that no record knows is left alone until the hub orders its removal.',
    needs: { verbs: ['plant'], kind: 'dynamic' },
    async run(bench) {
      const instance = await bench.instance()
      const key = `${bench.world.hubId}/${randomUUID()}`
      const id = await plantForeign(bench, key)
      const item = await bench.order()
      await bench.drive(item, [instance])
      await pause(2_500)
      await expectUntouched(bench, id, key)
    },
  },
  {
    id: 'ownership/keeps-two-hubs-apart',
    rule: 'A key whose hub part is another hub is not ours, though its request part is.',
    needs: { verbs: ['plant'], kind: 'dynamic' },
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const key = `${randomUUID()}/${item.id}`
      const id = await plantForeign(bench, key)
      await bench.drive(item, [instance])
      expect((await bench.server(item)).externalId !== id, 'a machine of another hub was adopted')
      item.wish(gone)
      await bench.drive(item)
      await expectUntouched(bench, id, key)
    },
  },
]
