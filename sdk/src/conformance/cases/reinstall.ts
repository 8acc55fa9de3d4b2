import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { MachineSpecSchema, Operation, Presence, type Validated } from '@slipway/proto/provider/v1'
import type { JsonObject } from '../adapter.js'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import type { HubSession } from '../gateway/session.js'
import { CaseSkipped, expect, expectEqual } from '../until.js'
import { dieAt, successor, type Failpoint } from './crash.js'
import { gone } from './delete.js'
import { expectGone, strikeAt } from './moments.js'

const needs = { capabilities: ['REINSTALL'] } as const

/** The wish for one more reinstall, or for several of which the last one counts. */
export function wishReinstall(bench: Bench, item: Item, times = 1): Item {
  const { $typeName: _type, $unknown: _unknown, ...before } = create(MachineSpecSchema, item.desired.spec)
  const providerData = { ...before.providerData, ...bench.extraData } as never
  return item.wish({
    operation: Operation.REINSTALL,
    reinstalls: item.desired.reinstalls + BigInt(times),
    spec: { ...before, providerData },
  })
}

/** How often a new system was put on a machine. @throws CaseSkipped where the adapter cannot tell. */
async function reinstalls(bench: Bench, item: Item): Promise<number> {
  const { reinstalls: count } = await bench.server(item)
  if (count === undefined) throw new CaseSkipped('the adapter does not count reinstalls')
  return count
}

async function expectReinstalls(bench: Bench, item: Item, times: number, done: bigint): Promise<void> {
  expectEqual(await reinstalls(bench, item), times, 'reinstalls')
  expectEqual(item.observed.reinstallsDone, done, 'reinstalls_done')
}

/** What the provider says of an order that would reinstall an item's machine. */
async function verdict(
  bench: Bench,
  session: HubSession,
  item: Item,
  changed: JsonObject = {},
): Promise<Pick<Validated, 'violations' | 'failure'>> {
  const { spec } = item.desired
  const validationId = `reinstall-${session.all('validated').length}`
  session.send({
    case: 'validate',
    value: {
      validationId,
      spec: {
        typeId: spec?.typeId ?? '',
        location: spec?.location ?? '',
        providerData: { ...spec?.providerData, ...changed } as never,
        bootstrap: { hostname: spec?.bootstrap?.hostname ?? '' },
      },
      reinstall: {
        externalId: item.observed.externalId,
        ...(spec?.providerData !== undefined && { providerData: spec.providerData }),
      },
      deadline: durationFromMs(bench.waitMs),
    },
  })
  return bench.until('the answer to Validate', () =>
    session.all('validated').find((answer) => answer.validationId === validationId),
  )
}

const moments: Readonly<Record<string, readonly [Failpoint, string]>> = {
  'before-it': ['sdk.effect.before', 'just before the effect'],
  'after-it': ['sdk.effect.after', 'just after the effect, before anything of it was said'],
  'once-it-is-stored': ['sdk.report.after', 'just after the result of the effect was stored'],
}

const killed = Object.entries(moments).flatMap(([name, [failpoint, when]]) =>
  (['itself', 'another'] as const).map((who): Case => {
    return {
      id: `reinstall/killed-${name}-then-${who}`,
      rule: `Killed ${when}, with ${who === 'itself' ? 'itself started again' : 'another instance'} going on: reinstalled exactly once.`,
      needs: { ...needs, described: ['failpoints'] },
      async run(bench) {
        const { item: made, instance } = await bench.provisioned()
        const before = await reinstalls(bench, made)
        await instance.stop()
        const { dead, item } = await dieAt(bench, failpoint, () => Promise.resolve(wishReinstall(bench, made)))
        await bench.drive(item, [await successor(bench, dead, who)])
        await expectReinstalls(bench, item, before + 1, 1n)
      },
    }
  }),
)

