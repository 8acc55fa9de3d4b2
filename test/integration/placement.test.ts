import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { withHub } from '@slipway/hub/testing'
import { HostState } from '@slipway/proto/hub/v1'
import { FailureCode, ProviderKind } from '@slipway/proto/provider/v1'
import { defineProvider, ProviderError } from '@slipway/sdk'
import { createSlipwayClient } from '@slipway/sdk/client'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { until } from '../tools/processes.js'

// What is refused for want of quota, over the whole hub: the next best place, the history, the hold of an account, and its end by an administrator.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')

/** Credentials of one key, `token`. */
const tokenSchema = {
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: (value: unknown) => ({ value: value as { token: string } }),
    jsonSchema: { input: () => ({ type: 'object', properties: { token: { type: 'string' } }, required: ['token'] }) },
  },
} as const

void t.test('a quota that is used up is one for all who share the account', async (t) => {
  const test = await withHub(t)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  const parent = 'organizations/default'
  for (const secretId of ['shared', 'own'])
    await client.secrets.createSecret({ parent, secretId, secret: { data: { token: secretId } } })
  const made = new Set<string>()
  const asked: string[] = []
  for (const [providerId, secret] of [
    ['one', 'shared'],
    ['two', 'shared'],
    ['spare', 'own'],
  ] as const) {
    await client.providers.createProvider({
      providerId,
      provider: { family: 'picky', kind: ProviderKind.DYNAMIC, credentialsSecret: `${parent}/secrets/${secret}` },
    })
    const { joinToken } = await client.providers.createJoinToken({ provider: `providers/${providerId}` })
    await startInstance(t, test.hub.gatewayAddress, joinToken, (token) => {
      asked.push(providerId)
      if (token === 'shared') throw new ProviderError('QUOTA', 'the project has all servers that it may have')
      const externalId = `srv-${made.size}`
      made.add(externalId)
      return externalId
    })
  }
  const offering = (provider: string, location: string, hourlyMicros: number) => ({
    ...{ provider: `providers/${provider}`, typeId: 'small', locations: [location] },
    price: { currency: 'EUR', hourlyMicros: BigInt(hourlyMicros) },
  })
  await client.machineClasses.createMachineClass({
    machineClassId: 'small',
    machineClass: { offerings: [offering('one', 'x', 1), offering('two', 'y', 2), offering('spare', 'z', 3)] },
  })
  const order = { parent: 'workspaces/default', hostId: 'web', host: { machineClass: 'machineClasses/small' } }
  await client.hosts.createHost(order)
  const host = async () => (await client.hosts.getHost({ name: 'workspaces/default/hosts/web' })).host
  let now = await host()
  await until('the next best place', async () => {
    now = await host()
    return now?.state === HostState.READY
  })
  t.match(now, {
    provider: 'providers/spare',
    attempts: [{ provider: 'providers/one', typeId: 'small', location: 'x', error: { code: FailureCode.QUOTA } }],
  })
  t.equal(now?.attempts.length, 1)
  t.strictSame(asked, ['one', 'spare'], 'two was not asked: it has the same account')

  const explain = async () =>
    (await client.hosts.createHost({ ...order, hostId: 'other', validateOnly: true })).candidates.map((candidate) => [
      candidate.provider,
      candidate.rejectedReason,
      candidate.message,
    ])
  t.match(await explain(), [
    ['providers/spare', '', 'it is the only one that will do'],
    ['providers/one', 'OFFERING_HELD', /held back until .*: QUOTA: the project/],
    ['providers/two', 'OFFERING_HELD', /held back until .*: one was told QUOTA/],
  ])
  t.match((await client.providers.getProvider({ name: 'providers/two' })).provider?.holds, [
    { code: FailureCode.QUOTA, typeId: 'small', location: '', provider: 'providers/one', reason: /QUOTA: the project/ },
  ])

  const slipway = cli(t, test.hub.apiUrl, test.token)
  t.match(
    await slipway('describe', 'host', 'web'),
    /Places that were tried:\n +one small x: .*the project has all servers/,
  )
  t.match(
    await slipway('host', 'order', 'other', '--class', 'small', '--explain'),
    /OFFERING_HELD: two: small in y is held back/,
  )
  t.match(await slipway('get', 'providers', '-o', 'wide'), /0 \(1 held\)/)
  t.match(await slipway('describe', 'provider', 'two'), /CapacityHeld|QUOTA/)
  t.match(await slipway('provider', 'release-holds', 'two', '--type', 'large'), 'Nothing was held back.')
  t.match(await slipway('provider', 'release-holds', 'two'), 'Offered again: 1.')
  t.match(await explain(), [
    ['providers/one', ''],
    ['providers/two', ''],
    ['providers/spare', ''],
  ])
  const { entries } = await client.audit.listAuditEntries({ parent: '', filter: { method: 'ReleaseHolds' } })
  t.equal(entries.length, 1, 'what was released is in the audit log, and what was not is not')
})

async function startInstance(
  t: Test,
  gateway: string,
  joinToken: string,
  create: (token: string) => string,
): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'slipway-placement-'))
  const ending = new AbortController()
  const there = new Set<string>()
  let checked = false
  const running = defineProvider({
    family: 'picky',
    kind: 'dynamic',
    credentials: tokenSchema,
    check: () => {
      checked = true
      return Promise.resolve()
    },
    create: async ({ credentials }) => {
      const externalId = create(credentials.token)
      there.add(externalId)
      return { externalId, power: 'on' }
    },
    observe: async (_context, externalId) => (there.has(externalId) ? { externalId, power: 'on' } : undefined),
    delete: async (_context, { externalId }) => {
      if (externalId !== undefined) there.delete(externalId)
    },
    list: async function* () {
      // Nothing of it is anybody's orphan.
    },
  }).run({ gateway, stateDir: folder, joinToken, log: pino({ level: 'silent' }), signal: ending.signal })
  t.teardown(async () => {
    ending.abort()
    await running
    rmSync(folder, { recursive: true, force: true })
  })
  await until('the instance', () => checked)
}

/** The command line, as an administrator. */
function cli(t: Test, server: string, token: string): (...args: readonly string[]) => Promise<string> {
  const home = mkdtempSync(join(tmpdir(), 'slipway-cli-'))
  t.teardown(() => rmSync(home, { recursive: true, force: true }))
  return async (...args) => {
    const child = spawn(process.execPath, [join(root, 'sdk/bin/slipway.js'), ...args], {
      env: {
        PATH: process.env['PATH'],
        HOME: home,
        SLIPWAY_CONFIG: join(home, 'config.yaml'),
        SLIPWAY_SERVER: server,
        SLIPWAY_TOKEN: token,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let text = ''
    child.stdout.on('data', (data: Buffer) => (text += data.toString()))
    child.stderr.on('data', (data: Buffer) => (text += data.toString()))
    const [code] = (await once(child, 'close')) as [number]
    if (code !== 0) throw new Error(`slipway ${args.join(' ')} ended with ${code}: ${text}`)
    return text
  }
}
