import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { MachineSpecSchema, Operation, PowerState, Presence } from '@slipway/proto/provider/v1'
import type { Thing } from '../adapter.js'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import { expect, expectEqual } from '../until.js'
import { dieAt, successor, type Failpoint } from './crash.js'
import { expectGone } from './moments.js'

const needs = { kind: 'dynamic', capabilities: ['ADOPT'], verbs: ['plant'] } as const

/** The wish that a server is let go of before its host was READY. */
const letGo = { operation: Operation.UNADOPT, presence: Presence.UNSPECIFIED, power: PowerState.UNSPECIFIED }

/** Makes a server that exists, and that nobody knows of. */
async function plantServer(bench: Bench, ownershipKey = ''): Promise<Thing> {
  const [id = ''] = await bench.plant({ name: `kit-existing-${randomUUID().slice(0, 8)}`, ownershipKey })
  return thingNow(bench, id)
}

async function thingNow(bench: Bench, id: string): Promise<Thing> {
  const thing = (await bench.truth()).things.find(({ externalId, kind }) => externalId === id && kind === 'server')
  expect(thing !== undefined, `server ${id}, which was there before, is gone`)
  return thing
}

/** An order to adopt a server, of whatever type it is. */
async function adoptionOf(bench: Bench, externalId: string): Promise<Item> {
  const item = await bench.order()
  const { $typeName: _type, $unknown: _unknown, ...spec } = create(MachineSpecSchema, item.desired.spec)
  item.desired.operation = Operation.ADOPT
  item.desired.spec = create(MachineSpecSchema, { ...spec, typeId: '', location: '', adoptExternalId: externalId })
  return item
}

/** A server that exists, and was adopted. */
async function adopted(bench: Bench): Promise<{ readonly item: Item; readonly before: Thing }> {
  await bench.instance()
  const before = await plantServer(bench)
  const item = await adoptionOf(bench, before.externalId)
  await bench.drive(item)
  return { item, before }
}

/** Holds where of all that a server has nothing but its key is another one. */
async function expectUntouched(bench: Bench, before: Thing, key: string): Promise<void> {
  const now = await thingNow(bench, before.externalId)
  expectEqual(now.ownershipKey, key, `the key on ${before.externalId}`)
  expectEqual(now.name, before.name, 'its name')
  for (const field of ['power', 'reboots', 'reinstalls', 'rescue'] as const)
    if (before[field] !== undefined) expectEqual(now[field], before[field], `its ${field}`)
}

/** Has an order refused for good, and given up. */
async function expectRefused(bench: Bench, item: Item): Promise<void> {
  const [instance] = bench.instances
  await bench.until(
    'the adoption to be refused for good',
    async () => {
      if (item.failures.some(({ retryable }) => !retryable)) return true
      expectEqual(item.completions(Operation.ADOPT), 0, 'times that the adoption was called complete')
      if (!item.held && instance !== undefined) await instance.claim(item)
      return false
    },
    bench.createMs,
  )
  await bench.released(item)
  item.wish(letGo)
  await bench.drive(item)
}

const moments: Readonly<Record<string, readonly [Failpoint, string]>> = {
  'before-the-key': ['sdk.effect.before', 'just before the key is put on'],
  'after-the-key': ['sdk.effect.after', 'just after the key was put on, before anything of it was said'],
  'once-it-is-stored': ['sdk.report.after', 'just after it was stored that the key is on'],
}

const killed = Object.entries(moments).flatMap(([name, [failpoint, when]]) => {
  const killedIn = (bench: Bench, before: Thing) => dieAt(bench, failpoint, () => adoptionOf(bench, before.externalId))
  const described = { ...needs, described: ['failpoints'] as const }
  return [
    ...(['itself', 'another'] as const).map((who): Case => {
      return {
        id: `adopt/killed-${name}-then-${who}`,
        rule: `Killed ${when}, with ${who === 'itself' ? 'itself started again' : 'another instance'} going on: the server is adopted, and untouched.`,
        needs: described,
        async run(bench) {
          const before = await plantServer(bench)
          const { dead, item } = await killedIn(bench, before)
          await bench.drive(item, [await successor(bench, dead, who)])
          expectEqual(item.observed.externalId, before.externalId, 'the id reported')
          await expectUntouched(bench, before, item.key)
        },
      }
    }),
    {
      id: `adopt/killed-${name}-then-given-up`,
      rule: `Killed ${when}, and given up then: the key is off, and the server is as it was.`,
      needs: described,
      async run(bench: Bench) {
        const before = await plantServer(bench)
        const { item } = await killedIn(bench, before)
        item.wish(letGo)
        await bench.drive(item, [await bench.instance()])
        await expectUntouched(bench, before, '')
      },
    } satisfies Case,
  ]
})

