import { createHash } from 'node:crypto'
import { withHub, type TestHub } from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import { sql } from 'kysely'
import t, { type Test } from 'tap'

// Organizations, principals, roles and tokens over the client API of a whole hub. Who may call what is the authorization matrix's.

const [user, serviceAccount] = [1, 2]
const [owner, operator, , viewer, administrator] = [1, 2, 3, 4, 5]
const own = 'organizations/acme'

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
  readonly admin: SlipwayClient
  readonly as: (token: string) => SlipwayClient
  /** A principal of the organization with a role somewhere, and a token of it. */
  readonly member: (id: string, role: number, parent?: string, kind?: number) => Promise<string>
}

async function start(t: Test): Promise<Scene> {
  const test = await withHub(t)
  const as = (token: string) => createSlipwayClient({ baseUrl: test.hub.apiUrl, token })
  const admin = as(test.token)
  await admin.organizations.createOrganization({ organizationId: 'acme', organization: { displayName: 'Acme' } })
  await admin.workspaces.createWorkspace({ parent: own, workspaceId: 'acme-web', workspace: {} })
  const member = async (id: string, role: number, parent = own, kind: number = serviceAccount) => {
    const { principal } = await admin.principals.createPrincipal({ parent: own, principalId: id, principal: { kind } })
    const name = principal?.name ?? ''
    await admin.roleBindings.createRoleBinding({ parent, roleBinding: { principal: name, role } })
    return (await admin.tokens.createToken({ principal: name })).secret
  }
  return { test, admin, as, member }
}

void t.test('what was there before there were tenants goes on working', async (t) => {
  const { admin, test } = await start(t)
  t.match(test.token, /^swc_/)
  t.match(await admin.system.getServerInfo({}), {
    caller: 'bootstrap',
    principal: 'principals/administrator',
    roleBindings: [{ role: administrator }],
  })
  t.match(await admin.workspaces.getWorkspace({ name: 'workspaces/default' }), {
    workspace: { organization: 'organizations/default' },
  })
  t.match(await refusal(admin.organizations.deleteOrganization({ name: 'organizations/default' })), {
    reason: 'ORGANIZATION_IN_USE',
  })
})

void t.test('organizations and workspaces keep the conventions of the house', async (t) => {
  const { admin } = await start(t)
  const order = { organizationId: 'once', organization: { displayName: 'Once' }, requestId: 'r-1' }
  const [first, again] = await Promise.all([1, 2].map(() => admin.organizations.createOrganization(order)))
  t.strictSame(first?.organization?.uid, again?.organization?.uid, 'one request_id, one organization')
  t.match(await refusal(admin.organizations.createOrganization({ ...order, organization: { displayName: 'Other' } })), {
    reason: 'IDEMPOTENCY_KEY_REUSED',
  })
  t.match(await refusal(admin.organizations.createOrganization({ organizationId: 'once' })), {
    reason: 'NAME_TAKEN',
    violations: [{ field: 'organization_id' }],
  })
  await admin.organizations.createOrganization({ organizationId: 'only-tried', validateOnly: true })
  t.match(await refusal(admin.organizations.getOrganization({ name: 'organizations/only-tried' })), {
    reason: 'ORGANIZATION_NOT_FOUND',
  })
  const etag = first?.organization?.etag ?? ''
  const name = 'organizations/once'
  const changed = await admin.organizations.updateOrganization({
    organization: { name, etag, displayName: 'Twice', labels: { a: 'b' } },
    updateMask: { paths: ['display_name'] },
  })
  t.match(changed, { organization: { displayName: 'Twice', labels: {} } }, 'the mask is kept to')
  t.match(await refusal(admin.organizations.updateOrganization({ organization: { name, etag } })), {
    reason: 'ETAG_MISMATCH',
  })
  const seen: string[] = []
  for (let pageToken = ''; ;) {
    const page = await admin.organizations.listOrganizations({ pageSize: 1, pageToken })
    seen.push(...page.organizations.map((each) => each.name))
    pageToken = page.nextPageToken
    if (pageToken === '') break
  }
  t.strictSame(seen, ['organizations/acme', 'organizations/default', 'organizations/once'])
  t.match(await refusal(admin.organizations.deleteOrganization({ name: own })), { reason: 'ORGANIZATION_IN_USE' })
  await admin.workspaces.deleteWorkspace({ name: 'workspaces/acme-web' })
  await admin.organizations.deleteOrganization({ name: own })
  await admin.organizations.deleteOrganization({ name: own, allowMissing: true })
  t.match(
    await refusal(admin.workspaces.createWorkspace({ parent: 'organizations/once', workspaceId: 'acme-web' })),
    { reason: 'NAME_TAKEN' },
    'a name is given once',
  )
})

