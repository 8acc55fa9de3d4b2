import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { canary, countKeyUse, makeKeyring, openDatabase } from '@slipway/hub/testing'
import { sql } from 'kysely'
import t, { type Test } from 'tap'
import { Slipway, until } from '../tools/processes.js'

// The whole file may take longer than the runner's ordinary limit on a busy machine.
t.setTimeout(900_000)

// Credentials and keys that change under running processes, and an audit log that somebody changes, by the command line.

const simulated = 'providers/simulated/dist/src/main.js'
const quick = { createDuration: 100, deleteDuration: 100, powerDuration: 50, bootDuration: 100 }
const missing = process.env['SLIPWAY_TEST_DATABASE_URL'] === undefined
const skip =
  missing && process.env['CI'] !== 'true' && 'looks into the database of a hub: set SLIPWAY_TEST_DATABASE_URL'

const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40, architecture: 'amd64' },
  offerings: [{ family: 'simulated', typeId: 'sim-small' }],
}

interface SecretJson {
  readonly currentVersion: string
  readonly versions: readonly { readonly version: string; readonly destroyTime?: string }[]
  readonly uses?: readonly {
    readonly version: string
    readonly keptVersion?: string
    readonly pendingReason?: string
  }[]
}

interface ProviderJson {
  readonly conditions?: readonly { readonly type: string; readonly status: string; readonly reason: string }[]
}

/** The secret `cloud`, from a file. */
async function write(slipway: Slipway, verb: 'create' | 'rotate', apiToken: string): Promise<string> {
  const file = join(slipway.folder, 'secret.json')
  writeFileSync(file, JSON.stringify({ apiToken }), { mode: 0o600 })
  slipway.witness.needles.add('a credential', apiToken)
  return slipway.ok('secret', verb, 'cloud', '--data-file', file)
}

/** The versions that are kept. */
async function kept(slipway: Slipway): Promise<readonly string[]> {
  const { versions } = await slipway.json<SecretJson>('get', 'secret', 'cloud')
  return versions.flatMap(({ version, destroyTime }) => (destroyTime === undefined ? [version] : [])).sort()
}

async function withCloud(t: Test, key: string) {
  const slipway = await Slipway.start(t, { SLIPWAY_KEY: key, SLIPWAY_LEASE: '60s' })
  await write(slipway, 'create', `first ${canary()}`)
  const config = join(slipway.folder, 'cloud.json')
  writeFileSync(config, JSON.stringify(quick))
  await slipway.ok(
    ...['provider', 'add', 'cloud', '--family', 'simulated', '--kind', 'dynamic'],
    ...['--config-file', config, '--credentials-secret', 'organizations/default/secrets/cloud'],
  )
  const world = join(slipway.folder, 'world')
  const provider = await slipway.startProvider('cloud', simulated, ['--kind', 'dynamic', '--world', world])
  return { slipway, provider }
}

