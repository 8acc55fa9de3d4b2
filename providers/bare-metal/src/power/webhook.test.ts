import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import t, { type Test } from 'tap'
import { bmcFailure } from '../../testing/bmc/failure.js'
import { SimulatedMachine } from '../../testing/bmc/machine.js'
import { createBmcDriver } from './create-driver.js'
import type { BmcDriver } from './driver.js'
import { bmcSettingsSchema } from './settings.js'

const { signal } = new AbortController()

interface Call {
  readonly method: string
  readonly url: string
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/** A site's own power service. */
class Service {
  readonly machine = new SimulatedMachine()
  readonly calls: Call[] = []
  /** Answers this instead. */
  instead: ((response: ServerResponse) => void) | undefined
  port = 0

  async start(t: Test): Promise<this> {
    const server = createServer((request, response) => void this.#serve(request, response))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    this.port = typeof address === 'object' && address !== null ? address.port : 0
    t.teardown(() => {
      server.closeAllConnections()
      server.close()
    })
    return this
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let body = ''
    for await (const part of request) body += String(part)
    const { method = '', url = '', headers } = request
    this.calls.push({ method, url, headers, body })
    if (this.instead !== undefined) return this.instead(response)
    if (method === 'POST') {
      const { act, device } = JSON.parse(body) as { act?: 'on' | 'off' | 'cycle'; device?: 'network' | 'disk' }
      if (act !== undefined) this.machine.setPower(act)
      if (device !== undefined) this.machine.setBootNext({ device, uefi: false })
      response.writeHead(204).end()
    } else response.end(JSON.stringify({ outlets: [{ 'a/b': this.machine.power === 'on' ? 'ON' : 'OFF' }] }))
  }
}

function driverFor(t: Test, port: number, changes: object = {}): BmcDriver {
  const url = `http://127.0.0.1:${port}/outlets/{{machine}}`
  const headers = { authorization: 'Bearer {{secret.token}}' }
  const settings = bmcSettingsSchema.parse({
    kind: 'webhook',
    machine: 'a b/c',
    timeoutMs: 10_000,
    read: { url, headers, pointer: '/outlets/0/a~1b', on: ['ON'], off: ['OFF'] },
    on: { url, headers, body: '{"act": "{{action}}", "key": "{{secret.key}}"}' },
    off: { url, headers, body: '{"act": "off"}' },
    cycle: { url, headers, body: '{"act": "cycle"}' },
    bootOnce: { url, headers, body: '{"device": "{{device}}", "mode": "{{ mode }}"}' },
    ...changes,
  })
  const driver = createBmcDriver(settings, {
    username: '',
    password: '',
    values: { token: 't0ken', key: 'with "quotes" and \\' },
  })
  t.teardown(() => driver.close())
  return driver
}

void t.test('templates are filled in, and power is read', async (t) => {
  const service = await new Service().start(t)
  const driver = driverFor(t, service.port)
  t.equal(await driver.readPower(signal), 'off')
  await driver.setBootOnce('network', 'bios', signal)
  await driver.setPower('on', signal)
  t.equal(await driver.readPower(signal), 'on')
  await driver.setPower('cycle', signal)
  await driver.setPower('off', signal)
  t.match(await driver.verify(signal), { kind: 'webhook', power: 'off' })
  t.same(service.machine.asked, ['boot network', 'on', 'cycle', 'off'])
  const on = service.calls.find(({ body }) => body.includes('"on"'))
  t.match(on, { method: 'POST', url: '/outlets/a%20b%2Fc' })
  t.match(on?.headers, { authorization: 'Bearer t0ken', 'content-type': 'application/json' })
  t.same(JSON.parse(on?.body ?? ''), { act: 'on', key: 'with "quotes" and \\' })
})

void t.test('what it has no call for it cannot do', async (t) => {
  const service = await new Service().start(t)
  const driver = driverFor(t, service.port, { bootOnce: undefined })
  t.match(await bmcFailure(driver.setPower('reset', signal)), { kind: 'unsupported' })
  t.match(await bmcFailure(driver.setPower('soft-off', signal)), { kind: 'unsupported' })
  t.match(await bmcFailure(driver.setBootOnce('disk', 'bios', signal)), {
    kind: 'unsupported',
    message: /alwaysNetwork/,
  })
  await driverFor(t, service.port, { bootOnce: undefined, alwaysNetwork: true }).setBootOnce('disk', 'bios', signal)
  t.same(service.calls, [])
})

void t.test('refusals, silence and nonsense', async (t) => {
  const service = await new Service().start(t)
  const driver = driverFor(t, service.port, { timeoutMs: 200 })
  const answers = async (status: number, body = ''): Promise<unknown> => {
    service.instead = (response) => void response.writeHead(status).end(body)
    return bmcFailure(driver.verify(signal))
  }
  t.match(await answers(401), { kind: 'wrong-password' })
  t.match(await answers(403), { kind: 'privilege' })
  t.match(await answers(404), { kind: 'unsupported' })
  t.match(await answers(500), { kind: 'refused' })
  t.match(await answers(302), { kind: 'refused' }, 'redirects are not followed')
  t.match(await answers(200, 'no json'), { kind: 'protocol' })
  t.match(await answers(200, '{"outlets": [{"a/b": "perhaps"}]}'), { kind: 'protocol' })
  t.match(await answers(200, JSON.stringify('x'.repeat(1_100_000))), { kind: 'protocol', message: /more than/ })
  service.instead = () => undefined
  t.match(await bmcFailure(driver.readPower(signal)), { kind: 'unreachable', inDoubt: false, message: /200 ms/ })
  t.match(await bmcFailure(driver.setPower('on', signal)), { kind: 'unreachable', inDoubt: true, code: 'TIMEOUT' })
})

void t.test('a connection that was closed meanwhile costs no reading', async (t) => {
  const service = await new Service().start(t)
  const driver = driverFor(t, service.port)
  t.equal(await driver.readPower(signal), 'off')
  let dropped = 0
  service.instead = (response) => {
    dropped += 1
    service.instead = undefined
    response.socket?.destroy()
  }
  t.equal(await driver.readPower(signal), 'off')
  t.equal(dropped, 1)
  service.instead = (response) => response.socket?.destroy()
  t.match(await bmcFailure(driver.setPower('on', signal)), { kind: 'unreachable', inDoubt: true })
  t.equal(service.calls.filter(({ method }) => method === 'POST').length, 1, 'what changes something is not repeated')
})

void t.test('settings that would leak or cannot work are refused', async (t) => {
  const service = await new Service().start(t)
  const call = (url: string, more = {}): object => ({ on: { url, ...more } })
  const fails = (changes: object): Promise<unknown> =>
    bmcFailure(driverFor(t, service.port, changes).setPower('on', signal))
  const wrong = driverFor(t, service.port, { off: { url: 'http://power.example/off' } })
  t.match(await bmcFailure(wrong.verify(signal)), { kind: 'unsupported' }, 'and that is found when it is verified')
  t.match(await fails(call('http://power.example/on')), { kind: 'unsupported', message: /https/ })
  t.match(await fails(call('file:///etc/passwd')), { kind: 'unsupported' })
  t.match(await fails(call('https://169.254.169.254/on')), { kind: 'address-forbidden' })
  t.match(
    await fails(call(`http://127.0.0.1:${service.port}/{{secret.token}}`)),
    { kind: 'unsupported' },
    'no secrets in addresses',
  )
  t.match(await fails(call(`http://127.0.0.1:${service.port}/`, { body: '{{constructor}}' })), { kind: 'unsupported' })
  t.match(await fails(call(`http://127.0.0.1:${service.port}/`, { headers: { x: '{{secret.none}}' } })), {
    kind: 'unsupported',
  })
  t.same(service.calls, [])
})
