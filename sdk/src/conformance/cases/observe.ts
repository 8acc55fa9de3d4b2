import { Operation, Presence } from '@slipway/proto/provider/v1'
import type { Case } from '../case.js'
import { expect, expectEqual } from '../until.js'
import { untilListed } from './listings.js'
import { expectGone } from './moments.js'

/** Looking after what was made. */
export const observeCases: readonly Case[] = [
  {
    id: 'observe/meets-a-new-generation',
    rule: 'A wish that changed in nothing but its generation is settled at that generation, and nothing is done out there.',
    basic: true,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const { writes } = await bench.truth()
      await bench.fulfil(item, instance, {})
      expectEqual(item.observed.generation, 2n, 'the generation observed')
      expectEqual((await bench.truth()).writes, writes, 'calls that change something')
    },
  },
  {
    id: 'observe/only-looks-where-nothing-is-to-be-done',
    rule: 'With no operation wished, what is there is looked at and nothing is changed.',
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const { writes } = await bench.truth()
      await bench.fulfil(item, instance, { operation: Operation.UNSPECIFIED })
      expectEqual(item.observed.presence, Presence.PRESENT, 'the presence reported')
      expectEqual((await bench.truth()).writes, writes, 'calls that change something')
      await bench.server(item)
    },
  },
  {
    id: 'observe/tells-of-a-machine-that-vanished',
    rule: 'A machine that is gone though it is wished for is told of: as absent, or as a failure; and no second one is made of the old order by itself.',
    needs: { verbs: ['vanish'], kind: 'dynamic' },
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      await bench.vanish(externalId)
      const told = item.reports.length
      await instance.claim(item.wish({}))
      await bench.released(item)
      const after = item.reports.slice(told)
      const tells = after.some(
        ({ observed, failure }) => failure !== undefined || observed?.presence === Presence.ABSENT,
      )
      expect(tells, 'nothing is said of it')
      await expectGone(bench, item)
    },
  },
  {
    id: 'observe/sees-in-its-listing-that-a-machine-vanished',
    rule: 'A complete listing after a machine vanished does not show it any more.',
    needs: { verbs: ['vanish'], capabilities: ['LIST'] },
    async run(bench) {
      const { item, session } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      await bench.vanish(externalId)
      await untilListed(bench, session, ({ ids }) => !ids.has(externalId), `a complete listing without ${externalId}`)
    },
  },
  {
    id: 'observe/never-takes-not-looked-for-absent',
    rule: 'Nothing is called ABSENT before it was looked for: while a machine is made no report says so.',
    async run(bench) {
      const { item } = await bench.provisioned()
      const absent = item.reports.some(({ observed }) => observed?.presence === Presence.ABSENT)
      expect(!absent, 'a report says ABSENT')
    },
  },
  {
    id: 'observe/survives-a-machine-that-is-not-there',
    rule: 'A static machine that is not in the rack any more is a failure of its item, and of nothing else.',
    needs: { kind: 'static', verbs: ['vanish'] },
    async run(bench) {
      const instance = await bench.instance()
      const lost = await bench.machine()
      await bench.vanish(lost.desired.machine?.externalId ?? '')
      await instance.claim(lost)
      await bench.failed(lost)
      const other = await bench.machine()
      await bench.drive(other)
      expectEqual(other.completions(Operation.VERIFY), 1, 'verifications of another machine that are complete')
    },
  },
]