void t.test('credentials change under a provider that goes on running', { timeout: 600_000, skip }, async (t) => {
  const { slipway, provider } = await withCloud(t, randomBytes(32).toString('hex'))
  await slipway.apply(smallClass)
  const pid = provider.pid
  const order = (name: string) => slipway.ok('host', 'order', name, '--class', 'small', '--timeout', '120s')
  await order('web-1')

  await t.test('the old one is kept until the new one is told to work', async (t) => {
    process.kill(pid, 'SIGSTOP')
    try {
      await write(slipway, 'rotate', `second ${canary()}`)
      const { uses } = await slipway.json<SecretJson>('get', 'secret', 'cloud')
      t.match(uses, [{ version: '2', keptVersion: '1', pendingReason: /1 of 1 instances/ }])
      t.strictSame(await kept(slipway), ['1', '2'], 'nobody has said that it works')
    } finally {
      process.kill(pid, 'SIGCONT')
    }
    await until('the old one to be destroyed', async () => (await kept(slipway)).join() === '2', 120_000)
    t.match(await slipway.ok('events', 'provider/cloud'), /CredentialsProven/)
    await order('web-2')
    t.equal(provider.pid, pid)
    t.ok(provider.running, 'nothing was restarted')
  })

  await t.test('one that does not work leaves the old one in force, and says so', async (t) => {
    await write(slipway, 'rotate', `invalid ${canary()}`)
    const proven = await until('the refusal to be shown', async () => {
      const { conditions = [] } = await slipway.json<ProviderJson>('get', 'provider', 'cloud')
      return conditions.find(({ type, reason }) => type === 'CredentialsProven' && reason === 'Refused')
    })
    t.equal(proven.status, 'CONDITION_STATUS_FALSE')
    t.strictSame(await kept(slipway), ['2', '3'])
    const { uses } = await slipway.json<SecretJson>('get', 'secret', 'cloud')
    t.match(uses, [{ version: '3', keptVersion: '2', pendingReason: /1 of 1 instances/ }])
    await order('web-3')
    await provider.end('SIGTERM')
    provider.start()
    await until('it to be back', async () => {
      const { state } = await slipway.json<{ state: string }>('get', 'provider', 'cloud')
      return state === 'PROVIDER_STATE_CONNECTED'
    })
    await order('web-4')
    t.pass('what is started anew works with the old one as well')
    await write(slipway, 'rotate', `third ${canary()}`)
    await until('the others to be destroyed', async () => (await kept(slipway)).join() === '4', 120_000)
  })
})

void t.test(
  'another key takes over, though the hub dies in the middle of it',
  { timeout: 600_000, skip },
  async (t) => {
    const [old, fresh] = [randomBytes(32), randomBytes(32)]
    const { slipway, provider } = await withCloud(t, old.toString('hex'))
    await provider.end('SIGTERM')
    if (slipway.database === undefined) return t.fail('there is no database')
    const db = openDatabase({ connectionString: slipway.database, poolSize: 2 })
    t.teardown(() => db.destroy())
    const active = makeKeyring([fresh]).activeKeyId
    slipway.witness.needles.add('a key-encryption key', fresh.toString('hex'))
    /** What is not wrapped by the new key yet. */
    const left = async () =>
      (await countKeyUse(db)).filter(({ keyId }) => keyId !== active).map(({ where }) => where.split('.')[0])
    t.strictSame(await left(), ['certificate_authorities', 'secret_versions'])
    await slipway.hub.end('SIGTERM')

    // Held in the middle: what comes before this row is wrapped and committed, and this is waited for.
    await db.transaction().execute(async (tx) => {
      await sql`select from secret_versions for update`.execute(tx)
      slipway.hub.start({ SLIPWAY_KEY: `${fresh.toString('hex')}\n${old.toString('hex')}` })
      await until('the hub to have done a part', async () => (await left()).join() === 'secret_versions')
      await until('it to wait', async () => {
        const { rows } = await sql`
        select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%secret_versions%'
      `.execute(db)
        return rows.length > 0
      })
      await slipway.hub.end('SIGKILL')
    })
    t.strictSame(await left(), ['secret_versions'], 'what was done stays done, and no more was')

    slipway.hub.start({ SLIPWAY_KEY: `${fresh.toString('hex')}\n${old.toString('hex')}` })
    await until('the rest', async () => (await left()).length === 0, 120_000)
    await slipway.hub.end('SIGTERM')
    slipway.hub.start({ SLIPWAY_KEY: fresh.toString('hex') })
    await until('the hub', async () => (await fetch(`${slipway.url}/readyz`)).ok)
    provider.start()
    await until('the provider to be given its credentials', async () => {
      const { state } = await slipway.json<{ state: string }>('get', 'provider', 'cloud')
      return state === 'PROVIDER_STATE_CONNECTED'
    })
    await slipway.apply(smallClass)
    t.match(await slipway.ok('host', 'order', 'web-1', '--class', 'small', '--timeout', '120s'), /READY/)
  },
)

