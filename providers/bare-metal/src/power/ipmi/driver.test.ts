import { networkInterfaces } from 'node:os'
import t, { type Test } from 'tap'
import { bmcFailure } from '../../../testing/bmc/failure.js'
import { listenBmc, LossyNetwork, simulatedSecret, type ListenOptions } from '../../../testing/bmc/fleet.js'
import { simulatedUser } from '../../../testing/bmc/simulated-bmc.js'
import { IpmiDriver } from './driver.js'
import { pingBmc } from './session.js'
import { UdpPort } from './udp-port.js'

type Listening = Awaited<ReturnType<typeof listenBmc>>
const { signal } = new AbortController()

async function scene(t: Test, options: ListenOptions = {}): Promise<Listening & { readonly driver: IpmiDriver }> {
  const listening = await listenBmc(options)
  const driver = new IpmiDriver(listening.settings, listening.secret)
  t.teardown(async () => {
    await driver.close()
    await listening.close()
  })
  return { ...listening, driver }
}

for (const cipherSuite of [17, 3] as const) {
  void t.test(`power, boot device and facts with cipher suite ${cipherSuite}`, async (t) => {
    const { driver, bmc } = await scene(t, { settings: { cipherSuite }, suites: [cipherSuite] })
    t.equal(await driver.readPower(signal), 'off')
    await driver.setBootOnce('network', 'uefi', signal)
    t.same(bmc.machine.bootNext, { device: 'network', uefi: true })
    await driver.setPower('on', signal)
    t.equal(await driver.readPower(signal), 'on')
    t.same(bmc.machine.boots, [{ device: 'network', uefi: true }])
    await driver.setBootOnce('disk', 'bios', signal)
    await driver.setPower('cycle', signal)
    await driver.setPower('reset', signal)
    await driver.setPower('soft-off', signal)
    t.equal(await driver.readPower(signal), 'off')
    t.same(bmc.machine.asked, ['boot network', 'on', 'boot disk', 'cycle', 'reset', 'soft-off'])
    const facts = await driver.verify(signal)
    t.match(facts, { kind: 'ipmi', vendor: 'Supermicro', firmware: '2.07', address: '127.0.0.1', power: 'off' })
    t.match(facts.guid, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
    t.equal(facts.mac, '52:54:00:88:00:01')
  })
}

const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === '::1'))

void t.test('a BMC at an IPv6 address', { skip: !hasIpv6 && 'this host has no IPv6' }, async (t) => {
  const { driver, settings, secret } = await scene(t, { address: '::1' })
  t.equal(await driver.readPower(signal), 'off')
  const spelled = new IpmiDriver({ ...settings, address: '0:0:0:0:0:0:0:1' }, secret)
  t.equal(await spelled.readPower(signal), 'off', 'however it is spelled')
  await spelled.close()
})

void t.test('why a login fails is told apart', async (t) => {
  const fails = async (options: ListenOptions, secret = {}): Promise<{ kind: string; message: string }> => {
    const listening = await listenBmc(options)
    const driver = new IpmiDriver(listening.settings, { ...simulatedSecret, ...secret })
    try {
      return await bmcFailure(driver.verify(signal))
    } finally {
      await driver.close()
      await listening.close()
    }
  }
  const bmcKey = Buffer.from('0102030405')
  const short = { settings: { tries: 2, timeoutMs: 50 } }
  t.match(await fails({}, { username: 'nobody' }), { kind: 'unknown-user', message: /"nobody".*no such user/ })
  t.match(await fails({}, { password: 'wrong' }), { kind: 'wrong-password', code: 'UNAVAILABLE' })
  t.match(await fails({ hidesUsers: true }, { username: 'nobody' }), { kind: 'wrong-password' })
  t.match(await fails({ suites: [3] }), { kind: 'cipher-suite-refused', message: /suite 17/, said: '0x11' })
  t.match(await fails({ users: [{ ...simulatedUser, privilege: 2 }] }), { kind: 'privilege' })
  t.match(await fails({ maxSessions: 0 }), { kind: 'sessions-exhausted' })
  t.match(await fails({ old: true }), { kind: 'unsupported', message: /1\.5/ })
  t.match(await fails({ bmcKey }), { kind: 'wrong-password', message: /K_G/ })
  t.match(await fails({ bmcKey }, { bmcKey: 'ffff' }), { kind: 'wrong-password', message: /another BMC key/ })
  t.match(await fails({}, { password: 'x'.repeat(21) }), { kind: 'wrong-password', message: /21 bytes/ })
  t.match(await fails({}, { username: 'x'.repeat(17) }), { kind: 'unknown-user', message: /16 bytes/ })
  t.match(await fails({ ...short, network: new LossyNetwork({ loss: 1 }) }), { kind: 'unreachable', inDoubt: false })
  const failure = await fails({}, { password: 'do-not-print' })
  t.notMatch(JSON.stringify(failure) + failure.message, 'do-not-print')
})

void t.test('a BMC key of its own is used', async (t) => {
  const bmcKey = Buffer.from('00112233445566778899aabbccddeeff00112233', 'hex')
  const listening = await listenBmc({ bmcKey })
  const driver = new IpmiDriver(listening.settings, { ...listening.secret, bmcKey: bmcKey.toString('hex') })
  t.equal(await driver.readPower(signal), 'off')
  await driver.close()
  await listening.close()
})

