import { randomUUID } from 'node:crypto'
import { ItemKind, Operation, PowerState, Presence } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import { Item } from '../gateway/item.js'
import { expect, expectEqual } from '../until.js'
import { expectGone, pause, reportNumber, strikeAt } from './moments.js'

const needs = { kind: 'static' } as const

/** A machine of the rack as the adapter sees it. */
async function truthOf(bench: Bench, machine: Item) {
  const id = machine.desired.machine?.externalId
  const found = (await bench.truth()).things.find(({ externalId }) => externalId === id)
  expect(found !== undefined, `${id} is not in the rack any more`)
  return found
}

async function expectClean(bench: Bench, machine: Item, clean: boolean): Promise<void> {
  const found = await truthOf(bench, machine)
  if (found.clean !== undefined) expectEqual(found.clean, clean, 'whether its disks are clean')
}

/** A host was on it, and is not any more: its disks are as that host left them. */
async function usedMachine(bench: Bench) {
  const { instance, item } = await bench.provisioned()
  await bench.deprovision(item)
  return { instance, request: item, machine: await bench.machineOf(item) }
}

/** Machines that exist already: verified, wiped between uses, off when unused. */
export const rackCases: readonly Case[] = [
  {
    id: 'rack/verifies',
    rule: 'VERIFY of a machine that is well is complete, and changes nothing on it.',
    needs,
    basic: true,
    async run(bench) {
      await bench.instance()
      const machine = await bench.machine()
      await bench.drive(machine)
      expectEqual(machine.completions(Operation.VERIFY), 1, 'completions')
      expectEqual(machine.observed.presence, Presence.PRESENT, 'the presence reported')
    },
  },
  {
    id: 'rack/tells-of-a-failed-verification',
    rule: 'A machine whose controller does not let the provider in fails its verification, and is not called verified.',
    needs: { ...needs, faults: ['verify-fails'] },
    async run(bench) {
      await bench.inject('verify-fails')
      const instance = await bench.instance()
      const machine = await bench.machine()
      await instance.claim(machine)
      const { message } = await bench.failed(machine)
      expect(message !== '', 'the failure says nothing')
      expectEqual(machine.completions(Operation.VERIFY), 0, 'completions')
    },
  },
  {
    id: 'rack/inspects',
    rule: 'INSPECT reports the hardware.',
    needs: { ...needs, capabilities: ['INSPECT'] },
    async run(bench) {
      const instance = await bench.instance()
      const machine = await bench.machine()
      await bench.drive(machine)
      await bench.fulfil(machine, instance, { operation: Operation.INSPECT })
      const { shape } = machine.observed.hardware ?? {}
      expect(shape !== undefined && shape.vcpus > 0 && shape.memoryMib > 0n, 'no shape was reported')
    },
  },
  {
    id: 'rack/leaves-data-until-it-is-wiped',
    rule: 'A machine whose host was taken off is off, and not called clean before it is wiped.',
    needs,
    async run(bench) {
      const { machine } = await usedMachine(bench)
      expectEqual((await truthOf(bench, machine)).power, 'off', 'its power')
    },
  },
  {
    id: 'rack/wipes',
    rule: 'CLEAN leaves the disks clean and the machine off, when it is called complete.',
    needs,
    basic: true,
    async run(bench) {
      const { instance, machine } = await usedMachine(bench)
      await bench.fulfil(machine, instance, { operation: Operation.CLEAN })
      await expectClean(bench, machine, true)
      expectEqual((await truthOf(bench, machine)).power, 'off', 'its power')
      expectEqual(machine.completions(Operation.CLEAN), 1, 'completions')
    },
  },
  {
    id: 'rack/never-calls-a-failed-wipe-complete',
    rule: 'A wipe that failed is a failure, and never complete.',
    needs: { ...needs, faults: ['clean-fails'] },
    async run(bench) {
      const { instance, machine } = await usedMachine(bench)
      await bench.inject('clean-fails')
      await instance.claim(machine.wish({ operation: Operation.CLEAN }))
      await bench.failed(machine)
      await bench.released(machine)
      expectEqual(machine.completions(Operation.CLEAN), 0, 'completions')
      await expectClean(bench, machine, false)
    },
  },
  {
    id: 'rack/wipes-again-where-it-died',
    rule: 'Killed in the middle of a wipe: the next wipes the machine before it calls it clean.',
    needs,
    async run(bench) {
      const { instance, machine } = await usedMachine(bench)
      machine.wish({ operation: Operation.CLEAN })
      const reached = strikeAt(bench, machine, reportNumber(1), () => 'ack')
      await instance.claim(machine)
      await reached()
      await pause(100)
      await instance.crash()
      await bench.drive(machine)
      await expectClean(bench, machine, true)
    },
  },
  {
    id: 'rack/wipes-anew-for-each-operation',
    rule: 'A raised operation generation is a new wipe: what was done before does not count.',
    needs,
    async run(bench) {
      const { instance, machine } = await usedMachine(bench)
      await bench.fulfil(machine, instance, { operation: Operation.CLEAN })
      const before = await bench.writes()
      await bench.fulfil(machine, instance, { operationGeneration: machine.desired.operationGeneration + 1n })
      expect((await bench.writes()) > before, 'nothing was done')
      await expectClean(bench, machine, true)
    },
  },
  {
    id: 'rack/uses-a-machine-again',
    rule: 'After a wipe the next host can be put on the machine; the one before is not on it.',
    needs,
    async run(bench) {
      const { instance, request, machine } = await usedMachine(bench)
      await bench.fulfil(machine, instance, { operation: Operation.CLEAN })
      const { machine: same, ...sample } = await nextOrder(bench, machine)
      const next = bench.gateway.add(new Item(ItemKind.MACHINE_REQUEST, { ...sample, machine: same }, sample.id))
      await bench.drive(next)
      expectEqual((await bench.server(next)).externalId, same.externalId, 'the machine')
      await expectGone(bench, request)
    },
  },
  {
    id: 'rack/does-not-take-off-the-host-of-another',
    rule: 'A late claim to take an old host off a machine leaves the host alone that is on it by now.',
    needs,
    async run(bench) {
      const { instance, request, machine } = await usedMachine(bench)
      await bench.fulfil(machine, instance, { operation: Operation.CLEAN })
      const { machine: same, ...sample } = await nextOrder(bench, machine)
      const next = bench.gateway.add(new Item(ItemKind.MACHINE_REQUEST, { ...sample, machine: same }, sample.id))
      await bench.drive(next)
      await instance.claim(request)
      await bench.drive(request)
      const { power } = await bench.server(next)
      if (power !== undefined) expectEqual(power, 'on', "the power of the other's machine")
    },
  },
  {
    id: 'rack/switches-a-machine-without-a-host',
    rule: 'POWER brings a machine without a host to the power that is wished.',
    needs: { ...needs, capabilities: ['POWER'] },
    async run(bench) {
      const instance = await bench.instance()
      const machine = await bench.machine()
      await bench.drive(machine)
      await bench.fulfil(machine, instance, { operation: Operation.POWER, power: PowerState.ON })
      expectEqual((await truthOf(bench, machine)).power, 'on', 'its power')
      await bench.fulfil(machine, instance, { power: PowerState.OFF, operationGeneration: 9n })
      expectEqual((await truthOf(bench, machine)).power, 'off', 'its power')
    },
  },
  {
    id: 'rack/touches-only-its-machine',
    rule: 'Work on one machine leaves all others as they are.',
    needs,
    async run(bench) {
      const { item } = await bench.provisioned()
      const { things } = await bench.truth()
      const others = things.filter(({ externalId }) => externalId !== item.desired.machine?.externalId)
      for (const { externalId, ownershipKey, power } of others) {
        expectEqual(ownershipKey, '', `the host on ${externalId}`)
        expect(power !== 'on', `${externalId} was switched on`)
      }
    },
  },
]

/** A second order for a machine that was used before. */
async function nextOrder(bench: Bench, machine: Item) {
  const template = await bench.order()
  bench.gateway.items.delete(template.id)
  const id = randomUUID()
  const { spec } = template.desired
  const ownershipKey = `${bench.gateway.hubId}/${id}`
  const same = { externalId: machine.desired.machine?.externalId ?? '', machineId: machine.id }
  return {
    id,
    operation: Operation.PROVISION,
    presence: Presence.PRESENT,
    ...(spec !== undefined && { spec: { ...spec, ownershipKey } }),
    machine: same,
  }
}
