import { PowerState } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import type { Instance } from '../instance.js'
import { CaseSkipped, expectEqual } from '../until.js'
import { gone } from './delete.js'
import { expectGone, pause, reportNumber, strikeAt, untilItExists } from './moments.js'

export type Failpoint = `sdk.${'effect' | 'report' | 'delete'}.${'before' | 'after'}`

/** Starts an instance that dies at that moment, hands it an item, and waits for its death. */
export async function dieAt(
  bench: Bench,
  failpoint: Failpoint,
  make: () => Promise<Item>,
): Promise<{ dead: Instance; item: Item }> {
  const dead = await bench.instance({ env: { SLIPWAY_FAILPOINTS: `${failpoint}=kill` } })
  const item = await make()
  dead.process.mayEnd = true
  await dead.claim(item)
  await bench.until('the process to die', () => !dead.process.running || !item.held, bench.createMs)
  if (dead.process.running) throw new CaseSkipped('it does not come past that moment here')
  bench.expireLeases(dead)
  return { dead, item }
}

/** The same instance once more, or another one. */
export async function successor(bench: Bench, dead: Instance, who: 'itself' | 'another'): Promise<Instance> {
  if (who === 'another') return bench.instance()
  const before = dead.sessions.at(-1)
  dead.start({ SLIPWAY_FAILPOINTS: '' })
  await dead.ready(before)
  return dead
}

const createMoments: Readonly<Record<string, readonly [Failpoint, string]>> = {
  'before-an-effect': ['sdk.effect.before', 'just before an effect'],
  'after-an-effect': ['sdk.effect.after', 'just after an effect, before anything of it was said'],
  'before-a-result-is-reported': ['sdk.report.before', 'just before the result of an effect is reported'],
  'after-a-result-is-stored': ['sdk.report.after', 'just after the result of an effect was stored'],
}

const deleteMoments: Readonly<Record<string, readonly [Failpoint, string]>> = {
  'before-a-delete': ['sdk.delete.before', 'just before a delete'],
  'after-a-delete': ['sdk.delete.after', 'just after a delete, before it was said'],
}

const whos = ['itself', 'another'] as const

const killedInCreate = Object.entries(createMoments).flatMap(([name, [failpoint, when]]) =>
  whos.map((who): Case => {
    return {
      id: `crash/${name}-then-${who}`,
      rule: `Killed ${when}, with ${who === 'itself' ? 'itself started again' : 'another instance'} going on: exactly one machine.`,
      needs: { described: ['failpoints'] },
      async run(bench) {
        const { dead, item } = await dieAt(bench, failpoint, () => bench.order())
        await bench.drive(item, [await successor(bench, dead, who)])
        await bench.server(item)
      },
    }
  }),
)

const killedInDelete = Object.entries(deleteMoments).flatMap(([name, [failpoint, when]]) =>
  whos.map((who): Case => {
    return {
      id: `crash/${name}-then-${who}`,
      rule: `Killed ${when}, with ${who === 'itself' ? 'itself started again' : 'another instance'} going on: nothing is left.`,
      needs: { described: ['failpoints'] },
      async run(bench) {
        const { item: made, instance } = await bench.provisioned()
        await instance.stop()
        const { dead, item } = await dieAt(bench, failpoint, () => Promise.resolve(made.wish(gone)))
        await bench.drive(item, [await successor(bench, dead, who)])
        await expectGone(bench, item)
      },
    }
  }),
)

const killedAtReports = [1, 2, 3, 4, 5].flatMap((nth) =>
  (['lost', 'stored'] as const).map((fate): Case => {
    return {
      id: `crash/at-report-${nth}-${fate}`,
      rule: `Killed when report ${nth} of a creation was ${fate === 'lost' ? 'sent and lost' : 'stored, before its ack'}: exactly one machine.`,
      basic: nth === 1,
      async run(bench) {
        const instance = await bench.instance()
        const item = await bench.order()
        const reached = strikeAt(bench, item, reportNumber(nth), () => (fate === 'lost' ? 'ignore' : 'lose-ack'))
        await instance.claim(item)
        await reached()
        await instance.crash()
        await bench.drive(item)
        await bench.server(item)
      },
    }
  }),
)

/** Idempotence at every moment at which a process can die. */
export const crashCases: readonly Case[] = [
  ...killedInCreate,
  ...killedInDelete,
  ...killedAtReports,
  {
    id: 'crash/as-soon-as-it-exists',
    rule: 'Killed as soon as anything exists: the next goes on with it, and makes no second one.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      await untilItExists(bench, item)
      await instance.crash()
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'crash/again-and-again',
    rule: 'Killed over and over at odd moments while a machine is made: exactly one machine in the end.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      for (const ms of [20, 60, 120, 200, 300, 450]) {
        if (item.settledAt !== undefined) break
        await instance.claim(item)
        await pause(ms)
        await instance.crash()
      }
      if (item.settledAt === undefined) await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'crash/again-and-again-while-it-goes',
    rule: 'Killed over and over while a machine is removed: nothing is left in the end.',
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      item.wish(gone)
      for (const ms of [10, 40, 90, 160, 250]) {
        if (item.settledAt === item.desired.generation) break
        await instance.claim(item)
        await pause(ms)
        await instance.crash()
      }
      await bench.drive(item)
      await expectGone(bench, item)
    },
  },
  {
    id: 'crash/after-a-lost-answer',
    rule: 'Killed while it waits for an answer that never comes, to a create that took effect: exactly one machine.',
    needs: { faults: ['lost-answer'] },
    async run(bench) {
      await bench.inject('lost-answer')
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      await untilItExists(bench, item)
      await instance.crash()
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'crash/while-power-is-switched',
    rule: 'Killed while power is switched: the next brings it to what is wished.',
    needs: { capabilities: ['POWER'] },
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      item.wish({ power: PowerState.OFF })
      const reached = strikeAt(bench, item, reportNumber(1), () => 'ack')
      await instance.claim(item)
      await reached()
      await instance.crash()
      await bench.drive(item)
      const { power } = await bench.server(item)
      if (power !== undefined) expectEqual(power, 'off', 'the power')
    },
  },
]
