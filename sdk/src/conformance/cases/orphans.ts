import { randomUUID } from 'node:crypto'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { OrphanOutcome, type OrphanRemoval } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Verdict } from '../gateway/gateway.js'
import type { HubSession } from '../gateway/session.js'
import { expect, expectEqual } from '../until.js'
import { pause, reportNumber, strikeAt } from './moments.js'

interface Order {
  readonly externalId: string
  readonly ownershipKey: string
  readonly kind?: string
  readonly orderId?: string
}

const needs = { capabilities: ['REMOVE_ORPHAN'], verbs: ['plant'] } as const

/** Plants an orphan of this hub. */
async function plantOrphan(bench: Bench, name = 'kit-orphan') {
  const ownershipKey = `${bench.world.hubId}/${randomUUID()}`
  const [externalId = ''] = await bench.plant({ name, ownershipKey })
  return { externalId, ownershipKey }
}

function order(
  session: HubSession,
  { externalId, ownershipKey, kind = 'server', orderId = randomUUID() }: Order,
): string {
  session.send({
    case: 'removeOrphan',
    value: {
      resource: { kind, externalId, ownershipKey, name: 'kit-orphan' },
      orderId,
      deadline: durationFromMs(60_000),
    },
  })
  return orderId
}

/** Orders a removal, and waits for its answer. */
async function remove(session: HubSession, what: Order): Promise<OrphanRemoval> {
  const orderId = order(session, what)
  return session.expect('orphanRemoval', (answer) => answer.orderId === orderId, 'an answer to the removal')
}

async function exists(bench: Bench, id: string): Promise<boolean> {
  return (await bench.truth()).things.some(({ externalId }) => externalId === id)
}

/** Removal of what no record knows: on order alone, and only of the very thing that is meant. */
export const orphanCases: readonly Case[] = [
  {
    id: 'orphans/are-removed-on-order',
    rule: 'RemoveOrphan with the key that is on it removes it, and is answered REMOVED when it is seen to be gone.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const orphan = await plantOrphan(bench)
      const { outcome } = await remove(session, orphan)
      expectEqual(OrphanOutcome[outcome], 'REMOVED', 'the outcome')
      expect(!(await exists(bench, orphan.externalId)), 'it still exists')
    },
  },
  {
    id: 'orphans/of-missing-is-success',
    rule: 'RemoveOrphan of what is gone is answered ALREADY_GONE.',
    needs: { capabilities: ['REMOVE_ORPHAN'] },
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const ownershipKey = `${bench.world.hubId}/${randomUUID()}`
      const { outcome } = await remove(session, { externalId: 'nothing-of-that-id', ownershipKey })
      expectEqual(OrphanOutcome[outcome], 'ALREADY_GONE', 'the outcome')
    },
  },
  {
    id: 'orphans/are-removed-once',
    rule: 'An order that comes twice removes once, and its second answer is ALREADY_GONE.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const orphan = await plantOrphan(bench)
      await remove(session, orphan)
      const { outcome } = await remove(session, orphan)
      expectEqual(OrphanOutcome[outcome], 'ALREADY_GONE', 'the outcome of the second order')
    },
  },
  {
    id: 'orphans/with-another-key-now-are-kept',
    rule: 'What carries another key of this hub than the order says is kept: KEY_MISMATCH.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const { externalId } = await plantOrphan(bench)
      const ownershipKey = `${bench.world.hubId}/${randomUUID()}`
      const { outcome } = await remove(session, { externalId, ownershipKey })
      expectEqual(OrphanOutcome[outcome], 'KEY_MISMATCH', 'the outcome')
      expect(await exists(bench, externalId), 'it was removed')
    },
  },
  {
    id: 'orphans/of-another-hub-are-kept',
    rule: 'What carries the key of another hub is kept, also where the order says that very key.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const ownershipKey = `${randomUUID()}/${randomUUID()}`
      const planting = { name: 'kit-foreign', ownershipKey }
      const [externalId = ''] = await bench.plant(planting)
      const { outcome } = await remove(session, { externalId, ownershipKey })
      expectEqual(OrphanOutcome[outcome], 'KEY_MISMATCH', 'the outcome')
      expect(await exists(bench, externalId), 'it was removed')
    },
  },
  {
    id: 'orphans/without-a-key-are-kept',
    rule: 'What carries no key is kept, whatever the order says.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const [externalId = ''] = await bench.plant({ name: 'kit-bare', ownershipKey: '' })
      const { outcome } = await remove(session, { externalId, ownershipKey: `${bench.world.hubId}/${randomUUID()}` })
      expect(outcome !== OrphanOutcome.REMOVED, 'it is called removed')
      expect(await exists(bench, externalId), 'it was removed')
    },
  },
  {
    id: 'orphans/that-are-worked-on-are-kept',
    rule: 'What belongs to a request that this instance holds is kept: HELD.',
    needs: { capabilities: ['REMOVE_ORPHAN'], kind: 'dynamic' },
    async run(bench) {
      const { instance, item, session } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      let outcome: OrphanOutcome = OrphanOutcome.UNSPECIFIED
      const reached = strikeAt(bench, item, reportNumber(1), async (): Promise<Verdict> => {
        outcome = (await remove(session, { externalId, ownershipKey: item.key })).outcome
        return 'ack'
      })
      await instance.claim(item.wish({}))
      await reached()
      expectEqual(OrphanOutcome[outcome], 'HELD', 'the outcome')
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'orphans/leave-their-neighbours-alone',
    rule: 'The removal of an orphan touches nothing else.',
    needs: { ...needs, kind: 'dynamic' },
    async run(bench) {
      const { item, session } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      const [orphan, other] = [await plantOrphan(bench, 'kit-one'), await plantOrphan(bench, 'kit-two')]
      await remove(session, orphan)
      expect(await exists(bench, other.externalId), 'another orphan was removed with it')
      expectEqual((await bench.server(item)).externalId, externalId, 'the machine of a request')
    },
  },
  {
    id: 'orphans/are-removed-by-one-of-two',
    rule: 'An order that reaches two instances removes once, and both answers are true.',
    needs,
    async run(bench) {
      const sessions = [await (await bench.instance()).ready(), await (await bench.instance()).ready()]
      const orphan = await plantOrphan(bench)
      const answers = await Promise.all(sessions.map((session) => remove(session, orphan)))
      for (const { outcome } of answers)
        expect(
          outcome === OrphanOutcome.REMOVED || outcome === OrphanOutcome.ALREADY_GONE,
          OrphanOutcome[outcome] ?? '',
        )
      expect(!(await exists(bench, orphan.externalId)), 'it still exists')
    },
  },
  {
    id: 'orphans/of-an-older-hub-are-not-answered',
    rule: 'An order without an id is carried out, and wants no answer.',
    needs,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      const orphan = await plantOrphan(bench)
      order(session, { ...orphan, orderId: '' })
      await bench.until('the orphan to be removed', async () => !(await exists(bench, orphan.externalId)))
      await pause(500)
      expectEqual(session.all('orphanRemoval').length, 0, 'answers')
    },
  },
]
