import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { bmcFailure } from '../../../testing/bmc/failure.js'
import { skipWithout } from '../../../testing/bmc/programs.js'
import { RedfishEmulator } from '../../../testing/bmc/redfish-emulator.js'
import { runSushyClient, startSushyEmulator, sushyTools } from '../../../testing/bmc/sushy-emulator.js'
import { createPowerSupervisor } from '../supervisor.js'
import { RedfishDriver } from './driver.js'

const { signal } = new AbortController()

async function skipWithoutSushy(): Promise<string | false> {
  const missing = await skipWithout({ python3: 'python3-venv' })
  if (missing !== false) return missing
  try {
    await sushyTools()
    return false
  } catch (error) {
    if (process.env['CI'] === 'true') throw error
    return `needs sushy-tools from PyPI, or a folder with it in SLIPWAY_SUSHY_DIR (and the package python3-venv): ${String(error)}`
  }
}

const skip = await skipWithoutSushy()

void t.test("sushy-tools' emulator is taken in hand", { skip, timeout: 500_000 }, async (t) => {
  const peer = await startSushyEmulator()
  t.teardown(() => peer.close())
  const driver = new RedfishDriver(peer.settings, peer.secret)
  t.teardown(() => driver.close())
  t.match(await driver.verify(signal), { kind: 'redfish', power: 'off', guid: '27946b59-9e44-4fa7-8e91-f3527a1ef094' })
  await driver.setBootOnce('network', 'uefi', signal)
  await driver.setBootOnce('disk', 'bios', signal)
  const wrong = new RedfishDriver(peer.settings, { ...peer.secret, password: 'wrong' })
  t.match(await bmcFailure(wrong.readPower(signal)), { kind: 'wrong-password' })
  await wrong.close()
  const stranger = new RedfishDriver({ ...peer.settings, tls: { fingerprint: 'ab'.repeat(32) } }, peer.secret)
  t.match(await bmcFailure(stranger.readPower(signal)), { kind: 'tls-identity' })
  await stranger.close()
})

void t.test('its power, which changes late, is read back until it has', { skip, timeout: 500_000 }, async (t) => {
  const peer = await startSushyEmulator()
  t.teardown(() => peer.close())
  const supervisor = createPowerSupervisor()
  t.teardown(() => supervisor.stop())
  supervisor.add({ id: 'fake', settings: peer.settings, secret: peer.secret })
  await supervisor.switchPower('fake', 'on', signal)
  t.equal(await supervisor.readPower('fake', signal), 'on')
  await supervisor.switchPower('fake', 'reboot', signal)
  await supervisor.switchPower('fake', 'soft-off', signal)
  t.equal(await supervisor.readPower('fake', signal), 'off')
})

void t.test('its virtual media takes a boot image', { skip, timeout: 500_000 }, async (t) => {
  const peer = await startSushyEmulator()
  t.teardown(() => peer.close())
  const driver = new RedfishDriver(peer.settings, peer.secret)
  t.teardown(() => driver.close())
  await driver.ejectMedia(signal)
  // It fetches what is inserted, and says what became of that.
  t.match(await bmcFailure(driver.insertMedia('http://127.0.0.1:1/none.iso', signal)), { kind: 'refused' })
})

void t.test("OpenStack's client takes our own emulator for a BMC", { skip, timeout: 300_000 }, async (t) => {
  const emulator = await RedfishEmulator.start()
  const folder = await mkdtemp(join(tmpdir(), 'slipway-redfish-'))
  t.teardown(async () => {
    await emulator.close()
    await rm(folder, { recursive: true, force: true })
  })
  const authorityFile = join(folder, 'authority.pem')
  await writeFile(authorityFile, emulator.authority)
  t.same(await runSushyClient(emulator.settings.endpoint, authorityFile, emulator.secret), {
    uuid: '11111111-2222-4333-8444-555555555555',
    manufacturer: 'Emulated',
    power: ['Off', 'On', 'Off'],
    allowed: ['ForceOff', 'ForceRestart', 'GracefulShutdown', 'On', 'PowerCycle'],
    boot: ['Pxe', 'Once', 'UEFI'],
    firmware: '2.31',
    image: 'https://boot.example/agent.iso',
    inserted: false,
  })
  t.same(emulator.machine.boots, [{ device: 'network', uefi: true }])
})