/** Servers that exist already: they are taken over untouched, let go of again, and never removed before their host was READY. */
export const adoptCases: readonly Case[] = [
  {
    id: 'adopt/puts-its-key-on-it-and-nothing-else',
    rule: 'ADOPT of a server that exists puts the ownership key on it and changes nothing else; its id, power and presence are reported.',
    needs,
    async run(bench) {
      const { item, before } = await adopted(bench)
      await expectUntouched(bench, before, item.key)
      expectEqual(item.completions(Operation.ADOPT), 1, 'times that ADOPT was called complete')
      expectEqual(item.observed.externalId, before.externalId, 'the id reported')
      expectEqual(item.observed.presence, Presence.PRESENT, 'the presence reported')
      if (before.power !== undefined)
        expectEqual(item.observed.power, before.power === 'on' ? PowerState.ON : PowerState.OFF, 'the power reported')
    },
  },
  {
    id: 'adopt/refuses-what-is-of-another-hub',
    rule: 'A server that bears the key of another hub is refused for good, and stays as it is, also when the request is given up.',
    needs,
    async run(bench) {
      await bench.instance()
      const key = `${randomUUID()}/${randomUUID()}`
      const before = await plantServer(bench, key)
      await expectRefused(bench, await adoptionOf(bench, before.externalId))
      await expectUntouched(bench, before, key)
    },
  },
  {
    id: 'adopt/refuses-what-is-of-another-request',
    rule: 'A server that bears the key of another request of the same hub is refused for good, and stays as it is.',
    needs,
    async run(bench) {
      await bench.instance()
      const key = `${bench.world.hubId}/${randomUUID()}`
      const before = await plantServer(bench, key)
      await expectRefused(bench, await adoptionOf(bench, before.externalId))
      await expectUntouched(bench, before, key)
    },
  },
  {
    id: 'adopt/refuses-what-is-not-there',
    rule: 'A server that does not exist is a lasting failure, and nothing is made in its place.',
    needs: { ...needs, verbs: ['plant', 'vanish'] },
    async run(bench) {
      await bench.instance()
      const { externalId } = await plantServer(bench)
      await bench.vanish(externalId)
      const item = await adoptionOf(bench, externalId)
      await expectRefused(bench, item)
      await expectGone(bench, item)
    },
  },
  {
    id: 'adopt/looks-without-any-effect',
    rule: 'Validate of an adoption looks at the server and changes nothing; what is not there is a violation of spec.adopt_external_id.',
    needs: { ...needs, capabilities: ['ADOPT', 'VALIDATE'], verbs: ['plant', 'vanish'] },
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      const there = await plantServer(bench)
      const missing = await plantServer(bench)
      await bench.vanish(missing.externalId)
      const fields = async (adoptExternalId: string): Promise<readonly string[]> => {
        const validationId = `adopt-${session.all('validated').length}`
        const deadline = durationFromMs(bench.waitMs)
        session.send({ case: 'validate', value: { validationId, spec: { adoptExternalId }, deadline } })
        const answer = await bench.until('the answer to Validate', () =>
          session.all('validated').find((each) => each.validationId === validationId),
        )
        // What is being made cannot be judged yet.
        return answer.failure === undefined ? answer.violations.map(({ field }) => field) : fields(adoptExternalId)
      }
      expectEqual(
        (await fields(missing.externalId)).join(),
        'spec.adopt_external_id',
        'what is wrong with one that is gone',
      )
      expectEqual((await fields(there.externalId)).join(), '', 'what is wrong with one that is there')
      await expectUntouched(bench, there, '')
    },
  },
  {
    id: 'adopt/lost-answer-is-looked-into',
    rule: 'Where the answer to putting the key on was lost, the next try finds it there.',
    needs: { ...needs, faults: ['lost-answer'] },
    async run(bench) {
      await bench.instance()
      const before = await plantServer(bench)
      await bench.inject('lost-answer')
      const item = await adoptionOf(bench, before.externalId)
      await bench.drive(item)
      await bench.inject('none')
      await expectUntouched(bench, before, item.key)
    },
  },
  {
    id: 'adopt/lets-go-of-it',
    rule: 'UNADOPT takes the key off the server, changes nothing else, and never removes it.',
    needs,
    async run(bench) {
      const { item, before } = await adopted(bench)
      item.wish(letGo)
      await bench.drive(item)
      expectEqual(item.completions(Operation.UNADOPT), 1, 'times that UNADOPT was called complete')
      await expectUntouched(bench, before, '')
    },
  },
  {
    id: 'adopt/letting-go-of-what-is-gone-is-success',
    rule: 'UNADOPT of a server that is gone already succeeds.',
    needs: { ...needs, verbs: ['plant', 'vanish'] },
    async run(bench) {
      const { item, before } = await adopted(bench)
      await bench.vanish(before.externalId)
      item.wish(letGo)
      await bench.drive(item)
      expectEqual(item.completions(Operation.UNADOPT), 1, 'times that UNADOPT was called complete')
    },
  },
  {
    id: 'adopt/is-like-any-other-then',
    rule: 'A server that was adopted is deprovisioned like one that was made.',
    needs,
    async run(bench) {
      const { item } = await adopted(bench)
      await bench.deprovision(item)
      expectEqual(item.observed.presence, Presence.ABSENT, 'the presence reported')
      await expectGone(bench, item)
    },
  },
  ...killed,
]
