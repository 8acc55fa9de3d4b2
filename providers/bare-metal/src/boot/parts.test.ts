import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { broadcastOf, formatIpv4, isHostOf, isUsableHost, maskOf, parseIpv4, parseNetwork } from './ipv4.js'
import { renderScript, renderWait } from './ipxe-script.js'
import { RogueLog, type RogueEvent } from './rogue-log.js'
import { openSession, sealSession } from './sessions.js'
import { StateFile } from './state-file.js'

void t.test('addresses', (t) => {
  fc.assert(fc.property(fc.nat(0xffffffff), (address) => parseIpv4(formatIpv4(address)) === address))
  for (const text of ['', '1.2.3', '1.2.3.4.5', '256.0.0.1', '01.2.3.4', '1.2.3.4 ', '::1'])
    t.equal(parseIpv4(text), undefined, text)
  const network = parseNetwork('10.1.2.0/24') ?? { address: 0, prefix: 0 }
  t.equal(formatIpv4(maskOf(network)), '255.255.255.0')
  t.equal(formatIpv4(broadcastOf(network)), '10.1.2.255')
  t.same(
    ['10.1.2.0', '10.1.2.1', '10.1.2.254', '10.1.2.255', '10.1.3.1'].map((text) =>
      isHostOf(parseIpv4(text) ?? 0, network),
    ),
    [false, true, true, false, false],
  )
  for (const text of ['10.1.2.1/24', '10.1.2.0/33', '10.1.2.0/31', '10.1.2.0', '10.1.2.0/24/1'])
    t.equal(parseNetwork(text), undefined, text)
  t.same(
    ['0.0.0.1', '127.0.0.1', '224.0.0.1', '10.0.0.1'].map((text) => isUsableHost(parseIpv4(text) ?? 0)),
    [false, false, false, true],
  )
  t.end()
})

void t.test('scripts start a kernel, and nothing else can be put into them', (t) => {
  const plan = {
    kernelUrl: 'http://a/kernel',
    initrdUrls: ['http://a/initrd/0', 'http://a/initrd/1'],
    args: 'quiet',
    title: 'x',
  }
  const script = renderScript(plan)
  t.match(script, /^#!ipxe\n/)
  t.match(script, 'kernel http://a/kernel initrd=initrd0 initrd=initrd1 quiet || goto failed')
  t.match(renderWait('http://a/script', 5), /sleep 5\nchain --replace --autofree http:\/\/a\/script/)
  for (const args of ['a\nreboot', '${net0/mac}', 'ü', '\0'])
    t.throws(() => renderScript({ ...plan, args }), TypeError, JSON.stringify(args))
  t.end()
})

void t.test('sessions are sealed', (t) => {
  const key = randomBytes(32)
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 12, maxLength: 12 }),
      fc.nat(80),
      fc.integer({ min: 1, max: 255 }),
      (id, at, change) => {
        const bootId = Buffer.from(id).toString('hex')
        const secret = sealSession(key, bootId)
        const bytes = Buffer.from(secret)
        bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ change
        return openSession(key, secret) === bootId && openSession(key, bytes.toString('latin1')) === undefined
      },
    ),
  )
  t.equal(openSession(randomBytes(32), sealSession(key, 'abc')), undefined, 'another key')
  t.end()
})

void t.test('events do not flood anybody', (t) => {
  const told: RogueEvent[] = []
  const log = new RogueLog((event) => told.push(event))
  for (let n = 0; n < 1_000; n += 1) log.note('spoofed-mac', 'a', 'x', n)
  t.equal(told.length, 1)
  log.note('spoofed-mac', 'a', 'x', 61_000)
  t.match(told, [{ suppressed: 0 }, { suppressed: 999 }])
  for (let n = 0; n < 10_000; n += 1) log.note('spoofed-mac', `mac ${n}`, 'x', 130_000 + n)
  t.equal(told.length, 32, 'of so many subjects only so many a minute')
  t.equal(log.total, 11_001)
  t.ok(log.recent.length <= 200)
  t.end()
})

void t.test('a file of state is as it was, or as it is to be', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-state-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const file = new StateFile<{ n: number }>(join(folder, 'deep', 'state.json'))
  const parse = (value: unknown): { n: number } => {
    if (typeof (value as { n: unknown }).n !== 'number') throw new Error('no')
    return value as { n: number }
  }
  t.equal(await file.read(parse), undefined, 'nothing is there yet')
  let n = 0
  await Promise.all(Array.from({ length: 50 }, () => file.write(() => ({ n: (n += 1) }))))
  t.ok(n < 10, `50 writes at once were ${n}`)
  t.same(await file.read(parse), { n })
  t.same(readdirSync(join(folder, 'deep')), ['state.json'], 'no drafts are left')
  writeFileSync(file.path, '{"n":')
  t.equal(await file.read(parse), undefined, 'what is damaged counts as lost')
  await file.write(() => ({ n: 1 }))
  t.equal(readFileSync(file.path, 'utf8'), '{"n":1}')
})
