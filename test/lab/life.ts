import type { Test } from 'tap'
import { until } from '../tools/processes.js'
import type { Lab } from './lab.js'

const minutes = 60_000

/** Two machines, the first with BIOS, the second with UEFI: from their discovery to the next tenant. */
export async function wholeLife(t: Test, lab: Lab): Promise<void> {
  const { slipway, os } = lab
  const [bios] = lab.bmcs
  if (bios === undefined) throw new Error('the lab has two machines')
  const stateOf = async (number: number): Promise<string> => (await lab.machine(number))?.state ?? 'unknown'
  const reaches = (number: number, state: string) =>
    until(
      `machine ${number} to be ${state}`,
      async () => (await stateOf(number)) === `MACHINE_STATE_${state}`,
      8 * minutes,
    )
  await lab.startProvider([2])

  await t.test('one that is powered on by hand is discovered, and waits', async (t) => {
    await bios.pressPower()
    await reaches(1, 'DISCOVERED')
    const seen = await until(
      'its hardware',
      async () => {
        const machine = await lab.machine(1)
        return machine?.hardware?.serial === bios.machine.serial && machine
      },
      8 * minutes,
    )
    t.match(seen, { externalId: bios.machine.uuid, hardware: { serial: 'LAB-1' } })
    t.equal(bios.machine.starts, 1)
  })

  await t.test('accepted, both are inspected, cleaned and switched off', async (t) => {
    await slipway.apply({
      kind: 'Provider',
      name: 'iron',
      config: lab.config([1, 2]),
      credentials: lab.credentials(),
    })
    for (const number of [1, 2]) {
      const machine = await until(`machine ${number}`, () => lab.machine(number))
      await slipway.ok('machine', 'accept', machine.name.replace('machines/', ''))
    }
    await Promise.all([reaches(1, 'AVAILABLE'), reaches(2, 'AVAILABLE')])
    for (const machine of lab.machines) t.notOk(machine.isOn, 'what is available is off')
    t.match((await lab.machine(2))?.hardware, { serial: 'LAB-2' })
    t.ok(lab.bmcs[1]?.told.includes('boot pxe'), 'it was booted from the network by its BMC')
  })

  await t.test('a host is ordered, installed, and boots from its disk', async (t) => {
    await Promise.all(['one', 'two'].map((name) => slipway.ok('host', 'order', name, '--class', 'metal', '--no-wait')))
    await slipway.ok('wait', 'host/one', 'host/two', '--for', 'ready', '--timeout', '900s')
    for (const machine of lab.machines) {
      t.match(machine.console(), /TENANT started from disk/, `machine ${machine.number}`)
      t.match(machine.console(), /TENANT hostname (one|two)/)
      t.ok((await machine.countOnDisk(os.secret)) > 1000, 'the tenant has left its data there')
    }
    t.match([await stateOf(1), await stateOf(2)], ['MACHINE_STATE_ACTIVE', 'MACHINE_STATE_ACTIVE'])
  })

  await t.test('a third host waits for a machine', async (t) => {
    await slipway.ok('host', 'order', 'three', '--class', 'metal', '--no-wait')
    t.match(await slipway.json('get', 'host', 'three'), { state: 'HOST_STATE_ORDERED' })
    await slipway.ok('host', 'release', 'three', '--yes', '--wait', '--timeout', '60s')
  })

  await t.test('released, they are wiped, off and available', async (t) => {
    for (const name of ['one', 'two']) await slipway.ok('host', 'release', name, '--yes')
    await Promise.all([reaches(1, 'AVAILABLE'), reaches(2, 'AVAILABLE')])
    for (const machine of lab.machines) {
      t.notOk(machine.isOn)
      t.equal(await machine.countOnDisk(os.secret), 0, 'none of the tenant’s bytes is on the disk')
    }
  })
}