void t.test('secrets are listed to those whose they are', async (t) => {
  const { test, admin, as, member } = await start(t)
  for (const organization of ['acme', 'default'])
    await admin.secrets.createSecret({
      parent: `organizations/${organization}`,
      secretId: 'key',
      secret: { data: { a: organization } },
    })
  const list = async (token: string, parent = 'organizations/-') =>
    (await as(token).secrets.listSecrets({ parent })).secrets.map(({ name }) => name)
  t.strictSame(await list(test.token), ['organizations/acme/secrets/key', 'organizations/default/secrets/key'])
  const acme = await member('acme-owner', owner)
  t.strictSame(await list(acme), ['organizations/acme/secrets/key'])
  t.strictSame(await list(acme, own), ['organizations/acme/secrets/key'])
  t.strictSame(await list(await member('acme-operator', operator)), ['organizations/acme/secrets/key'])
  t.strictSame(await list(await member('web-owner', owner, 'workspaces/acme-web')), [], 'they are the organization’s')
  t.equal((await refusal(list(await member('looks-on', viewer)))).reason, 'PERMISSION_MISSING')
  t.equal((await refusal(list(acme, 'organizations/default'))).reason, 'ORGANIZATION_NOT_FOUND')
})

void t.test('tokens', async (t) => {
  const { test, admin, as, member } = await start(t)
  const { db } = test.database
  await t.test('say whose they are, are kept as a hash, and end', async (t) => {
    const robot = await member('robot', viewer)
    const person = await member('ada', viewer, own, user)
    t.match(robot, /^sws_[0-9a-f]{16}_[0-9a-f]{64}_[0-9a-f]{8}$/)
    t.match(person, /^swu_/)
    t.match(await as(person).system.getServerInfo({}), { principal: `${own}/principals/ada` })
    const secret = robot.split('_')[2] ?? ''
    const dump = await sql<{ row: string }>`select to_jsonb(t)::text as row from client_tokens t`.execute(db)
    t.notOk(
      dump.rows.some(({ row }) => row.includes(secret)),
      'the secret is in no row',
    )
    t.ok(dump.rows.some(({ row }) => row.includes(createHash('sha256').update(secret).digest('hex'))))
    const damaged = robot.slice(0, -1) + (robot.endsWith('0') ? '1' : '0')
    t.match(await refusal(as(damaged).system.getServerInfo({})), { reason: 'TOKEN_INVALID' })
    const short = await admin.tokens.createToken({ principal: `${own}/principals/robot`, ttl: { seconds: 3600n } })
    t.ok(short.token?.expireTime)
    await sql`update client_tokens set expires_at = now() - interval '1 second' where id = ${short.secret.split('_')[1]}`.execute(
      db,
    )
    t.match(await refusal(as(short.secret).system.getServerInfo({})), { reason: 'TOKEN_INVALID' }, 'it has expired')
  })

  await t.test('are kept by their owners, and made by nobody for anybody above', async (t) => {
    const boss = as(await member('boss', owner))
    const mine = await boss.tokens.createToken({ displayName: 'second' })
    t.equal(mine.token?.principal, `${own}/principals/boss`)
    t.strictSame(
      (await as(mine.secret).tokens.listTokens({ principal: `${own}/principals/boss` })).tokens
        .map((token) => token.displayName)
        .sort(),
      ['boss', 'second'],
    )
    await boss.tokens.createToken({ principal: `${own}/principals/robot` })
    await admin.principals.createPrincipal({ parent: own, principalId: 'mighty', principal: { kind: serviceAccount } })
    const principal = `${own}/principals/mighty`
    await admin.roleBindings.createRoleBinding({ parent: '', roleBinding: { principal, role: administrator } })
    t.match(await refusal(boss.tokens.createToken({ principal })), { reason: 'ROLE_TOO_HIGH' })
    t.match(
      await refusal(
        boss.roleBindings.createRoleBinding({ parent: '', roleBinding: { principal, role: administrator } }),
      ),
      { reason: 'PERMISSION_MISSING' },
    )
    t.match(
      await refusal(
        boss.roleBindings.createRoleBinding({ parent: own, roleBinding: { principal, role: administrator } }),
      ),
      { reason: 'INVALID_FIELD' },
    )
  })

  await t.test('are noted when used, in batches', async (t) => {
    const robot = await member('busy', viewer)
    for (let call = 0; call < 5; call++) await as(robot).system.getServerInfo({})
    const id = robot.split('_')[1] ?? ''
    const used = () =>
      sql<{ at: Date | null }>`select last_used_at as at from client_tokens where id = ${id}`.execute(db)
    const deadline = Date.now() + 30_000
    while ((await used()).rows[0]?.at === null && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 100))
    t.ok((await used()).rows[0]?.at)
  })
})

