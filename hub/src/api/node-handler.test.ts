import { createServer as createHttp1 } from 'node:http'
import { connect, createServer as createHttp2 } from 'node:http2'
import type { AddressInfo, Server } from 'node:net'
import { once } from 'node:events'
import { createConnectRouter, createContextKey, createContextValues } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import pino from 'pino'
import t, { type Test } from 'tap'
import { nodeHandler, type NodeRequest, type NodeResponse } from './node-handler.js'

const path = '/slipway.hub.v1.MachineService/GetMachine'
const callerKey = createContextKey('')

async function serve(t: Test, version: 1 | 2, before: (response: NodeResponse) => void = () => undefined) {
  const lines: Record<string, unknown>[] = []
  const log = pino({ level: 'debug' }, { write: (line) => lines.push(JSON.parse(line) as Record<string, unknown>) })
  const router = createConnectRouter()
  router.service(hub.MachineService, {
    getMachine: ({ name }, context) => ({
      machine: { name: `${name} for ${context.values.get(callerKey)}` },
    }),
  })
  const handler = nodeHandler(router, {
    contextValues: () => createContextValues().set(callerKey, 'caller'),
    fallback: (_, response) => void response.writeHead(418).end(),
    log,
  })
  const listener = (request: NodeRequest, response: NodeResponse) => {
    before(response)
    handler(request, response)
  }
  const server: Server = version === 1 ? createHttp1(listener) : createHttp2(listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => new Promise((resolve) => server.close(resolve)))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, lines }
}

const call = (url: string, init: RequestInit = {}) =>
  fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', connection: 'close' },
    body: JSON.stringify({ name: 'machines/m-1' }),
    ...init,
  })

void t.test('a call over HTTP/1.1', async (t) => {
  const { url, lines } = await serve(t, 1)
  const answer = await call(`${url}${path}?encoding=json`)
  t.strictSame([answer.status, await answer.json()], [200, { machine: { name: 'machines/m-1 for caller' } }])
  t.equal((await call(`${url}/elsewhere`)).status, 418, 'what is no call is left to somebody else')
  t.strictSame(lines, [])
})

void t.test('a call over HTTP/2, whose body comes in pieces', async (t) => {
  const { url, lines } = await serve(t, 2)
  const session = connect(url)
  t.teardown(() => session.destroy())
  const stream = session.request({ ':method': 'POST', ':path': path, 'content-type': 'application/json' })
  const body = JSON.stringify({ name: `machines/${'m'.repeat(100_000)}` })
  for (let at = 0; at < body.length; at += 9_999) stream.write(body.slice(at, at + 9_999))
  stream.end()
  const told = (await stream.setEncoding('utf8').toArray()).join('')
  t.match(JSON.parse(told), { machine: { name: /^machines\/m{100000} for caller$/ } })
  t.strictSame(lines, [])
})

void t.test('an answer that cannot be delivered is a line of the log, and nothing on the console', async (t) => {
  const said: unknown[] = []
  const write = console.error
  console.error = (...words: unknown[]) => void said.push(words)
  t.teardown(() => (console.error = write))
  const { url, lines } = await serve(t, 1, (response) => {
    response.writeHead = () => {
      response.destroy()
      throw Object.assign(new Error('write ECANCELED'), { code: 'ECANCELED' })
    }
  })
  await t.rejects(call(`${url}${path}`))
  t.match(lines, [{ msg: 'an answer could not be delivered', procedure: path.slice(1), err: { message: /ECANCELED/ } }])
  t.equal(lines.length, 1)
  t.strictSame(said, [])
})
