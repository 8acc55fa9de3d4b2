import { durationMs } from '@bufbuild/protobuf/wkt'
import { Operation, PowerState, Presence } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Item } from '../gateway/item.js'
import { CaseSkipped, expect, expectEqual } from '../until.js'
import { pause } from './moments.js'

const needs = { kind: 'static' } as const

/** Long enough for something to be done by whoever does not listen. */
const quietMs = 1_500

async function powerOf(bench: Bench, machine: Item): Promise<'on' | 'off' | undefined> {
  const id = machine.desired.machine?.externalId
  return (await bench.truth()).things.find(({ externalId }) => externalId === id)?.power
}

async function expectQuiet(bench: Bench, before: number): Promise<void> {
  await pause(quietMs)
  expectEqual(await bench.writes(), before, 'calls that changed something')
}

/** Machines that are to be left alone, that wait for their own word, and that are in use already. */
export const leftAloneCases: readonly Case[] = [
  {
    id: 'rack/leaves-a-paused-machine-alone',
    rule: 'An item that is paused is released at once, with nothing done; what was wished is done when that is over.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.deprovision(item)
      const machine = await bench.machineOf(item)
      const before = await bench.writes()
      machine.wish({ operation: Operation.CLEAN, paused: true })
      await instance.claim(machine)
      await bench.released(machine)
      expectEqual(machine.outcome?.case, 'retryAfter', 'how it was released')
      await expectQuiet(bench, before)
      expectEqual(machine.completions(Operation.CLEAN), 0, 'completions')
      await bench.fulfil(machine, instance, { paused: false })
      expectEqual(machine.completions(Operation.CLEAN), 1, 'completions, once it goes on')
    },
  },
  {
    id: 'rack/stops-work-on-a-machine-that-is-paused',
    rule: 'A holder that is told to leave a machine alone stops before its next effect, and releases it; the work goes on later.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.deprovision(item)
      const machine = await bench.machineOf(item)
      machine.wish({ operation: Operation.CLEAN })
      const stored = machine.reports.length
      await instance.claim(machine)
      await bench.until('the work to begin', () => machine.reports.length > stored || !machine.held, bench.createMs)
      machine.wish({ paused: true })
      if (machine.held) bench.gateway.tellWish(machine, await instance.ready())
      await bench.released(machine)
      await expectQuiet(bench, await bench.writes())
      await bench.fulfil(machine, instance, { paused: false })
      expectEqual(machine.completions(Operation.CLEAN), 1, 'completions')
    },
  },
  {
    id: 'rack/waits-with-a-deadline',
    rule: 'Who waits for a machine says for which operation and for how long, and lets go of it.',
    needs,
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      await bench.deprovision(item)
      const machine = await bench.machineOf(item)
      await bench.fulfil(machine, instance, { operation: Operation.CLEAN })
      const waits = machine.reports.flatMap((report) => (report.waiting === undefined ? [] : [report.waiting]))
      if (waits.length === 0) throw new CaseSkipped('the provider did not wait for the machine')
      for (const { operation, operationGeneration, timeout } of waits) {
        expectEqual(operation, Operation.CLEAN, 'the operation that waits')
        expectEqual(operationGeneration, machine.desired.operationGeneration, 'its generation')
        expect(timeout !== undefined && durationMs(timeout) > 0, 'it waits without a deadline')
      }
      const released = machine.releases.filter(({ outcome }) => outcome.case === 'retryAfter')
      expect(released.length >= waits.length, 'a claim was kept while the machine was waited for')
    },
  },
  {
    id: 'rack/adopts-untouched',
    rule: 'ADOPT of a machine looks at it and changes nothing, not even its power.',
    needs,
    async run(bench) {
      const instance = await bench.instance()
      const machine = await bench.machine()
      await bench.drive(machine)
      const power = await powerOf(bench, machine)
      const before = await bench.writes()
      await bench.fulfil(machine, instance, { operation: Operation.ADOPT })
      expectEqual(machine.completions(Operation.ADOPT), 1, 'completions')
      expectEqual(machine.observed.presence, Presence.PRESENT, 'the presence reported')
      expectEqual(await bench.writes(), before, 'calls that changed something')
      expectEqual(await powerOf(bench, machine), power, 'its power')
    },
  },
  {
    id: 'rack/keeps-an-adopted-host',
    rule: 'ADOPT of a request means that its host is there: it is observed, its power is brought to what is wished, and nothing is put on it.',
    needs: { ...needs, capabilities: ['POWER'] },
    async run(bench) {
      const { instance, item } = await bench.provisioned()
      // A machine that was just set up may still be starting: what counts is that nobody starts it anew.
      const { reboots, reinstalls } = await bench.server(item)
      await bench.fulfil(item, instance, { operation: Operation.ADOPT, power: PowerState.ON })
      const kept = await bench.server(item)
      expectEqual(kept.reboots, reboots, 'its reboots')
      expectEqual(kept.reinstalls, reinstalls, 'its reinstalls')
      if (kept.power !== undefined) expectEqual(kept.power, 'on', 'its power')
      await bench.fulfil(item, instance, { power: PowerState.OFF })
      const power = await powerOf(bench, item)
      if (power !== undefined) expectEqual(power, 'off', 'its power')
    },
  },
]