void t.test('what ends access, ends what is open', async (t) => {
  const { admin, as, member } = await start(t)
  /** A watch that has begun, and how it ends. */
  const begun = async (token: string): Promise<{ readonly end: Promise<string> }> => {
    const watch = as(token).workspaces.watchWorkspaces({}, { timeoutMs: 0 })[Symbol.asyncIterator]()
    await watch.next()
    const follow = async () => {
      try {
        while ((await watch.next()).done !== true);
        return 'done'
      } catch (error) {
        return error instanceof SlipwayError ? error.reason : String(error)
      }
    }
    return { end: follow() }
  }

  const revoked = await member('revoked', viewer)
  const first = await begun(revoked)
  const token = (await as(revoked).tokens.listTokens({})).tokens[0]?.name ?? ''
  await admin.tokens.revokeToken({ name: token })
  t.equal(await first.end, 'TOKEN_INVALID', 'a watch ends when its token is revoked')
  t.match(await refusal(as(revoked).workspaces.listWorkspaces({})), { reason: 'TOKEN_INVALID' })

  const disabled = await member('disabled', viewer)
  const second = await begun(disabled)
  await admin.principals.updatePrincipal({
    principal: { name: `${own}/principals/disabled`, disabled: true },
    updateMask: { paths: ['disabled'] },
  })
  t.equal(await second.end, 'TOKEN_INVALID', 'and when its principal is disabled')

  const lowered = await member('lowered', operator)
  const third = await begun(lowered)
  const [binding] = (await admin.roleBindings.listRoleBindings({ principal: `${own}/principals/lowered` })).roleBindings
  await admin.roleBindings.deleteRoleBinding({ name: binding?.name ?? '' })
  t.equal(await third.end, 'ACCESS_CHANGED', 'and when it may see less')
  t.match(await refusal(as(lowered).workspaces.listWorkspaces({})), { reason: 'PERMISSION_MISSING' })

  const deleted = await member('deleted', viewer)
  await admin.principals.deletePrincipal({ name: `${own}/principals/deleted` })
  t.match(await refusal(as(deleted).workspaces.listWorkspaces({})), { reason: 'TOKEN_INVALID' })
})

void t.test('somebody always administers the hub', async (t) => {
  const { admin } = await start(t)
  const name = 'principals/administrator'
  const [binding] = (await admin.roleBindings.listRoleBindings({ principal: name })).roleBindings
  const refusals = await Promise.all([
    refusal(admin.roleBindings.deleteRoleBinding({ name: binding?.name ?? '' })),
    refusal(
      admin.principals.updatePrincipal({ principal: { name, disabled: true }, updateMask: { paths: ['disabled'] } }),
    ),
    refusal(admin.principals.deletePrincipal({ name })),
  ])
  t.strictSame(
    refusals.map(({ reason }) => reason),
    ['LAST_ADMINISTRATOR', 'LAST_ADMINISTRATOR', 'LAST_ADMINISTRATOR'],
  )
})