/** A new system on a machine that is kept: once for the newest wish, whatever happens. */
export const reinstallCases: readonly Case[] = [
  {
    id: 'reinstall/keeps-the-machine',
    rule: 'A reinstall keeps the machine with its id, is counted, and leaves it on.',
    needs,
    async run(bench) {
      const { item } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      await bench.drive(wishReinstall(bench, item))
      const after = await bench.server(item)
      expectEqual(after.externalId, externalId, 'the id of the machine')
      expectEqual(item.observed.externalId, externalId, 'the id reported')
      expectEqual(item.observed.reinstallsDone, 1n, 'reinstalls_done')
      expectEqual(item.observed.presence, Presence.PRESENT, 'the presence reported')
      expectEqual(item.completions(Operation.REINSTALL), 1, 'times that REINSTALL was called complete')
      if (after.power !== undefined) expectEqual(after.power, 'on', 'the power')
    },
  },
  {
    id: 'reinstall/happens-once-for-each-wish',
    rule: 'Each wish is one reinstall, and none is repeated for a claim that comes again.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const before = await reinstalls(bench, item)
      await bench.drive(wishReinstall(bench, item))
      await instance.claim(item)
      await bench.released(item)
      await expectReinstalls(bench, item, before + 1, 1n)
      await bench.drive(wishReinstall(bench, item))
      await expectReinstalls(bench, item, before + 2, 2n)
    },
  },
  {
    id: 'reinstall/newest-wish-counts',
    rule: 'Several wishes at once are one reinstall: the newest makes the others moot.',
    needs,
    async run(bench) {
      const { item } = await bench.provisioned()
      const before = await reinstalls(bench, item)
      await bench.drive(wishReinstall(bench, item, 3))
      await expectReinstalls(bench, item, before + 1, 3n)
    },
  },
  {
    id: 'reinstall/gives-way-to-a-newer-wish',
    rule: 'A wish that comes while one is under way is the one that is met last.',
    needs,
    async run(bench) {
      const { instance, item, session } = await bench.provisioned()
      const before = await reinstalls(bench, item)
      await instance.claim(wishReinstall(bench, item))
      bench.gateway.tellWish(wishReinstall(bench, item), session)
      await bench.drive(item)
      expectEqual(item.observed.reinstallsDone, 2n, 'reinstalls_done')
      const times = (await reinstalls(bench, item)) - before
      expect(times === 1 || times === 2, `it was reinstalled ${times} times for two wishes`)
    },
  },
  {
    id: 'reinstall/is-not-repeated-for-another-wish',
    rule: 'A wish about something else, once a reinstall is complete, reinstalls nothing.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.drive(wishReinstall(bench, item))
      const before = await reinstalls(bench, item)
      await bench.fulfil(item, instance, {})
      await expectReinstalls(bench, item, before, 1n)
    },
  },
  {
    id: 'reinstall/happens-once-over-a-lost-ack',
    rule: 'A reinstall whose end was stored, with the ack lost and the stream cut, is not done again.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const before = await reinstalls(bench, item)
      const reached = strikeAt(
        bench,
        item,
        ({ completed }) => completed?.operation === Operation.REINSTALL,
        () => {
          instance.wire.cut()
          return 'lose-ack'
        },
      )
      await instance.claim(wishReinstall(bench, item))
      await reached()
      await bench.drive(item)
      await expectReinstalls(bench, item, before + 1, 1n)
    },
  },
  {
    id: 'reinstall/is-not-repeated-at-another-instance',
    rule: 'Another instance does not repeat a reinstall that is complete.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.drive(wishReinstall(bench, item))
      const before = await reinstalls(bench, item)
      await instance.stop()
      const other = await bench.instance()
      item.wish({})
      await bench.drive(item, [other])
      await expectReinstalls(bench, item, before, 1n)
    },
  },
  ...killed,
  {
    id: 'reinstall/lost-answer-is-looked-into',
    rule: 'A reinstall whose answer never came, and that took effect, is not done again.',
    needs: { ...needs, faults: ['lost-answer'] },
    async run(bench) {
      const { item } = await bench.provisioned()
      const before = await reinstalls(bench, item)
      await bench.inject('lost-answer')
      await bench.drive(wishReinstall(bench, item))
      await expectReinstalls(bench, item, before + 1, 1n)
    },
  },
  {
    id: 'reinstall/gives-way-to-a-release',
    rule: 'A machine that is to go while it is reinstalled goes, and nothing is left.',
    needs,
    async run(bench) {
      const { instance, item, session } = await bench.provisioned()
      await instance.claim(wishReinstall(bench, item))
      bench.gateway.tellWish(item.wish(gone), session)
      await bench.drive(item)
      await expectGone(bench, item)
    },
  },
  {
    id: 'reinstall/of-missing-makes-none',
    rule: 'A machine that is not there any more is not made by a reinstall; the loss is told.',
    needs: { ...needs, kind: 'dynamic', verbs: ['vanish'] },
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.vanish((await bench.server(item)).externalId)
      await instance.claim(wishReinstall(bench, item))
      await bench.failed(item)
      await bench.released(item)
      expectEqual(item.observed.presence, Presence.ABSENT, 'the presence reported')
      await expectGone(bench, item)
    },
  },
  {
    id: 'reinstall/needs-no-room',
    rule: 'A reinstall needs nothing that a new machine needs: with no room left, it is accepted and done.',
    needs: { capabilities: ['REINSTALL', 'VALIDATE'], faults: ['capacity'] },
    async run(bench) {
      const { item, session } = await bench.provisioned()
      await bench.inject('capacity')
      const { violations } = await verdict(bench, session, item)
      expectEqual(violations.map(({ field }) => field).join(' '), '', 'the fields that are refused')
      await bench.drive(wishReinstall(bench, item))
      expectEqual(item.observed.reinstallsDone, 1n, 'reinstalls_done')
    },
  },
  {
    id: 'reinstall/is-validated',
    rule: 'What is wrong with the data of a reinstall is said before it is done, and names the field.',
    needs: { capabilities: ['REINSTALL', 'VALIDATE'], described: ['badOrders'] },
    async run(bench) {
      const { item, session } = await bench.provisioned()
      const before = await bench.server(item)
      const bad = (bench.description.badOrders ?? []).filter(({ field }) => field.startsWith('spec.provider_data.'))
      if (bad.length === 0) throw new CaseSkipped('the adapter knows no bad order that is about provider_data')
      for (const { title, order, field } of bad) {
        const { violations } = await verdict(bench, session, item, order.providerData)
        expect(
          violations.some((violation) => violation.field === field),
          `${title}: ${field} is not refused`,
        )
      }
      expectEqual((await bench.server(item)).reinstalls, before.reinstalls, 'reinstalls')
    },
  },
]