void t.test('a third of all packets lost, and many that come twice', async (t) => {
  const network = new LossyNetwork({ loss: 0.33, seed: 7 })
  network.doubled = 0.3
  const { driver, bmc } = await scene(t, { network, settings: { timeoutMs: 40, tries: 20 } })
  for (let round = 0; round < 15; round += 1) {
    await driver.setPower(round % 2 === 0 ? 'on' : 'off', signal)
    t.equal(await driver.readPower(signal), round % 2 === 0 ? 'on' : 'off')
  }
  t.ok(network.lost > 20, `${network.lost} packets were lost`)
  t.equal(bmc.machine.power, 'on')
})

void t.test('what is not the same when done twice is sent once, and is in doubt without an answer', async (t) => {
  const network = new LossyNetwork()
  const { driver, bmc } = await scene(t, { network, settings: { timeoutMs: 30, tries: 3 } })
  await driver.setPower('on', signal)
  const deaf = bmc.receive.bind(bmc)
  bmc.receive = (packet) => {
    deaf(packet)
    return undefined
  }
  const failure = await bmcFailure(driver.setPower('cycle', signal))
  t.match(failure, { kind: 'unreachable', code: 'TIMEOUT', inDoubt: true })
  t.same(bmc.machine.asked.filter((act) => act === 'cycle').length, 1)
})

void t.test('a BMC that is slower than our patience is waited for in the end', async (t) => {
  const { driver, bmc } = await scene(t, { delayMs: 120, settings: { timeoutMs: 50, tries: 8 } })
  await driver.setPower('on', signal)
  t.equal(await driver.readPower(signal), 'on')
  t.equal(bmc.machine.asked[0], 'on')
})

void t.test('a BMC that was restarted is logged in to anew', async (t) => {
  const { driver, bmc } = await scene(t, { settings: { timeoutMs: 100, tries: 4 } })
  await driver.setPower('on', signal)
  bmc.sessions.forgetAll()
  t.equal(await driver.readPower(signal), 'on')
  t.equal(bmc.sessions.open, 1)
})

void t.test('a busy BMC is asked again', async (t) => {
  const { driver, bmc } = await scene(t)
  await driver.readPower(signal)
  bmc.busyTimes = 2
  t.equal(await driver.readPower(signal), 'off')
  bmc.busyTimes = 100
  t.match(await bmcFailure(driver.readPower(signal)), { kind: 'busy', said: '0xc0' })
})

void t.test('boot devices that the BMC forgets are found out', async (t) => {
  const { driver, bmc } = await scene(t)
  bmc.machine.faults.ignoresBoot = true
  t.match(await bmcFailure(driver.setBootOnce('network', 'bios', signal)), { kind: 'ignored' })
})

void t.test('calls wait for each other, and give up when told to', async (t) => {
  const { driver, bmc } = await scene(t)
  const powers = await Promise.all(Array.from({ length: 20 }, () => driver.readPower(signal)))
  t.same(new Set(powers), new Set(['off']))
  t.equal(bmc.sessions.open, 1)
  bmc.silent = true
  const given = AbortSignal.timeout(30)
  const [first, second] = await Promise.allSettled([driver.readPower(given), driver.setPower('on', given)])
  t.match(first, { status: 'rejected', reason: { name: 'TimeoutError' } })
  t.match(second, { status: 'rejected', reason: { name: 'TimeoutError' } })
  t.same(bmc.machine.asked, [])
})

void t.test('closing logs out', async (t) => {
  const { driver, bmc } = await scene(t)
  await driver.readPower(signal)
  t.equal(bmc.sessions.open, 1)
  await driver.close()
  t.equal(bmc.sessions.open, 0)
  t.match(await bmcFailure(driver.readPower(signal)), { kind: 'unreachable' })
})

void t.test('a replayed power command has no effect', async (t) => {
  const { driver, bmc } = await scene(t)
  await driver.setPower('on', signal)
  const captured = bmc.lastTaken ?? Buffer.alloc(0)
  await driver.setPower('off', signal)
  t.equal(bmc.receive(captured), undefined)
  t.equal(bmc.receive(Buffer.from(captured.map((byte, index) => (index === 20 ? byte ^ 1 : byte)))), undefined)
  t.equal(bmc.refusedPackets, 2)
  t.equal(bmc.machine.power, 'off')
})

void t.test('forged, replayed and cut answers are refused, and the true one is waited for', async (t) => {
  const { driver, bmc, port } = await scene(t)
  await driver.setPower('on', signal)
  const honest = bmc.receive.bind(bmc)
  const answers: Buffer[] = []
  let attacks = 0
  bmc.receive = (packet) => {
    const answer = honest(packet)
    if (answer === undefined) return undefined
    answers.push(answer)
    const forged = Buffer.from(answer)
    forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 0x80
    const wrongs = [forged, answer.subarray(0, -4), Buffer.concat([answer, Buffer.from([0])]), ...answers.slice(0, -1)]
    attacks += 1
    // Each request is answered by one kind of attack at first, and honestly only when it is repeated.
    return attacks % 2 === 1 ? wrongs[Math.floor(attacks / 2) % wrongs.length] : answer
  }
  for (let round = 0; round < 12; round += 1) t.equal(await driver.readPower(signal), 'on')
  t.ok(attacks >= 24, `${attacks} answers`)
  t.ok(port > 0)
})

void t.test('a presence ping needs no login', async (t) => {
  const listening = await listenBmc()
  const udpPort = new UdpPort({ sockets: 1 })
  const at = { ip: '127.0.0.1', family: 4, port: listening.port } as const
  t.equal(await pingBmc(udpPort, at, { timeoutMs: 500, tries: 3 }, signal), true)
  listening.bmc.silent = true
  t.match(await bmcFailure(pingBmc(udpPort, at, { timeoutMs: 20, tries: 2 }, signal)), { kind: 'unreachable' })
  await udpPort.close()
  await listening.close()
})
