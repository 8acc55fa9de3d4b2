import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Operation, Presence } from '@slipway/proto/provider/v1'
import t, { type Test } from 'tap'
import { z } from 'zod'
import { readySession, settled, startGateway, tempDir } from '../testing/provider.js'
import type { TestGateway } from '../testing/gateway.js'
import { until } from '../testing/until.js'
import { defineProvider } from './define.js'
import * as surface from './index.js'
import type { Schema } from './types.js'

const sdkFolder = fileURLToPath(new URL('../../', import.meta.url))
const example = join(sdkFolder, 'examples/minimal-provider.ts')
const builtExample = join(sdkFolder, 'dist/examples/minimal-provider.js')

interface Server {
  readonly id: string
  readonly name: string
  readonly key: string
  readonly power: 'on'
  readonly ip: string
}

/** A cloud behind HTTP, which keeps its servers whatever becomes of its clients. */
class HttpCloud {
  readonly servers: Server[] = []
  created = 0
  readonly #server = createServer((request, response) => void this.#answer(request, response))

  async start(test: Test): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    test.teardown(() => {
      this.#server.close()
      this.#server.closeAllConnections()
    })
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const query = new URL(request.url ?? '', 'http://cloud').searchParams
    const wanted = ({ id, key }: Server): boolean =>
      [null, id].includes(query.get('id')) && [null, key].includes(query.get('key'))
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    if (request.headers.authorization !== 'Bearer good') return void response.writeHead(401).end()
    if (request.method === 'DELETE')
      this.servers.splice(0, this.servers.length, ...this.servers.filter((server) => !wanted(server)))
    if (request.method === 'POST') {
      this.created += 1
      const order = JSON.parse(Buffer.concat(chunks).toString()) as { name: string; key: string }
      this.servers.push({ id: `s-${this.created}`, name: order.name, key: order.key, power: 'on', ip: '192.0.2.9' })
    }
    const answer = request.method === 'POST' ? this.servers.at(-1) : this.servers.filter(wanted)
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(answer))
  }
}

interface Started {
  readonly process: ChildProcess
  readonly output: () => string
  readonly exit: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
}

function start(test: Test, args: readonly string[], env: Record<string, string> = {}): Started {
  let output = ''
  const child = spawn(process.execPath, [builtExample, ...args], {
    env: { ...bareEnv(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const exit = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) =>
    child.once('exit', (code, signal) => resolve({ code, signal })),
  )
  test.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
    await exit
  })
  return { process: child, output: () => output, exit }
}

/** The environment without what a developer may have set for a provider of their own. */
function bareEnv(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('SLIPWAY_')))
}

void t.before(async () => {
  await promisify(execFile)(process.execPath, [
    join(sdkFolder, '../node_modules/typescript/bin/tsc'),
    '-b',
    join(sdkFolder, 'examples'),
  ])
})

async function setUpExample(test: Test) {
  const cloud = new HttpCloud()
  const url = await cloud.start(test)
  const gateway = await startGateway(test)
  gateway.configure = { version: 1n, config: { url }, credentials: { token: 'good' } }
  const stateDir = await tempDir(test)
  const tokenFile = join(stateDir, 'token')
  await writeFile(tokenFile, gateway.joinToken())
  const args = ['--gateway', gateway.address, '--state-dir', join(stateDir, 'state'), '--join-token-file', tokenFile]
  return { cloud, gateway, args }
}

void t.test('a whole provider is written in under 40 lines, and works', async (t) => {
  t.ok((await readFile(example, 'utf8')).trimEnd().split('\n').length < 40)
  const { cloud, gateway, args } = await setUpExample(t)
  const started = start(t, [...args, '--capacity', '3', '--instance-name', 'box-1'])
  const session = await readySession(gateway)
  t.match(session.hello, { family: 'example-cloud', instanceName: 'box-1' })
  t.equal(session.all('ready').at(-1)?.capacity, 3)
  const item = gateway.item()
  session.send(item.claimed())
  await settled(item)
  t.match(item.observed, { externalId: 's-1', addresses: [{ ip: '192.0.2.9' }] })
  session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
  await settled(item)
  t.same(cloud.servers, [])
  started.process.kill('SIGTERM')
  t.match(await started.exit, { code: 0, signal: null })
  const lines = started.output().trim().split('\n')
  t.ok(
    lines.every((line) => typeof (JSON.parse(line) as { msg: string }).msg === 'string'),
    'logs are JSON lines',
  )
  t.notMatch(started.output(), /swj_|Bearer|"good"/, 'and hold no secret')
})

void t.test('killed at the worst moments, it leaves exactly one server', async (t) => {
  for (const [name, faults] of [
    ['after the effect', 'sdk.effect.after=kill'],
    ['before the effect', 'sdk.effect.before=kill'],
    ['before the report', 'sdk.report.before=kill'],
    ['after the report', 'sdk.report.after=kill'],
  ] as const) {
    const { cloud, gateway, args } = await setUpExample(t)
    const first = start(t, args, { SLIPWAY_FAILPOINTS: faults })
    const session = await readySession(gateway)
    const item = gateway.item()
    session.send(item.claimed())
    t.match(await first.exit, { signal: 'SIGKILL' }, name)
    t.equal(cloud.created, name === 'before the effect' ? 0 : 1)
    t.equal(item.observed.createInDoubt, name !== 'after the report', 'what happened is in doubt until it is stored')
    if (name === 'before the effect') continue
    start(t, args)
    const second = await readySession(gateway, 2)
    second.send(item.claimed())
    await settled(item)
    t.equal(cloud.created, 1, `${name}: it was looked up`)
    t.equal(cloud.servers.length, 1)
  }
})