/** What somebody with the database in hand may do to a chain of eight entries, and what is said of it. */
const tampering = [
  {
    name: 'edit',
    said: /^CHANGED at 4:/m,
    act: (chain: string) =>
      sql`update audit_entries e set principal = 'principals/else' from audit_chain c where c.chain = ${chain}::uuid and c.sequence = 4 and e.id = c.entry_id`,
  },
  {
    name: 'delete',
    said: /^ENTRY_MISSING at 3:/m,
    act: (chain: string) =>
      sql`delete from audit_entries e using audit_chain c where c.chain = ${chain}::uuid and c.sequence = 3 and e.id = c.entry_id`,
  },
  {
    name: 'insert',
    said: /^INSERTED at \d+:/m,
    act: (chain: string) => sql`
      insert into audit_entries (xid, id, organization_id, principal, token_id, source, method, resource, result, request_id)
      select e.xid, gen_random_uuid(), e.organization_id, e.principal, e.token_id, e.source, e.method, e.resource, e.result, 'forged'
      from audit_entries e join audit_chain c on c.entry_id = e.id where c.chain = ${chain}::uuid and c.sequence = 5`,
  },
  {
    name: 'reorder',
    said: /^CHANGED at 2:(.|\n)*^CHANGED at 6:/m,
    act: (chain: string) => sql`
      update audit_entries e set request_id = other.request_id, at = other.at
      from audit_chain c join audit_chain d on d.chain = c.chain and d.sequence = 8 - c.sequence
        join audit_entries other on other.xid = d.entry_xid and other.id = d.entry_id
      where c.chain = ${chain}::uuid and c.sequence in (2, 6) and e.xid = c.entry_xid and e.id = c.entry_id`,
  },
  {
    name: 'truncate',
    said: /^TRUNCATED at 6:/m,
    act: (chain: string) => sql`
      with gone as (delete from audit_chain where chain = ${chain}::uuid and sequence >= 6 returning entry_id)
      delete from audit_entries e using gone where e.id = gone.entry_id`,
  },
] as const

void t.test('slipway audit verify says where', { timeout: 600_000, skip }, async (t) => {
  const slipway = await Slipway.start(t)
  if (slipway.database === undefined) return t.fail('there is no database')
  const db = openDatabase({ connectionString: slipway.database, poolSize: 2 })
  t.teardown(() => db.destroy())
  const call = async (method: string, body: object) => {
    const response = await fetch(`${slipway.url}/slipway.hub.v1.OrganizationService/${method}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${slipway.token}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    if (!response.ok) throw new Error(await response.text())
  }
  for (const { name } of tampering) {
    await call('CreateOrganization', { organizationId: name, organization: {} })
    for (let change = 1; change < 8; change++)
      await call('UpdateOrganization', { organization: { name: `organizations/${name}`, displayName: `is ${change}` } })
  }
  await until('all to be sealed, and nothing older to be on its way', async () => {
    const { rows } = await sql<{ passed: boolean }>`
      select (select count(*) from audit_chain) >= ${8 * tampering.length}
        and sealed_before > (select max(entry_xid) from audit_chain) as passed from audit_cursor
    `.execute(db)
    return rows[0]?.passed
  })
  for (const { name, said, act } of tampering) {
    const head = join(slipway.folder, `${name}.head`)
    await slipway.ok('audit', 'export', '--organization', name, '--head', head)
    const verify = () => slipway.cli('audit', 'verify', '--organization', name, '--head', head)
    t.match(await verify(), { code: 0, stdout: /^8 entries are as they were sealed/ }, name)
    const { rows } = await sql<{ id: string }>`select id from organizations where name = ${name}`.execute(db)
    await act(rows[0]?.id ?? '').execute(db)
    const found = await verify()
    t.match(found, { code: 1, stdout: said, stderr: /tampered with: \d+ faults/ }, name)
  }
})
