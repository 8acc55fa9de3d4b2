import t from 'tap'
import { bmcFailure } from '../../testing/bmc/failure.js'
import { createBmcDriver } from './create-driver.js'
import type { PowerState, PowerWitness } from './driver.js'
import { bmcSettingsSchema } from './settings.js'
import { createPowerSupervisor } from './supervisor.js'

const { signal } = new AbortController()
const secret = { username: '', password: '' }

class Person implements PowerWitness {
  said: PowerState = 'unknown'
  chosen: ReturnType<PowerWitness['bootOnce']>

  power(): PowerState {
    return this.said
  }

  bootOnce(): ReturnType<PowerWitness['bootOnce']> {
    return this.chosen
  }
}

void t.test('a person is asked, and is waited for', async (t) => {
  const person = new Person()
  const settings = bmcSettingsSchema.parse({ kind: 'manual', instructions: 'rack 4, the third from below' })
  const driver = createBmcDriver(settings, secret, { name: 'machine-7', witness: person })
  t.equal(await driver.readPower(signal), 'unknown')
  const asked = await bmcFailure(driver.setPower('on', signal))
  t.match(asked, {
    kind: 'needs-person',
    message: 'Please switch machine-7 on: rack 4, the third from below',
    retryable: true,
    externalCode: 'bmc/needs-person',
  })
  person.said = 'on'
  await driver.setPower('on', signal)
  t.match(await bmcFailure(driver.setPower('soft-off', signal)), { message: /switch machine-7 off/ })
  t.match(await bmcFailure(driver.setPower('cycle', signal)), { kind: 'unsupported' })
  const boot = await bmcFailure(driver.setBootOnce('network', 'uefi', signal))
  t.match(boot, { kind: 'needs-person', message: /start from the network \(UEFI\)/ })
  person.chosen = { device: 'network', mode: 'uefi' }
  await driver.setBootOnce('network', 'uefi', signal)
  t.match(await driver.verify(signal), { kind: 'manual', power: 'on' })
  await driver.close()
})

void t.test('a machine that always tries the network needs nobody for that', async (t) => {
  const driver = createBmcDriver(bmcSettingsSchema.parse({ kind: 'manual', alwaysNetwork: true }), secret)
  await driver.setBootOnce('network', 'bios', signal)
  t.equal('openConsole' in driver, false)
})

void t.test('that a person has not come yet is no sickness', async (t) => {
  const person = new Person()
  const supervisor = createPowerSupervisor()
  const settings = bmcSettingsSchema.parse({ kind: 'manual' })
  supervisor.add({ id: 'machine-7', settings, secret, witness: person })
  person.said = 'off'
  const events: string[] = []
  supervisor.onEvent(({ kind }) => events.push(kind))
  t.match(await bmcFailure(supervisor.switchPower('machine-7', 'on', signal)), { kind: 'needs-person' })
  person.said = 'on'
  await supervisor.switchPower('machine-7', 'on', signal)
  t.match(supervisor.view('machine-7'), { power: 'on' })
  t.same(events, [])
  await supervisor.stop()
})