void t.test('killed while it deletes, it deletes again', async (t) => {
  for (const faults of ['sdk.delete.before=kill', 'sdk.delete.after=kill']) {
    const { cloud, gateway, args } = await setUpExample(t)
    const first = start(t, args, { SLIPWAY_FAILPOINTS: faults })
    const session = await readySession(gateway)
    const item = gateway.item()
    session.send(item.claimed())
    await settled(item)
    session.send(item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT }).claimed())
    t.match(await first.exit, { signal: 'SIGKILL' })
    start(t, args)
    const second = await readySession(gateway, 2)
    second.send(item.claimed())
    await settled(item)
    t.same(cloud.servers, [])
    t.equal(cloud.created, 1)
    t.equal(item.observed.presence, Presence.ABSENT)
  }
})

void t.test('the command line helps, and its exit code tells', async (t) => {
  const help = start(t, ['--help'])
  t.match(await help.exit, { code: 0 })
  for (const word of [
    '--gateway',
    'SLIPWAY_GATEWAY',
    '--join-token-file',
    'SLIPWAY_JOIN_TOKEN',
    '--state-dir',
    '--capacity',
    '--log-level',
    'Exit codes',
  ]) {
    t.ok(help.output().includes(word), word)
  }
  const missing = start(t, [])
  t.match(await missing.exit, { code: 2 })
  t.match(missing.output(), /--gateway/)
  const wrong = start(t, ['--gateway', 'a:1', '--state-dir', '/tmp/none', '--capacity', 'many'])
  t.match(await wrong.exit, { code: 2 })
  t.match(wrong.output(), /whole number/)
  t.match(await start(t, ['--gateway', 'a:1', '--state-dir', '/tmp/none', '--log-level', 'loud']).exit, { code: 2 })
  const noToken = start(t, ['--gateway', '127.0.0.1:1'], { SLIPWAY_STATE_DIR: await tempDir(t) })
  t.match(await noToken.exit, { code: 1 })
  t.match(noToken.output(), /slipway provider token/)
})

void t.test('the environment will do, and a second signal ends it at once', async (t) => {
  const gateway: TestGateway = await startGateway(t)
  gateway.configure = { version: 1n, config: { url: 'http://127.0.0.1:1' }, credentials: { token: 'good' } }
  // A claim that hangs on its begin: the hub takes note of nothing.
  gateway.judge = () => 'ignore'
  const started = start(t, [], {
    SLIPWAY_GATEWAY: gateway.address,
    SLIPWAY_STATE_DIR: await tempDir(t),
    SLIPWAY_JOIN_TOKEN: gateway.joinToken(),
    SLIPWAY_CAPACITY: '2',
  })
  const session = await readySession(gateway)
  session.send(gateway.item().claimed())
  await session.expect('report')
  started.process.kill('SIGINT')
  await until('the first signal to be heard', () => started.output().includes('stopping'))
  started.process.kill('SIGINT')
  t.match(await started.exit, { code: 1, signal: null })
})

void t.test('types follow from the schemas', async (t) => {
  const provider = defineProvider({
    family: 'types',
    kind: 'dynamic',
    config: z.object({ region: z.string() }),
    data: z.object({ image: z.string().default('x') }),
    budgets: { api: { limit: 1, windowMs: 1 } },
    create: (context, spec) => {
      const region: string = context.config.region
      const image: string = spec.data.image
      const none: Record<string, never> = context.credentials
      // @ts-expect-error There is no such field.
      void context.config.regoin
      return Promise.resolve({ externalId: region + image + Object.keys(none).length })
    },
    observe: () => Promise.resolve(undefined),
    delete: () => Promise.resolve(),
    list: async function* () {},
  })
  t.match(provider, { family: 'types', kind: 'dynamic' })
  const schema: Schema<{ region: string }> = z.object({ region: z.string() })
  t.equal(schema['~standard'].vendor, 'zod')
  const broken = {
    family: 'Not A Family',
    kind: 'dynamic',
    create: () => 0,
    observe: () => 0,
    delete: () => 0,
    list: () => 0,
  } as never
  t.throws(() => defineProvider(broken), { message: /no family name/ })
  const noCalls = { ...(broken as object), family: 'f', budgets: { api: { limit: 0, windowMs: 1 } } } as never
  t.throws(() => defineProvider(noCalls), { message: /allows no calls/ })
  t.same(
    Object.keys(surface).sort(),
    ['ConsoleRefused', 'ProviderError', 'Stopped', 'defineProvider', 'readConsoleFile'],
    'the surface is a page',
  )
})
