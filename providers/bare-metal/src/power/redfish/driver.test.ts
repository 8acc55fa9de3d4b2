import t, { type Test } from 'tap'
import { bmcFailure } from '../../../testing/bmc/failure.js'
import { RedfishEmulator, type RedfishQuirks } from '../../../testing/bmc/redfish-emulator.js'
import type { BmcSecret, RedfishSettings } from '../settings.js'
import { RedfishDriver } from './driver.js'

const { signal } = new AbortController()

async function scene(
  t: Test,
  quirks: RedfishQuirks = {},
  changes: Partial<RedfishSettings> = {},
  secret: Partial<BmcSecret> = {},
): Promise<{ emulator: RedfishEmulator; driver: RedfishDriver }> {
  const emulator = await RedfishEmulator.start(quirks)
  const driver = new RedfishDriver({ ...emulator.settings, ...changes }, { ...emulator.secret, ...secret })
  t.teardown(async () => {
    await driver.close()
    await emulator.close()
  })
  return { emulator, driver }
}

const kinds: readonly (readonly [string, RedfishQuirks])[] = [
  ['as the standard has it', {}],
  ['without sessions', { basicOnly: true }],
  ['that wants ETags', { wantsEtag: true }],
  ['with pending settings', { pendingSettings: true }],
  ['that makes tasks', { tasks: true }],
  ['with an ActionInfo', { actionInfo: true }],
  ['with virtual media of old', { oldMedia: true }],
]

for (const [name, quirks] of kinds) {
  void t.test(`a BMC ${name}`, async (t) => {
    const { emulator, driver } = await scene(t, quirks)
    t.equal(await driver.readPower(signal), 'off')
    await driver.setBootOnce('network', 'uefi', signal)
    t.match(emulator.boot, {
      BootSourceOverrideEnabled: 'Once',
      BootSourceOverrideTarget: 'Pxe',
      BootSourceOverrideMode: 'UEFI',
    })
    await driver.setPower('on', signal)
    await driver.setPower('on', signal)
    t.equal(await driver.readPower(signal), 'on')
    t.same(emulator.machine.boots, [{ device: 'network', uefi: true }])
    await driver.setBootOnce('disk', 'bios', signal)
    await driver.setPower('cycle', signal)
    await driver.setPower('reset', signal)
    await driver.setPower('soft-off', signal)
    t.same(emulator.machine.asked, ['boot network', 'on', 'boot disk', 'cycle', 'reset', 'soft-off'])
    t.match(await driver.verify(signal), {
      kind: 'redfish',
      vendor: 'Emulated',
      model: 'Odd One',
      serial: 'S-1',
      firmware: '2.31',
      guid: '11111111-2222-4333-8444-555555555555',
      address: '10.0.0.5',
      mac: '52:54:00:aa:00:01',
      power: 'off',
    })
    await driver.insertMedia('https://boot.example/agent.iso', signal)
    t.equal(emulator.image, 'https://boot.example/agent.iso')
    t.equal(emulator.boot['BootSourceOverrideTarget'], 'Cd')
    await driver.insertMedia('https://boot.example/other.iso', signal)
    t.equal(emulator.image, 'https://boot.example/other.iso')
    await driver.ejectMedia(signal)
    t.equal(emulator.image, null)
  })
}

void t.test('one session is made, made anew when it was forgotten, and ended', async (t) => {
  const { emulator, driver } = await scene(t)
  const logins = (): number =>
    emulator.calls.filter((call) => call === 'POST /redfish/v1/SessionService/Sessions').length
  await driver.readPower(signal)
  await driver.setPower('on', signal)
  t.equal(logins(), 1)
  emulator.tokens.clear()
  t.equal(await driver.readPower(signal), 'on')
  t.equal(logins(), 2)
  t.equal(emulator.tokens.size, 1)
  await driver.close()
  t.equal(emulator.tokens.size, 0)
})

