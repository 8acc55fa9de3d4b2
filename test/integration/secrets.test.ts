import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, toBinary } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { sql } from 'kysely'
import {
  canary,
  countKeyUse,
  disguises,
  dumpRows,
  findCanaries,
  inTransaction,
  makeKeyring,
  rewrapAll,
  sealedColumns,
  withHub,
  type TestHub,
} from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import { defineProvider, ProviderError } from '@slipway/sdk'
import { pino } from 'pino'
import t, { type Test } from 'tap'
import { until } from '../tools/processes.js'

// Secrets over the client API of a whole hub, with instances that take credentials or refuse them.

const parent = 'organizations/default'
const name = `${parent}/secrets/cloud`

async function refusal(call: Promise<unknown>): Promise<SlipwayError> {
  try {
    await call
  } catch (error) {
    if (error instanceof SlipwayError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

interface Scene {
  readonly test: TestHub
  readonly client: SlipwayClient
  /** Everything that instances logged. */
  readonly log: readonly string[]
  /** Starts an instance of a provider; it takes every token but those that begin with `bad`. @returns what it was given, in order, and its end. */
  readonly startInstance: (
    provider: string,
  ) => Promise<{ readonly seen: readonly string[]; readonly stop: () => Promise<void> }>
}

/** Credentials of one key, `token`. */
const tokenSchema = {
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: (value: unknown) => ({ value: value as { token: string } }),
    jsonSchema: {
      input: () => ({ type: 'object', properties: { token: { type: 'string', minLength: 3 } }, required: ['token'] }),
    },
  },
} as const

async function start(t: Test, env: Readonly<Record<string, string>> = {}): Promise<Scene> {
  const test = await withHub(t, env)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  const log: string[] = []
  const startInstance = async (provider: string) => {
    const seen: string[] = []
    const folder = mkdtempSync(join(tmpdir(), 'slipway-secrets-'))
    const { joinToken } = await client.providers.createJoinToken({ provider: `providers/${provider}` })
    const ending = new AbortController()
    const running = defineProvider({
      family: 'picky',
      kind: 'dynamic',
      credentials: tokenSchema,
      check: ({ credentials }) => {
        seen.push(credentials.token)
        if (credentials.token.startsWith('bad')) throw new ProviderError('CREDENTIALS', 'the token is refused')
        return Promise.resolve()
      },
      create: () => Promise.reject(new ProviderError('CAPACITY', 'there is none')),
      observe: () => Promise.resolve(undefined),
      delete: () => Promise.resolve(),
      list: async function* () {
        // It owns nothing.
      },
    }).run({
      gateway: test.hub.gatewayAddress,
      stateDir: folder,
      joinToken,
      log: pino({ level: 'debug' }, { write: (line: string) => log.push(line) }),
      signal: ending.signal,
    })
    const stop = async () => {
      ending.abort()
      await running
      rmSync(folder, { recursive: true, force: true })
    }
    t.teardown(stop)
    await until('the instance', () => seen.length > 0 || ending.signal.aborted)
    return { seen, stop }
  }
  return { test, client, log, startInstance }
}

const cloud = { family: 'picky', kind: 2, credentialsSecret: name } as const

async function storedVersions(test: TestHub): Promise<number[]> {
  const rows = await test.database.db
    .selectFrom('secret_versions')
    .select('version')
    .where('sealed', 'is not', null)
    .orderBy('version')
    .execute()
  return rows.map((row) => row.version)
}

void t.test('secrets are written, changed and deleted, and never read', async (t) => {
  const { test, client } = await start(t)
  const { secret } = await client.secrets.createSecret({
    parent,
    secretId: 'cloud',
    secret: { description: 'a token', data: { token: 'one' }, labels: { stage: 'test' } },
    requestId: 'a',
  })
  t.match(secret, { name, description: 'a token', currentVersion: 1n, versions: [{ version: 1n }], uses: [] })
  t.equal(secret?.data, undefined)
  for (const [call, wanted] of [
    [
      () => client.secrets.createSecret({ parent, secretId: 'cloud', secret: { data: { a: 1 } } }),
      { reason: 'NAME_TAKEN', violations: [{ field: 'secret_id' }] },
    ],
    [
      () =>
        client.secrets.createSecret({
          parent,
          secretId: 'cloud',
          secret: { data: { token: 'other' } },
          requestId: 'a',
        }),
      { reason: 'IDEMPOTENCY_KEY_REUSED' },
    ],
    [
      () => client.secrets.createSecret({ parent, secretId: 'x', secret: {} }),
      { reason: 'INVALID_FIELD', violations: [{ field: 'secret.data' }] },
    ],
    [
      () => client.secrets.createSecret({ parent, secretId: 'x', secret: { data: { a: 'x'.repeat(300_000) } } }),
      { reason: 'INVALID_FIELD', violations: [{ field: 'secret.data' }] },
    ],
    [
      () => client.secrets.createSecret({ parent: 'organizations/none', secretId: 'x', secret: { data: { a: 1 } } }),
      { reason: 'ORGANIZATION_NOT_FOUND' },
    ],
    [() => client.secrets.getSecret({ name: `${parent}/secrets/none` }), { reason: 'SECRET_NOT_FOUND' }],
    [() => client.secrets.getSecret({ name: 'secrets/x' }), { reason: 'INVALID_FIELD' }],
    [() => client.secrets.updateSecret({ secret: { name, etag: '99', data: { a: 1 } } }), { reason: 'ETAG_MISMATCH' }],
    [
      () => client.secrets.updateSecret({ secret: { name }, updateMask: { paths: ['current_version'] } }),
      { reason: 'INVALID_FIELD' },
    ],
  ] as const)
    t.match(await refusal(call()), wanted)

  const same = await client.secrets.updateSecret({
    secret: { name, data: { token: 'one' } },
    updateMask: { paths: ['data'] },
  })
  t.equal(same.secret?.currentVersion, 1n, 'what it holds already makes no new version')
  const dry = { secret: { name, data: { token: 'two' } }, updateMask: { paths: ['data'] }, validateOnly: true }
  t.equal((await client.secrets.updateSecret(dry)).secret?.currentVersion, 2n, 'what it would be')
  t.strictSame(await storedVersions(test), [1])
  const next = await client.secrets.updateSecret({ ...dry, validateOnly: false })
  t.equal(next.secret?.currentVersion, 2n)
  t.strictSame(await storedVersions(test), [2], 'nothing needed the first version')
  t.ok(next.secret?.versions[0]?.destroyTime, 'that there was one stays known')
  await client.secrets.updateSecret({
    secret: { name, description: 'changed' },
    updateMask: { paths: ['description'] },
  })
  t.match((await client.secrets.getSecret({ name })).secret, { description: 'changed', labels: { stage: 'test' } })

  for (const secretId of ['a', 'b', 'c'])
    await client.secrets.createSecret({ parent, secretId, secret: { data: { secretId } } })
  const names: string[] = []
  let pageToken = ''
  do {
    const page = await client.secrets.listSecrets({ parent: 'organizations/-', pageSize: 2, pageToken })
    names.push(...page.secrets.map((found) => found.name.slice(`${parent}/secrets/`.length)))
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  t.strictSame(names, ['a', 'b', 'c', 'cloud'])
  const labelled = await client.secrets.listSecrets({ parent, filter: { labelSelector: 'stage=test' } })
  t.equal(labelled.secrets.length, 1)

  await client.providers.createProvider({ providerId: 'p', provider: cloud })
  t.match(await refusal(client.secrets.deleteSecret({ name })), { reason: 'SECRET_IN_USE', message: /providers\/p/ })
  const both = { ...cloud, credentials: { token: 'x' } }
  t.match(await refusal(client.providers.createProvider({ providerId: 'q', provider: both })), {
    reason: 'INVALID_FIELD',
    violations: [{ field: 'provider.credentials_secret' }],
  })
  const none = { ...cloud, credentialsSecret: `${parent}/secrets/none` }
  t.match(await refusal(client.providers.createProvider({ providerId: 'q', provider: none })), {
    reason: 'SECRET_NOT_FOUND',
    violations: [{ field: 'provider.credentials_secret' }],
  })
  const off = { provider: { name: 'providers/p' }, updateMask: { paths: ['credentials_secret'] } }
  t.match((await client.providers.updateProvider(off)).provider, { credentialsSecret: '', hasCredentials: false })
  await client.secrets.deleteSecret({ name })
  t.equal((await refusal(client.secrets.getSecret({ name }))).reason, 'SECRET_NOT_FOUND')
  await client.secrets.deleteSecret({ name, allowMissing: true })
  const { events } = await client.events.listEvents({ filter: { subject: name } })
  t.strictSame(
    events.map(({ reason }) => reason),
    ['SecretDeleted', 'SecretUpdated', 'SecretRotated', 'SecretCreated'],
  )
})

void t.test(
  'a rotated credential reaches connected instances, and the old one goes once all of them work with it',
  async (t) => {
    const { test, client, startInstance } = await start(t)
    await client.secrets.createSecret({ parent, secretId: 'cloud', secret: { data: { token: 'first' } } })
    await client.providers.createProvider({ providerId: 'p', provider: cloud })
    const one = await startInstance('p')
    const other = await startInstance('p')
    const rotate = (token: string) =>
      client.secrets.updateSecret({ secret: { name, data: { token } }, updateMask: { paths: ['data'] } })
    const use = async () => (await client.secrets.getSecret({ name })).secret?.uses[0]
    t.match(await use(), { resource: 'providers/p', version: 1n, keptVersion: 0n, pendingReason: '' })

    t.match(await refusal(client.secrets.updateSecret({ secret: { name, data: { tokenn: 'x' } } })), {
      reason: 'PROVIDER_CONFIG_INVALID',
      violations: [{ field: 'secret.data.token' }, { field: 'secret.data.tokenn' }],
    })

    const { secret } = await rotate('second')
    t.match(secret?.uses[0], { version: 2n })
    await until('both to have it', () => one.seen.includes('second') && other.seen.includes('second'))
    await until('it to be proven', async () => (await use())?.pendingReason === '')
    t.strictSame(await storedVersions(test), [2], 'the old one is destroyed')

    await rotate('bad')
    await until('both to have refused it', () => one.seen.includes('bad') && other.seen.includes('bad'))
    await until('the refusal to be shown', async () => {
      const { provider } = await client.providers.getProvider({ name: 'providers/p' })
      return provider?.conditions.some(({ type, reason }) => type === 'CredentialsProven' && reason === 'Refused')
    })
    t.strictSame(await storedVersions(test), [2, 3], 'what worked is kept')
    t.match(await use(), { version: 3n, keptVersion: 2n, pendingReason: /2 of 2 instances/ })

    await other.stop()
    const third = await startInstance('p')
    t.equal(third.seen[0], 'second', 'a new instance begins with what worked')
    await until('it to be told what is wanted as well', () => third.seen.includes('bad'))

    await rotate('fourth')
    await until('all to work with it', () => one.seen.includes('fourth') && third.seen.includes('fourth'))
    await until('the ones before to be destroyed', async () => (await storedVersions(test)).join() === '4')
    const { events } = await client.events.listEvents({
      filter: { subject: 'providers/p', reasons: ['CredentialsProven'] },
    })
    t.equal(events.length, 2)
  },
)

void t.test('own credentials are proven in the same way, and give way to a secret', async (t) => {
  const { test, client, startInstance } = await start(t)
  await client.providers.createProvider({
    providerId: 'p',
    provider: { ...cloud, credentialsSecret: '', credentials: { token: 'own' } },
  })
  const one = await startInstance('p')
  await client.secrets.createSecret({ parent, secretId: 'cloud', secret: { data: { token: 'first' } } })
  const rows = () => test.database.db.selectFrom('provider_credentials').selectAll().execute()
  await client.providers.updateProvider({ provider: { name: 'providers/p', credentials: { token: 'bad own' } } })
  await until('it to be refused', () => one.seen.includes('bad own'))
  t.equal((await rows()).length, 2, 'what worked is kept')
  const over = {
    provider: { name: 'providers/p', credentialsSecret: name },
    updateMask: { paths: ['credentials_secret'] },
  }
  t.match((await client.providers.updateProvider(over)).provider, { credentialsSecret: name, hasCredentials: true })
  await until('the secret to be in use', () => one.seen.includes('first'))
  await until('the own ones to be gone', async () => {
    const left = await rows()
    return left.length === 1 && left[0]?.sealed === null
  })
  const before = (await client.providers.getProvider({ name: 'providers/p' })).provider?.configVersion
  await client.providers.updateProvider(over)
  t.equal(
    (await client.providers.getProvider({ name: 'providers/p' })).provider?.configVersion,
    before,
    'again is no change',
  )
})

void t.test('another key-encryption key takes over all that is sealed', async (t) => {
  const [old, fresh] = [randomBytes(32), randomBytes(32)]
  const { test, client } = await start(t, { SLIPWAY_KEY: old.toString('hex') })
  const { db } = test.database
  await client.secrets.createSecret({ parent, secretId: 'cloud', secret: { data: { token: 'first' } } })
  await client.providers.createProvider({ providerId: 'p', provider: cloud })
  await client.providers.createProvider({
    providerId: 'q',
    provider: { ...cloud, credentialsSecret: '', credentials: { token: 'own' } },
  })
  const keyring = makeKeyring([fresh, old])
  const counts = async () =>
    Object.fromEntries((await countKeyUse(db)).map(({ where, keyId, count }) => [`${where} ${keyId}`, count]))
  const before = await counts()
  t.match(before, {
    [`certificate_authorities.key_sealed ${keyring.keyIds[1]}`]: 1,
    [`provider_credentials.sealed ${keyring.keyIds[1]}`]: 1,
    [`secret_versions.sealed ${keyring.keyIds[1]}`]: 1,
  })
  const turn = { write: <T>(work: Parameters<typeof inTransaction<T>>[1]) => inTransaction(db, work) }
  const done = await rewrapAll(turn, keyring)
  t.strictSame(done, { rewrapped: 3, failures: [] })
  t.strictSame(
    Object.keys(await counts()).filter((key) => !key.endsWith(keyring.activeKeyId)),
    [],
    'none is left',
  )
  t.strictSame(await rewrapAll(turn, keyring), { rewrapped: 0, failures: [] })
  const lost = await rewrapAll(turn, makeKeyring([randomBytes(32)]))
  t.equal(lost.rewrapped, 0)
  t.match(lost.failures, [/was not given/, /was not given/, /was not given/])

  const columns = await sql<{ name: string }>`
    select table_name || '.' || column_name as name from information_schema.columns
    where table_schema = 'public' and column_name like '%sealed%' and data_type = 'bytea' order by 1
  `.execute(db)
  t.strictSame(
    columns.rows.map((row) => row.name),
    sealedColumns.map(({ table, column }) => `${table}.${column}`).sort(),
    'every sealed column is wrapped anew',
  )
})

void t.test('what is kept of a request to know it again tells nobody what was in it', async (t) => {
  const { test, client } = await start(t)
  const { db } = test.database
  const order = { parent, secretId: 'cloud', secret: { data: { token: 'guess me' } }, requestId: 'once' }
  const first = await client.secrets.createSecret(order)
  const stored = async () => {
    const row = await db.selectFrom('idempotency_keys').select('request_hash').executeTakeFirstOrThrow()
    return row.request_hash
  }
  const plain = createHash('sha256')
    .update(toBinary(hub.CreateSecretRequestSchema, create(hub.CreateSecretRequestSchema, order)))
    .digest()
  const fingerprint = await stored()
  t.notOk(fingerprint.includes(plain), 'no hash on which guesses could be tried')
  const repeats = async () => {
    t.strictSame((await client.secrets.createSecret(order)).secret?.uid, first.secret?.uid)
    const other = { ...order, secret: { data: { token: 'another guess' } } }
    t.equal((await refusal(client.secrets.createSecret(other))).reason, 'IDEMPOTENCY_KEY_REUSED')
  }
  await repeats()
  // As hubs stored it before.
  await db.updateTable('idempotency_keys').set({ request_hash: plain }).execute()
  await repeats()
  // What another key has made is nobody's: it is refused, and not done again.
  await db
    .updateTable('idempotency_keys')
    .set({ request_hash: makeKeyring([randomBytes(32)]).digest(plain) })
    .execute()
  t.equal((await refusal(client.secrets.createSecret(order))).reason, 'IDEMPOTENCY_KEY_REUSED')
})

void t.test('ciphertext that was moved to another row is refused', async (t) => {
  const { test, client, startInstance } = await start(t)
  const { db } = test.database
  for (const secretId of ['cloud', 'other'])
    await client.secrets.createSecret({ parent, secretId, secret: { data: { token: `of ${secretId}` } } })
  await client.providers.createProvider({ providerId: 'p', provider: cloud })
  await sql`
    update secret_versions v set sealed = o.sealed
    from secrets s, secret_versions o, secrets os
    where s.id = v.secret_id and s.name = 'cloud' and os.id = o.secret_id and os.name = 'other'
  `.execute(db)
  void startInstance('p').catch(() => undefined)
  const refused = /the sealed value was changed, or belongs to another row/
  await until('the hub to refuse to open it', () => refused.test(test.log.join('')))
  t.match(await refusal(client.secrets.updateSecret({ secret: { name, data: { token: 'new' } } })), {
    reason: 'INTERNAL',
  })
})

void t.test('no canary is found outside of the session that it was meant for', async (t) => {
  const { test, client, log, startInstance } = await start(t)
  const planted = [canary(), canary(), canary(), canary(), canary()]
  const [first, second, own, userData, bad] = planted as [string, string, string, string, string]
  const answers: unknown[] = []
  const keep = async <T>(call: Promise<T>): Promise<T> => {
    const answer = await call
    answers.push(answer)
    return answer
  }
  const failed = async (call: Promise<unknown>) => {
    const error = await refusal(call)
    answers.push({ ...error, message: error.message, stack: error.stack, violations: error.violations })
  }
  await keep(
    client.secrets.createSecret({
      parent,
      secretId: 'cloud',
      secret: { data: { token: first } },
      requestId: first.slice(0, 5),
    }),
  )
  await keep(client.providers.createProvider({ providerId: 'p', provider: cloud, requestId: 'p' }))
  await keep(
    client.providers.createProvider({
      providerId: 'q',
      provider: { ...cloud, credentialsSecret: '', credentials: { token: own } },
    }),
  )
  const instances = [await startInstance('p'), await startInstance('q')]
  await keep(client.secrets.updateSecret({ secret: { name, data: { token: second } } }))
  await until('the second one to arrive', () => instances[0]?.seen.includes(second))
  await keep(client.secrets.updateSecret({ secret: { name, data: { token: `bad${bad}` } } }))
  await until('the third one to be refused', () => instances[0]?.seen.includes(`bad${bad}`))
  await failed(client.secrets.updateSecret({ secret: { name, data: { wrong: bad, token: { nested: bad } } } }))
  await failed(
    client.providers.updateProvider({ provider: { name: 'providers/q', credentials: { token: 1, other: bad } } }),
  )
  await failed(client.secrets.createSecret({ parent, secretId: 'cloud', secret: { data: { token: bad } } }))
  await test.database.db.updateTable('providers').set({ capabilities: '[]' }).execute()
  await keep(
    client.machineClasses.createMachineClass({
      machineClassId: 'c',
      machineClass: { offerings: [{ family: 'picky', typeId: 't' }] },
    }),
  )
  await keep(
    client.hosts.createHost({
      parent: 'workspaces/default',
      hostId: 'h',
      host: { machineClass: 'machineClasses/c', userData },
    }),
  )
  await keep(client.secrets.listSecrets({ parent: 'organizations/-' }))
  await keep(client.providers.listProviders({}))
  await keep(client.hosts.listHosts({ parent: 'workspaces/-' }))
  await keep(client.events.listEvents({ pageSize: 1000 }))
  const text = JSON.stringify(answers, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value))
  const haystacks = {
    ...(await dumpRows(test.database.db)),
    'hub log': test.log.join(''),
    'instance log': log.join(''),
    answers: text,
  }
  t.strictSame(findCanaries(planted, haystacks), [])
  const size = Object.values(haystacks).reduce((sum, hay) => sum + hay.length, 0)
  t.ok(size > 50_000 && text.length > 5_000, `there was something to look through: ${size} characters`)
  for (const disguise of disguises(first))
    t.ok(findCanaries([first], { planted: `…${disguise}…` }).length > 0, 'each disguise is seen through')
})
