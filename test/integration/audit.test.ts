import { withHub, type TestHub } from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import { sql } from 'kysely'
import t from 'tap'

// The audit log of a whole hub: what it holds, and what it notices.

const ok = 1
const kinds = ['', 'CHANGED', 'ENTRY_MISSING', 'GAP', 'TRUNCATED', 'HEAD_MISMATCH', 'INSERTED']
const entries = 8

/** The reason that a call is refused for. */
async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call
    return 'nothing was refused'
  } catch (error) {
    if (error instanceof SlipwayError) return error.reason
    throw error
  }
}

/** An organization with some entries in its log, all of them sealed. */
async function sealed(client: SlipwayClient, id: string): Promise<string> {
  const name = `organizations/${id}`
  await client.organizations.createOrganization({ organizationId: id, organization: {} })
  for (let change = 1; change < entries; change++)
    await client.organizations.updateOrganization({ organization: { name, displayName: String(change) } })
  await waitSealed(client, name, entries)
  return name
}

async function waitSealed(client: SlipwayClient, parent: string, wanted: number): Promise<void> {
  const deadline = Date.now() + 60_000
  for (;;) {
    const { head } = await client.audit.getAuditHead({ parent })
    if (Number(head?.sequence ?? 0n) >= wanted) return
    if (Date.now() > deadline) throw new Error(`in vain waited for ${wanted} entries of ${parent} to be sealed`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** Until then, as long as any transaction of the database server is older, what comes beside the sealed entries could be one that was committed late, and is sealed after them. */
async function waitPassed({ database }: TestHub, chain: string): Promise<void> {
  const deadline = Date.now() + 60_000
  for (;;) {
    const { rows } = await sql<{ passed: boolean }>`
      select sealed_before > (select max(entry_xid) from audit_chain where chain = ${chain}::uuid) as passed from audit_cursor
    `.execute(database.db)
    if (rows[0]?.passed === true) return
    if (Date.now() > deadline) throw new Error('in vain waited for the sealer to have done with older transactions')
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

async function faultsOf(client: SlipwayClient, parent: string, head?: object): Promise<string[]> {
  const { faults } = await client.audit.verifyAudit({ parent, ...(head !== undefined && { head }) })
  return faults.map(({ kind, sequence }) => `${kinds[kind] ?? kind}@${sequence}`)
}

/** Each with the organization it is done to, and where it is found. */
const tampering: readonly {
  readonly name: string
  readonly found: readonly string[]
  readonly act: (test: TestHub, chain: string) => Promise<unknown>
}[] = [
  {
    name: 'edit',
    found: ['CHANGED@4'],
    act: ({ database }, chain) =>
      sql`update audit_entries e set resource = 'organizations/else' from audit_chain c where c.chain = ${chain}::uuid and c.sequence = 4 and e.id = c.entry_id`.execute(
        database.db,
      ),
  },
  {
    name: 'delete',
    found: ['ENTRY_MISSING@3'],
    act: ({ database }, chain) =>
      sql`delete from audit_entries e using audit_chain c where c.chain = ${chain}::uuid and c.sequence = 3 and e.id = c.entry_id`.execute(
        database.db,
      ),
  },
  {
    name: 'delete, from the chain too',
    found: ['GAP@5'],
    act: async ({ database }, chain) => {
      await sql`delete from audit_entries e using audit_chain c where c.chain = ${chain}::uuid and c.sequence = 5 and e.id = c.entry_id`.execute(
        database.db,
      )
      await sql`delete from audit_chain where chain = ${chain}::uuid and sequence = 5`.execute(database.db)
    },
  },
  {
    name: 'insert',
    found: ['INSERTED@8'],
    act: async (test, chain) => {
      await waitPassed(test, chain)
      await sql`
        insert into audit_entries (xid, id, organization_id, principal, token_id, source, method, resource, result, request_id)
        select e.xid, gen_random_uuid(), e.organization_id, e.principal, e.token_id, e.source, e.method, e.resource, e.result, 'forged'
        from audit_entries e join audit_chain c on c.entry_id = e.id where c.chain = ${chain}::uuid and c.sequence = 8
      `.execute(test.database.db)
    },
  },
  {
    name: 'insert, into the chain too',
    found: ['CHANGED@4', 'CHANGED@5', 'CHANGED@6'],
    act: async ({ database }, chain) => {
      // The entry at 4 is another one now, and the one that was there comes after it.
      await sql`update audit_chain set sequence = -sequence where chain = ${chain}::uuid and sequence in (4, 5)`.execute(
        database.db,
      )
      await sql`update audit_chain set sequence = case sequence when -4 then 5 else 4 end where chain = ${chain}::uuid and sequence < 0`.execute(
        database.db,
      )
    },
  },
  {
    name: 'reorder',
    found: ['CHANGED@2', 'CHANGED@6'],
    act: ({ database }, chain) => swapEntries(database.db, chain),
  },
  {
    name: 'truncate',
    found: ['TRUNCATED@6'],
    act: async ({ database }, chain) => {
      await sql`delete from audit_entries e using audit_chain c where c.chain = ${chain}::uuid and c.sequence >= 6 and e.id = c.entry_id`.execute(
        database.db,
      )
      await sql`delete from audit_chain where chain = ${chain}::uuid and sequence >= 6`.execute(database.db)
    },
  },
]

/** What two entries say changes places. */
async function swapEntries(db: TestHub['database']['db'], chain: string): Promise<void> {
  await sql`
    update audit_entries e set request_id = other.request_id, at = other.at
    from audit_chain c join audit_chain d on d.chain = c.chain and d.sequence = 8 - c.sequence
      join audit_entries other on other.xid = d.entry_xid and other.id = d.entry_id
    where c.chain = ${chain}::uuid and c.sequence in (2, 6) and e.xid = c.entry_xid and e.id = c.entry_id
  `.execute(db)
}

void t.test('the audit log', async (t) => {
  const test = await withHub(t)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })

  await t.test('says who did what, to what, from where', async (t) => {
    const parent = await sealed(client, 'seen')
    const { entries: found } = await client.audit.listAuditEntries({ parent })
    t.equal(found.length, entries)
    t.match(found.at(-1), {
      organization: parent,
      principal: 'principals/administrator',
      token: /^tokens\/[0-9a-f]{16}$/,
      sourceAddress: '127.0.0.1',
      method: 'slipway.hub.v1.OrganizationService/CreateOrganization',
      resource: parent,
      result: ok,
      requestId: /./,
      sequence: 1n,
    })
    t.strictSame(
      found.map(({ sequence }) => Number(sequence)),
      [8, 7, 6, 5, 4, 3, 2, 1],
      'newest first',
    )
    const paged: number[] = []
    for (let pageToken = ''; ;) {
      const page = await client.audit.listAuditEntries({ parent, pageSize: 3, pageToken, ascending: true })
      paged.push(...page.entries.map(({ sequence }) => Number(sequence)))
      pageToken = page.nextPageToken
      if (pageToken === '') break
    }
    t.strictSame(paged, [1, 2, 3, 4, 5, 6, 7, 8], 'oldest first, for export')
    const created = await client.audit.listAuditEntries({ parent, filter: { method: 'CreateOrganization' } })
    t.equal(created.entries.length, 1)
  })

  await t.test('shows what is not sealed yet, before all else', async (t) => {
    const parent = await sealed(client, 'waiting')
    const { rows } = await sql<{ id: string }>`select id from organizations where name = 'waiting'`.execute(
      test.database.db,
    )
    // As if it had been committed this very moment: the sealer comes to it in its next round.
    const blocked = await holdSealer(test)
    await client.organizations.updateOrganization({ organization: { name: parent, displayName: 'new' } })
    const { entries: found } = await client.audit.listAuditEntries({ parent, pageSize: 2 })
    t.strictSame(
      found.map(({ sequence, hash }) => [Number(sequence), hash !== '']),
      [
        [0, false],
        [8, true],
      ],
    )
    t.match(await client.audit.verifyAudit({ parent }), { verified: 8n, unsealed: 1n, faults: [] })
    await blocked()
    await waitSealed(client, parent, 9)
    t.match(await client.audit.verifyAudit({ parent }), { verified: 9n, unsealed: 0n, faults: [] })
    t.equal(rows.length, 1)
  })

  await t.test('notices, and says where', async (t) => {
    const parents = await Promise.all(tampering.map((_, index) => sealed(client, `tampered-${index}`)))
    for (const [index, { name, found, act }] of tampering.entries()) {
      const parent = parents[index] ?? ''
      t.strictSame(await faultsOf(client, parent), [], `nothing is amiss before: ${name}`)
      const { rows } = await sql<{
        id: string
      }>`select id from organizations where name = ${`tampered-${index}`}`.execute(test.database.db)
      await act(test, rows[0]?.id ?? '')
      // Where heads were signed is a matter of time.
      const faults = await faultsOf(client, parent)
      t.strictSame(
        faults.filter((fault) => !fault.startsWith('HEAD_MISMATCH')),
        found,
        name,
      )
    }
  })

  await t.test('is held to a head that was kept elsewhere', async (t) => {
    const parent = await sealed(client, 'kept')
    const { head, caCertificate } = await client.audit.getAuditHead({ parent })
    if (head === undefined) throw new Error('there is no head')
    t.ok(caCertificate.length > 100)
    t.strictSame(await faultsOf(client, parent, head), [])
    const { rows } = await sql<{ id: string }>`select id from organizations where name = 'kept'`.execute(
      test.database.db,
    )
    const chain = rows[0]?.id
    await sql`delete from audit_entries where organization_id = ${chain}::uuid`.execute(test.database.db)
    await sql`delete from audit_chain where chain = ${chain}::uuid`.execute(test.database.db)
    await sql`delete from audit_heads where chain = ${chain}::uuid`.execute(test.database.db)
    t.strictSame(await faultsOf(client, parent), [], 'who takes everything leaves nothing to see')
    t.strictSame(await faultsOf(client, parent, head), ['TRUNCATED@1'], 'but for the head')
    const forged = { ...head, hash: '0'.repeat(64) }
    t.equal(await refusal(client.audit.verifyAudit({ parent, head: forged })), 'INVALID_FIELD')
    const signature = Uint8Array.from(head.signature, (byte, index) => (index === 0 ? byte ^ 1 : byte))
    t.equal(await refusal(client.audit.verifyAudit({ parent, head: { ...head, signature } })), 'INVALID_FIELD')
  })

  await t.test('has what was refused', async (t) => {
    const { secret } = await lookOn(client)
    const stranger = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: secret })
    t.equal(
      await refusal(stranger.organizations.deleteOrganization({ name: 'organizations/watched' })),
      'PERMISSION_MISSING',
    )
    const deadline = Date.now() + 30_000
    const denied = () => client.audit.listAuditEntries({ parent: 'organizations/watched', filter: { result: 2 } })
    while ((await denied()).entries.length === 0 && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 50))
    t.match(await denied(), {
      entries: [{ method: /DeleteOrganization$/, resource: 'organizations/watched', principal: /looker$/ }],
    })
  })
})

async function lookOn(client: SlipwayClient): Promise<{ readonly secret: string }> {
  await client.organizations.createOrganization({ organizationId: 'watched', organization: {} })
  const parent = 'organizations/watched'
  await client.principals.createPrincipal({ parent, principalId: 'looker', principal: { kind: 2 } })
  const principal = `${parent}/principals/looker`
  await client.roleBindings.createRoleBinding({ parent, roleBinding: { principal, role: 4 } })
  return client.tokens.createToken({ principal })
}

/** Keeps the sealer from its lease. @returns what lets it go on. */
async function holdSealer({ database }: TestHub): Promise<() => Promise<void>> {
  await sql`
    update controllers set holder = 'a test', fence = fence + 1, expires_at = clock_timestamp() + interval '10 minutes' where name = 'audit-seal'
  `.execute(database.db)
  return async () => {
    await sql`update controllers set expires_at = clock_timestamp() where name = 'audit-seal'`.execute(database.db)
  }
}
