import { connect } from 'node:net'
import { once } from 'node:events'
import t from 'tap'
import { agentPaths, agentVersion } from '../src/agent/protocol.js'
import { TestItem } from '../testing/item.js'
import { machineEntry, Scene, targetOf, until } from '../testing/scene.js'
import { argumentsOf } from '../testing/sim-machine.js'

const tries = 1_000

/** A request exactly as it is written: fetch would tidy the path up. */
async function raw(endpoint: string, line: string): Promise<string> {
  const { hostname, port } = new URL(endpoint)
  const socket = connect(Number(port), hostname)
  socket.write(`${line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n`)
  let text = ''
  socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  await once(socket, 'close')
  return text
}

void t.test('whoever has no business here gets nothing', async (t) => {
  const scene = new Scene(t)
  const machine = scene.machine('m1')
  const provider = await scene.start({
    machines: [machineEntry(machine, { uuid: machine.uuid })],
    discovery: { enabled: false },
    // However long the tries take, its agent is waited for.
    timeouts: { bootMs: 3_600_000, silenceMs: 3_600_000 },
  })
  const [endpoint = ''] = scene.endpoints
  const { rogues } = provider.site.boot
  const kinds = (): readonly string[] => [...new Set(rogues.recent.map(({ kind }) => kind))].sort()

  await t.test('outside of its window', async (t) => {
    for (let n = 0; n < tries; n += 1) {
      const answer = await fetch(`${endpoint}/boot/script?mac=${machine.mac}&uuid=${machine.uuid}`)
      if (answer.status !== 403 || (await answer.text()).includes('ipxe')) t.fail(`try ${n}: ${answer.status}`)
    }
    t.equal(rogues.total, tries)
    t.equal(rogues.recent.length, 1, 'and one event tells of it')
  })

  const item = new TestItem('machines', 'clean').begin('clean')
  const held = provider.claim(item)
  // Its window is open, and the machine itself never comes.
  scene.endpoints = []
  const cleaning = provider.definition.clean(held.context(), targetOf(item, 'm1')).catch((error: unknown) => error)
  const window = () => provider.site.boot.boots.windowOf('m1', Date.now())
  await until('the window', () => window() !== undefined)

  await t.test('under the MAC of another', async (t) => {
    const before = rogues.total
    for (let n = 0; n < tries; n += 1) {
      const uuid = `00000000-0000-4000-8000-${String(n + 1).padStart(12, '0')}`
      const answer = await fetch(`${endpoint}/boot/script?mac=${machine.mac}&uuid=${uuid}`)
      if (answer.status !== 403) t.fail(`try ${n}: ${answer.status}`)
      await answer.arrayBuffer()
    }
    t.equal(rogues.total - before, tries)
    t.ok(kinds().includes('spoofed-mac'))
  })

  await t.test('with a token that was used, guessed, or is somebody else’s', async (t) => {
    const script = await (await fetch(`${endpoint}/boot/script?mac=${machine.mac}&uuid=${machine.uuid}`)).text()
    const token = argumentsOf(script)?.get('slipway.token') ?? ''
    t.match(token, /^2\./, 'the token names the operation’s generation')
    const session = (body: object) =>
      fetch(`${endpoint}${agentPaths.session}`, {
        method: 'POST',
        body: JSON.stringify({ version: agentVersion, ...body }),
      })
    t.equal((await session({ token, bootMac: '52:54:00:ff:ff:ff' })).status, 403, 'another MAC')
    t.equal((await session({ token, uuid: '00000000-0000-4000-8000-000000000001' })).status, 403, 'another UUID')
    const first = await session({ token, bootMac: machine.mac, uuid: machine.uuid })
    t.equal(first.status, 200)
    const { session: secret } = (await first.json()) as { session: string }
    const later = await (await fetch(`${endpoint}/boot/script?mac=${machine.mac}&uuid=${machine.uuid}`)).text()
    t.match(later, /sleep/, 'while its agent is at work nobody gets a second token')
    t.notMatch(later, /token/)
    for (let n = 0; n < tries; n += 1) {
      const answer = await session({ token: n % 2 === 0 ? token : `2.${'A'.repeat(42)}${n}`, bootMac: machine.mac })
      if (answer.status !== 403) t.fail(`try ${n}: ${answer.status}`)
      await answer.arrayBuffer()
    }
    t.ok(kinds().includes('replayed-token'))
    t.ok(kinds().includes('unknown-token'))
    for (const forged of ['', 'v1.x.y', `${secret}x`, secret.replace(/^v1\.../, 'v1.00')]) {
      const answer = await fetch(`${endpoint}${agentPaths.order}`, { headers: { authorization: `Bearer ${forged}` } })
      t.equal(answer.status, 401, `the session ${forged.slice(0, 8)}…`)
    }
    const good = await fetch(`${endpoint}${agentPaths.order}`, { headers: { authorization: `Bearer ${secret}` } })
    t.equal(good.status, 200)
  })

  await t.test('by tricks with paths', async (t) => {
    const paths = [
      '/boot/ipxe/../../etc/passwd',
      '/boot/ipxe/..%2f..%2fetc%2fpasswd',
      '//etc/passwd',
      '/boot/t/x/kernel/../../../../etc/passwd',
      '/boot/t/%00/kernel',
      '/boot/ipxe/%2e%2e/x',
      '/boot\\..\\x',
      '/../../../state/boots.json',
      '/boot/ipxe/toString',
      '/boot/ipxe/__proto__',
      '/agent/v1/images/../../etc/passwd',
      '/agent/v1/order/../session/confirm',
      'http://other/boot/script?mac=x',
    ]
    for (let n = 0; n < tries; n += 1) {
      const answer = await raw(endpoint, `GET ${paths[n % paths.length] ?? ''}`)
      if (!/^HTTP\/1\.1 (4\d\d) /.test(answer) || answer.includes('root:'))
        t.fail(`${paths[n % paths.length]}: ${answer.slice(0, 80)}`)
    }
    t.ok(kinds().includes('path-trick'))
    t.match(await raw(endpoint, 'GET /boot/ipxe/undionly.kpxe'), /200 OK[\s\S]*stands for undionly/)
    t.match(await raw(endpoint, 'DELETE /boot/ipxe/undionly.kpxe'), / 404 /)
  })

  await t.test('by saying too much', async (t) => {
    const answer = await fetch(`${endpoint}${agentPaths.session}`, { method: 'POST', body: 'x'.repeat(300_000) })
    t.equal(answer.status, 413)
    t.equal((await fetch(`${endpoint}${agentPaths.session}`, { method: 'POST', body: '{' })).status, 400)
    t.equal(
      (await fetch(`${endpoint}${agentPaths.session}`, { method: 'POST', body: '{"version":9,"token":"x"}' })).status,
      426,
    )
  })

  held.end('revoked')
  await cleaning
  t.equal(window(), undefined, 'the window closes with the work')
  t.ok(rogues.recent.length < 60, `${rogues.total} tries made ${rogues.recent.length} events`)
})
