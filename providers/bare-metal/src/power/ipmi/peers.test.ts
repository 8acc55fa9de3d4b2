import { readFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { bmcFailure } from '../../../testing/bmc/failure.js'
import { listenBmc } from '../../../testing/bmc/fleet.js'
import { startIpmiSim, type IpmiSim } from '../../../testing/bmc/ipmi-sim.js'
import { Ipmitool, type RawAnswer } from '../../../testing/bmc/ipmitool.js'
import { skipWithout } from '../../../testing/bmc/programs.js'
import { simulatedUser } from '../../../testing/bmc/simulated-bmc.js'
import { isBmcError } from '../errors.js'
import { IpmiDriver } from './driver.js'

const { signal } = new AbortController()
const skip = await skipWithout({ ipmitool: 'ipmitool', ipmi_sim: 'openipmi' })

async function sim(t: Test, options: Parameters<typeof startIpmiSim>[0] = {}): Promise<IpmiSim> {
  const started = await startIpmiSim(options)
  t.teardown(() => started.close())
  return started
}

async function ours(driver: IpmiDriver, [netFn, command, ...data]: readonly number[]): Promise<RawAnswer> {
  try {
    const answer = await driver.raw({ netFn: netFn ?? 0, command: command ?? 0, data, what: 'something' }, signal)
    return { code: 0, data: answer }
  } catch (error) {
    if (isBmcError(error) && error.said !== undefined) return { code: Number(error.said), data: Buffer.alloc(0) }
    throw error
  }
}

const byte = fc.nat(255)
const deviceByte = fc.constantFrom(0, 4, 8, 0x14, 0x18)
/** What looks, what changes, and what no BMC knows: net function, command, data. */
const command: fc.Arbitrary<readonly number[]> = fc.oneof(
  fc.constantFrom([0x00, 0x01], [0x00, 0x0f], [0x06, 0x01], [0x06, 0x04], [0x06, 0x37], [0x00, 0x09, 5, 0, 0]),
  fc.tuple(fc.constantFrom(0, 1, 2, 3, 5), fc.constant(0)).map(([control]) => [0x00, 0x02, control]),
  fc
    .tuple(fc.constantFrom(0x80, 0xa0, 0xe0, 0x00), deviceByte)
    .map(([flags, device]) => [0, 8, 5, flags, device, 0, 0, 0]),
  fc.tuple(fc.nat(7), byte).map(([parameter, value]) => [0x00, 0x08, parameter, value]),
  fc.tuple(fc.nat(7)).map(([parameter]) => [0x00, 0x09, parameter, 0, 0]),
  fc.tuple(fc.nat(20)).map(([parameter]) => [0x0c, 0x02, 1, parameter, 0, 0]),
  fc.tuple(fc.integer({ min: 0x70, max: 0xff }), byte).map(([unknown, value]) => [0x00, unknown, value]),
)

void t.test('our client and ipmitool agree on 1,000 random commands', { skip, timeout: 600_000 }, async (t) => {
  const peer = await sim(t)
  // ipmitool asks for an administrator's session, and so do we: with less, some commands are refused before they are looked at.
  const driver = new IpmiDriver({ ...peer.settings, privilege: 'administrator' }, peer.secret)
  t.teardown(() => driver.close())
  const tool = await Ipmitool.start(peer.settings, peer.secret)
  t.teardown(() => tool.close())
  const line = await readFile(`/proc/${tool.pid}/cmdline`, 'utf8')
  t.notMatch(line, peer.secret.password, 'the password is in no argument')
  const seed = Date.now() & 0xffff_ffff
  const commands = fc.sample(fc.tuple(command, fc.boolean()), { numRuns: 1_000, seed })
  const differences: unknown[] = []
  const codes = new Map<number, number>()
  for (const [bytes, weFirst] of commands) {
    const [netFn = 0, number = 0, ...data] = bytes
    const first = weFirst ? await ours(driver, bytes) : undefined
    const theirs = await tool.raw(netFn, number, data)
    const mine = first ?? (await ours(driver, bytes))
    codes.set(mine.code, (codes.get(mine.code) ?? 0) + 1)
    if (mine.code !== theirs.code || !mine.data.equals(theirs.data)) differences.push({ bytes, mine, theirs })
  }
  t.same(differences, [], `seed ${seed}`)
  t.ok((codes.get(0) ?? 0) > 300 && codes.size >= 3, `completion codes: ${JSON.stringify([...codes])}`)
})

void t.test('what one does the other sees', { skip, timeout: 300_000 }, async (t) => {
  const peer = await sim(t)
  const driver = new IpmiDriver(peer.settings, peer.secret)
  t.teardown(() => driver.close())
  const tool = await Ipmitool.start(peer.settings, peer.secret)
  t.teardown(() => tool.close())
  await driver.setPower('on', signal)
  t.match(await tool.run('chassis power status'), /is on/)
  await tool.run('chassis power off')
  t.equal(await driver.readPower(signal), 'off')
  await driver.setBootOnce('network', 'uefi', signal)
  t.match(await tool.run('chassis bootparam get 5'), /Boot Device Selector : Force PXE/)
  await driver.setBootOnce('disk', 'bios', signal)
  t.match(await tool.run('chassis bootparam get 5'), /Boot Device Selector : Force Boot from default Hard-Drive/)
  const facts = await driver.verify(signal)
  t.equal(facts.guid, peer.guid)
  t.match(await tool.run('mc guid'), new RegExp(peer.guid, 'i'))
  t.match(await tool.run('mc info'), `Firmware Revision         : ${facts.firmware}`)
  t.same((await peer.told()).slice(0, 2), ['power 1', 'power 0'])
})

void t.test('ipmi_sim tells wrong logins apart, and so do we', { skip, timeout: 120_000 }, async (t) => {
  const peer = await sim(t)
  const kindOf = async (secret: { username: string; password: string }, changes = {}): Promise<string> => {
    const driver = new IpmiDriver({ ...peer.settings, ...changes }, secret)
    const { kind } = await bmcFailure(driver.setPower('on', signal)).finally(() => driver.close())
    return kind
  }
  t.equal(await kindOf({ ...peer.secret, username: 'nobody' }), 'unknown-user')
  t.equal(await kindOf({ ...peer.secret, password: 'wrong' }), 'wrong-password')
  t.equal(await kindOf(peer.secret, { cipherSuite: 17 }), 'cipher-suite-refused')
  t.same(await peer.told(), [])
})

void t.test('the serial console is followed', { skip, timeout: 120_000 }, async (t) => {
  const sockets = new Set<Socket>()
  const machine = createServer((socket) => sockets.add(socket))
  await new Promise<void>((resolve) => machine.listen(0, '127.0.0.1', resolve))
  const address = machine.address()
  const serialPort = typeof address === 'object' && address !== null ? address.port : 0
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    machine.close()
  })
  const peer = await sim(t, { sol: `tcp:127.0.0.1:${serialPort}` })
  const driver = new IpmiDriver(peer.settings, peer.secret)
  t.teardown(() => driver.close())
  const stop = new AbortController()
  let said = 0
  const talking = setInterval(() => {
    for (const socket of sockets) socket.write(`line ${said} of the console\r\n`)
    if (sockets.size > 0) said += 1
  }, 20)
  let heard = ''
  try {
    for await (const part of driver.openConsole(stop.signal)) {
      heard += Buffer.from(part.bytes).toString()
      if ((heard.match(/of the console/g) ?? []).length >= 20) stop.abort()
    }
  } finally {
    clearInterval(talking)
  }
  const numbers = [...heard.matchAll(/line (\d+) of/g)].map(([, number]) => Number(number))
  t.same(
    numbers,
    numbers.map((_, index) => (numbers[0] ?? 0) + index),
    'in order, and none missing',
  )
  t.equal(await driver.readPower(signal), 'off', 'and other work goes on beside it')
})

for (const cipherSuite of [17, 3] as const) {
  void t.test(
    `ipmitool speaks with our simulated BMC by suite ${cipherSuite}`,
    { skip, timeout: 120_000 },
    async (t) => {
      const listening = await listenBmc({ settings: { cipherSuite }, suites: [cipherSuite] })
      t.teardown(() => listening.close())
      const tool = await Ipmitool.start(listening.settings, listening.secret)
      t.teardown(() => tool.close())
      await tool.run('chassis power on')
      t.equal(listening.bmc.machine.power, 'on')
      t.match(await tool.run('chassis power status'), /is on/)
      await tool.run('chassis bootdev pxe options=efiboot')
      t.same(listening.bmc.machine.bootNext, { device: 'network', uefi: true })
      t.same(await tool.raw(6, 0x37, []), { code: 0, data: listening.bmc.guid })
      t.match(await tool.run('mc info'), /Manufacturer ID\s+: 10876/)
      t.equal(listening.bmc.refusedPackets, 0)
      t.equal(simulatedUser.password, listening.secret.password)
    },
  )
}
