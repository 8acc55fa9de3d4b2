import { readFileSync } from 'node:fs'
import t from 'tap'
import { until } from '../tools/processes.js'
import { Lab } from './lab.js'
import { whySkipped } from './places.js'

// The provider is killed once in each stage of a machine's life, and comes back: all goes on from where it was.

const minutes = 60_000

t.setTimeout(60 * minutes)

void t.test('the provider is killed in each stage', { skip: whySkipped(), timeout: 60 * minutes }, async (t) => {
  const lab = await Lab.start(t, [{ firmware: 'bios', disk: 'virtio' }])
  const { slipway, os } = lab
  const [machine] = lab.machines
  const [bmc] = lab.bmcs
  if (machine === undefined || bmc === undefined) throw new Error('the lab has a machine')
  const provider = await lab.startProvider([1])
  const found = await until('the machine', () => lab.machine(1))
  const state = async () => (await lab.machine(1))?.state.replace('MACHINE_STATE_', '') ?? 'unknown'
  /** What the machine's console has said since a mark. */
  let mark = 0
  const said = (pattern: RegExp) => pattern.test(machine.console().slice(mark))
  const killAt = async (stage: string, reached: () => boolean | Promise<boolean>) => {
    await until(stage, reached, 10 * minutes)
    await provider.end('SIGKILL')
    t.comment(`killed: ${stage}`)
    provider.start()
  }
  const told = (what: string) => bmc.told.filter((each) => each === what).length

  await slipway.ok('machine', 'accept', found.name.replace('machines/', ''))
  await killAt('verifying, or what follows it', async () => (await state()) !== 'DISCOVERED')
  await killAt('the machine being powered for its inspection', () => told('power 1') === 1)
  await killAt('the agent running', () => said(/agent: the provider knows me/))
  await killAt('the wipe having been ordered', () => said(/agent: ordered to wipe/))
  await killAt('the wipe being done', () => said(/agent: wipe: done/))
  await until('the machine to be available', async () => (await state()) === 'AVAILABLE', 10 * minutes)
  t.notOk(machine.isOn)

  mark = machine.console().length
  const powered = told('power 1')
  await slipway.ok('host', 'order', 'web', '--class', 'metal', '--no-wait')
  await killAt('the machine being powered for its installation', () => told('power 1') > powered)
  await killAt('the agent running again', () => said(/agent: the provider knows me/))
  await killAt('the installation having been ordered', () => said(/agent: ordered to install/))
  await killAt('the installation being done', () => said(/agent: install: done/))
  await killAt('the system having started', () => said(/TENANT started from disk/))
  await slipway.ok('wait', 'host/web', '--for', 'ready', '--timeout', '900s')
  t.equal(machine.console().slice(mark).split('TENANT started').length - 1 >= 1, true)
  t.ok((await machine.countOnDisk(os.secret)) > 1000)

  mark = machine.console().length
  const offs = told('power 0')
  await slipway.ok('host', 'release', 'web', '--yes')
  await killAt('the power being taken away', () => told('power 0') > offs)
  await killAt('the agent being ordered to wipe', () => said(/agent: ordered to wipe/))
  await until('the machine to be available again', async () => (await state()) === 'AVAILABLE', 10 * minutes)
  t.notOk(machine.isOn)
  t.equal(await machine.countOnDisk(os.secret), 0, 'none of the tenant’s bytes is on the disk')
  t.notMatch(readFileSync(provider.logFile, 'utf8'), new RegExp(bmc.password), 'no log line tells a password')
})
