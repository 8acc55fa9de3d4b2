import { randomBytes } from 'node:crypto'
import { FailureCode, Operation, PowerState, Presence } from '@slipway/proto/provider/v1'
import type { Case } from '../case.js'
import type { Verdict } from '../gateway/gateway.js'
import { CaseSkipped, expect, expectEqual } from '../until.js'
import { expectGone, expectStandstill, pause, reportNumber, strikeAt, untilItExists } from './moments.js'

/** A request that nothing is known of but that it was tried before: something of it may exist. */
const tried = { attempts: 1 }

/** One order, one machine: what is made, what is said of it, and when. */
export const createCases: readonly Case[] = [
  {
    id: 'create/makes-one-machine',
    rule: 'A request to provision gives exactly one machine, which exists when PROVISION is called complete.',
    basic: true,
    async run(bench) {
      const { item } = await bench.provisioned()
      await bench.server(item)
      expectEqual(item.completions(Operation.PROVISION), 1, 'reports that PROVISION is complete')
      expectEqual(item.observed.presence, Presence.PRESENT, 'the presence reported')
    },
  },
  {
    id: 'create/puts-the-ownership-key-on-it',
    rule: 'What is created carries the ownership key of its request, and nothing else carries it.',
    basic: true,
    async run(bench) {
      const { item } = await bench.provisioned()
      const ours = (await bench.truth()).things.filter(({ ownershipKey }) => ownershipKey !== '')
      expect(
        ours.every(({ ownershipKey }) => ownershipKey === item.key),
        'something carries another key',
      )
      await bench.server(item)
    },
  },
  {
    id: 'create/gives-it-the-name-ordered',
    rule: 'A machine has the name that its order says.',
    needs: { kind: 'dynamic' },
    async run(bench) {
      const { item } = await bench.provisioned()
      const { name } = await bench.server(item)
      if (name !== undefined) expectEqual(name, item.desired.spec?.name, 'the name')
    },
  },
  {
    id: 'create/reports-the-external-id',
    rule: 'The external id reported is that of the machine.',
    basic: true,
    async run(bench) {
      const { item } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      expectEqual(item.observed.externalId, externalId, 'the external id reported')
    },
  },
  {
    id: 'create/reports-the-external-id-before-it-waits',
    rule: 'The external id is reported as soon as it is known, before waiting for the machine.',
    needs: { kind: 'dynamic', faults: ['slow-create'] },
    async run(bench) {
      await bench.inject('slow-create')
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      await bench.until('the external id to be reported', () => item.observed.externalId !== '', bench.createMs)
      expectEqual(item.completions(Operation.PROVISION), 0, 'completions when the external id came to be known')
      await bench.drive(item)
    },
  },
  {
    id: 'create/says-which-wish-it-works-on',
    rule: 'Reports carry the generation that is worked towards; the operation that is complete is named with its generation, and the release with the generation that is met.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      item.wish({ operationGeneration: 4n })
      await bench.drive(item, [instance])
      for (const { generation } of item.reports) expectEqual(generation, 2n, 'the generation of a report')
      const completed = item.reports.find((report) => report.completed !== undefined)?.completed
      expectEqual(completed?.operationGeneration, 4n, 'the generation of the completed operation')
      expectEqual(item.observed.generation, 2n, 'the generation observed')
      expectEqual(item.settledAt, 2n, 'the generation of the release')
    },
  },
  {
    id: 'create/waits-for-each-ack',
    rule: 'The next effect waits for the ack of the report before it.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      bench.judge = async (report): Promise<Verdict> => {
        if (report.step === undefined && report.observed === undefined) return 'ack'
        const before = await bench.truth()
        await pause(700)
        const { writes } = await bench.truth()
        if (writes !== before.writes)
          bench.gateway.rules.breach(`something was done before report ${report.sequence} was acked`)
        return 'ack'
      }
      await bench.drive(item, [instance])
    },
  },
  {
    id: 'create/powers-it-as-wished',
    rule: 'With power ON wished, the machine is on, and said to be on, when the wish is met.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      item.wish({ power: PowerState.ON })
      await bench.drive(item, [instance])
      const { power } = await bench.server(item)
      if (power !== undefined) expectEqual(power, 'on', 'the power')
      expectEqual(item.observed.power, PowerState.ON, 'the power reported')
    },
  },
  {
    id: 'create/makes-many-at-once',
    rule: 'Many orders at once give one machine each, with an id of its own.',
    async run(bench) {
      const instance = await bench.instance()
      const items = []
      for (let count = bench.description.orders ?? 10; count > 0; count -= 1) items.push(await bench.order())
      for (const item of items) await instance.claim(item)
      for (const item of items) await bench.drive(item)
      const servers = await Promise.all(items.map((item) => bench.server(item)))
      expectEqual(new Set(servers.map(({ externalId }) => externalId)).size, items.length, 'different machines')
    },
  },
  {
    id: 'create/takes-a-claim-said-twice-for-one',
    rule: 'A claim that is said twice under one fence is one claim.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const session = await instance.claim(item)
      bench.gateway.repeatClaim(item, session)
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'create/makes-nothing-new-when-all-is-well',
    rule: 'A claim of something that is as it should be is settled, and nothing is done out there.',
    basic: true,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      const before = await bench.truth()
      const { externalId } = await bench.server(item)
      await instance.claim(item)
      await bench.released(item)
      expectEqual(item.settledAt, item.desired.generation, 'the generation at which it was settled again')
      expectEqual((await bench.server(item)).externalId, externalId, 'the machine')
      expectEqual((await bench.truth()).writes, before.writes, 'calls that change something')
    },
  },
  {
    id: 'create/adopts-what-no-report-tells-of',
    rule: 'Where all reports of an earlier try were lost, the machine that carries the key is found and adopted, and no other is made.',
    basic: true,
    async run(bench) {
      const { item, instance } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      item.forget(tried)
      await instance.claim(item)
      await bench.drive(item)
      expectEqual((await bench.server(item)).externalId, externalId, 'the machine')
      expectEqual(item.observed.externalId, externalId, 'the external id reported')
    },
  },
  {
    id: 'create/adopts-at-another-instance',
    rule: 'Another process, which knows nothing, adopts what carries the key.',
    async run(bench) {
      const { item } = await bench.provisioned()
      const { externalId } = await bench.server(item)
      item.forget(tried)
      const other = await bench.instance()
      await other.claim(item)
      await bench.drive(item, [other])
      expectEqual((await bench.server(item)).externalId, externalId, 'the machine')
    },
  },
  {
    id: 'create/does-no-step-twice',
    rule: 'What a stored step has done is not done again by whoever goes on.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(
        bench,
        item,
        ({ step }) => step !== undefined,
        () => 'lose-ack',
      )
      await instance.claim(item)
      await reached()
      const before = await bench.owned(item)
      await instance.crash()
      await bench.drive(item)
      const after = (await bench.owned(item)).map(({ externalId }) => externalId)
      for (const { externalId } of before) expect(after.includes(externalId), `${externalId} was replaced by another`)
      await bench.server(item)
    },
  },
  {
    id: 'create/shows-that-it-fails',
    rule: 'A machine that fails while it is made is a failure with a message, and the item is released.',
    needs: { faults: ['create-fails'] },
    async run(bench) {
      await bench.inject('create-fails')
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      const { message, code } = await bench.failed(item)
      expect(message !== '', 'the failure says nothing')
      expect(code !== FailureCode.UNSPECIFIED, 'the failure has no code')
      await bench.released(item)
      expectEqual(item.completions(Operation.PROVISION), 0, 'reports that PROVISION is complete')
    },
  },
  {
    id: 'create/leaves-a-met-wish-alone',
    rule: 'After the release of a met wish nothing more is said of the item, and nothing done.',
    basic: true,
    async run(bench) {
      const { item, session } = await bench.provisioned()
      const said = item.reports.length
      await expectStandstill(bench, 2_000, 'the release')
      expectEqual(item.reports.length, said, 'reports')
      expect(session.open, 'the session was closed')
    },
  },
  {
    id: 'create/refuses-what-can-never-work',
    rule: 'An order that can never work fails with INVALID_SPEC, is not retried, and nothing is made of it.',
    needs: { described: ['badOrders'] },
    async run(bench) {
      const instance = await bench.instance()
      for (const { title, order } of bench.description.badOrders ?? []) {
        const item = await bench.order(order)
        await instance.claim(item)
        const { code, retryable, message } = await bench.failed(item)
        expectEqual(FailureCode[code], 'INVALID_SPEC', `the code for ${title}`)
        expect(!retryable, `${title} is called retryable`)
        expect(message !== '', `the failure for ${title} says nothing`)
        await bench.released(item)
        await expectGone(bench, item)
      }
    },
  },
  {
    id: 'create/goes-on-with-a-new-generation',
    rule: 'A wish whose generation rises while the machine is made, with all else as before, is met under the new generation by that one machine.',
    needs: { faults: ['slow-create'] },
    async run(bench) {
      await bench.inject('slow-create')
      const instance = await bench.instance()
      const item = await bench.order()
      const session = await instance.claim(item)
      await untilItExists(bench, item)
      bench.gateway.tellWish(item.wish({}), session)
      await bench.drive(item)
      expectEqual(item.settledAt, 2n, 'the generation at which it was settled')
      await bench.server(item)
    },
  },
  {
    id: 'create/goes-on-with-a-wish-that-came-at-once',
    rule: 'A holder that is told of a new wish before its first report is answered meets it under the same claim.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const session = await instance.ready()
      const reached = strikeAt(bench, item, reportNumber(1), () => {
        bench.gateway.tellWish(item.wish({}), session)
        return 'ack'
      })
      await instance.claim(item)
      await reached()
      await bench.drive(item)
      expectEqual(item.settledAt, 2n, 'the generation at which it was settled')
      expectEqual(item.fence, 1n, 'the fence under which it was settled')
      await bench.server(item)
    },
  },
  {
    id: 'create/hands-over-ssh-keys',
    rule: 'SSH keys of an order may log in on its machine, or the order is refused for good: they are never dropped.',
    async run(bench) {
      await bench.instance()
      const item = await bench.order(undefined, [newKey('kit "one"'), newKey('kit')])
      try {
        await bench.drive(item)
      } catch (error) {
        if (item.failures.some(({ code, retryable }) => code === FailureCode.INVALID_SPEC && !retryable)) return
        throw error
      }
      const { sshPublicKeys } = await bench.server(item)
      if (sshPublicKeys === undefined) throw new CaseSkipped('the adapter does not tell which keys may log in')
      const wanted = item.desired.spec?.bootstrap?.sshPublicKeys ?? []
      expectEqual(sshPublicKeys.join('\n'), wanted.join('\n'), 'the keys that may log in')
    },
  },
]

function newKey(comment: string): string {
  const part = (bytes: Buffer) => Buffer.concat([Buffer.from([0, 0, 0, bytes.length]), bytes])
  const body = Buffer.concat([part(Buffer.from('ssh-ed25519')), part(randomBytes(32))])
  return `ssh-ed25519 ${body.toString('base64')} ${comment}`
}