void t.test('where somebody else changed the system in between, it is looked at and changed again', async (t) => {
  const { emulator, driver } = await scene(t, { wantsEtag: true })
  emulator.interfere = true
  await driver.setBootOnce('network', 'bios', signal)
  t.equal(emulator.interfere, false)
  t.equal(emulator.calls.filter((call) => call.startsWith('PATCH')).length, 2)
  t.match(emulator.boot, { BootSourceOverrideTarget: 'Pxe' })
})

void t.test('a boot device that the BMC forgets is found out', async (t) => {
  const { emulator, driver } = await scene(t)
  emulator.machine.faults.ignoresBoot = true
  t.match(await bmcFailure(driver.setBootOnce('network', 'bios', signal)), { kind: 'ignored' })
})

void t.test('who answers is checked before anything is sent', async (t) => {
  const other = '00'.repeat(32)
  const pinned = await scene(t, {}, { tls: { fingerprint: other } })
  const failure = await bmcFailure(pinned.driver.readPower(signal))
  t.match(failure, { kind: 'tls-identity', retryable: true })
  t.match(failure.message, pinned.emulator.settings.tls.fingerprint ?? 'x', 'and says whose it is')
  t.same(pinned.emulator.calls, [])
  const unknown = await scene(t, {}, { tls: {} })
  t.match(await bmcFailure(unknown.driver.readPower(signal)), { kind: 'tls-identity' })
  t.same(unknown.emulator.calls, [])
  const emulator = await RedfishEmulator.start()
  const byAuthority = new RedfishDriver({ ...emulator.settings, tls: { ca: emulator.authority } }, emulator.secret)
  t.equal(await byAuthority.readPower(signal), 'off')
  await byAuthority.close()
  await emulator.close()
})

void t.test('refusals are told apart', async (t) => {
  const fails = async (quirks: RedfishQuirks, changes = {}, secret = {}): Promise<unknown> => {
    const { driver } = await scene(t, quirks, changes, secret)
    return bmcFailure(driver.setPower('on', signal))
  }
  t.match(await fails({}, {}, { password: 'do-not-print' }), {
    kind: 'wrong-password',
    message: /wrong user or password/,
  })
  t.match(await fails({ basicOnly: true }, {}, { password: 'do-not-print' }), { kind: 'wrong-password' })
  t.match(await fails({ always: { status: 403 } }), { kind: 'privilege' })
  t.match(await fails({ always: { status: 503, headers: { 'retry-after': '7' } } }), {
    kind: 'busy',
    retryAfterMs: 7_000,
  })
  t.match(await fails({ always: { status: 500, body: '<html>' } }), { kind: 'refused', said: '500' })
  t.match(await fails({ always: { status: 200, body: '<html>' } }), { kind: 'protocol' })
  t.match(await fails({ always: { status: 302, headers: { location: 'https://evil.example/' } } }), {
    kind: 'protocol',
  })
  t.match(await fails({ resetTypes: ['ForceOff'] }), { kind: 'unsupported', message: /knows ForceOff/ })
  t.match(await fails({ systems: 2 }), { kind: 'unsupported', message: /one, other-1; give as system/ })
  t.match(await fails({}, { system: 'nine' }), { kind: 'unsupported', message: /none is called nine/ })
  const { driver } = await scene(t, { systems: 2 }, { system: 'one' })
  await driver.setPower('on', signal)
  t.notMatch(JSON.stringify(await fails({}, {}, { password: 'do-not-print' })), 'do-not-print')
})

void t.test('a task that fails is a failure', async (t) => {
  const { emulator, driver } = await scene(t, { tasks: true })
  emulator.machine.faults.ignoresPower = true
  t.match(await bmcFailure(driver.setPower('on', signal)), { kind: 'refused', message: /Exception: it burnt/ })
})

void t.test('nobody there, and nobody who answers in time', async (t) => {
  const { emulator, driver } = await scene(t)
  await emulator.close()
  t.match(await bmcFailure(driver.readPower(signal)), { kind: 'unreachable', inDoubt: false, said: 'ECONNREFUSED' })
  const forbidden = new RedfishDriver({ ...emulator.settings, endpoint: 'https://169.254.169.254' }, emulator.secret)
  t.match(await bmcFailure(forbidden.readPower(signal)), { kind: 'address-forbidden' })
  await forbidden.close()
})
