import { randomUUID } from 'node:crypto'
import { withHub, type TestHub } from '@slipway/hub/testing'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import t, { type Test } from 'tap'

// OrphanService and the policy of providers over the client API of a whole hub; the listings behind them are played by rows.

const [keptState, removingState] = [1, 2]
const [keptByPerson, reports] = [4, 6]

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
  readonly hubId: string
  /** Records an orphan as a listing leaves it. @returns its resource name. */
  readonly plant: (provider: string, externalId: string, over?: object) => Promise<string>
}

async function start(t: Test): Promise<Scene> {
  const test = await withHub(t)
  const { db } = test.database
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  const { hubId } = await client.system.getServerInfo({})
  for (const [providerId, family] of [
    ['one', 'simulated'],
    ['two', 'other-cloud'],
  ] as const)
    await client.providers.createProvider({ providerId, provider: { family, kind: 2 } })
  await db
    .updateTable('providers')
    .set({ capabilities: JSON.stringify(['REMOVE_ORPHAN']) })
    .execute()
  let count = 0
  const plant = async (provider: string, externalId: string, over: object = {}) => {
    const row = await db.selectFrom('providers').select('id').where('name', '=', provider).executeTakeFirstOrThrow()
    const requestId = randomUUID()
    const now = new Date()
    const name = `o-${String(++count).padStart(12, '0')}`
    await db
      .insertInto('orphans')
      .values({
        ...{ provider_id: row.id, provider_name: provider, id: `00000000-0000-4000-8000-${name.slice(2)}`, name },
        ...{ kind: 'server', external_id: externalId, external_name: 'web-1' },
        ...{ ownership_key: `${hubId}/${requestId}`, request_id: requestId },
        ...{ first_seen_at: now, last_seen_at: now, last_listing_id: randomUUID() },
        ...{ keep_reason: 'POLICY_REPORTS', keep_message: "the provider's policy is to report", ...over },
      })
      .execute()
    return `providers/${provider}/orphans/${name}`
  }
  return { test, client, hubId, plant }
}

void t.test('orphans are listed in pages, by provider, family, sort, state and reason', async (t) => {
  const { client, plant } = await start(t)
  const names: string[] = []
  for (let index = 0; index < 7; index++)
    names.push(await plant(index % 2 === 0 ? 'one' : 'two', `srv-${index}`, index === 6 ? { kind: 'volume' } : {}))
  const seen: string[] = []
  let pageToken = ''
  do {
    const page = await client.orphans.listOrphans({ parent: 'providers/-', pageSize: 3, pageToken })
    seen.push(...page.orphans.map(({ name }) => name))
    pageToken = page.nextPageToken
  } while (pageToken !== '')
  t.strictSame(seen, names, 'oldest first, each once')
  const count = async (parent: string, filter: object = {}) =>
    (await client.orphans.listOrphans({ parent, filter })).orphans.length
  t.equal(await count('providers/one'), 4)
  t.equal(await count('providers/-', { families: ['other-cloud'] }), 3)
  t.equal(await count('providers/-', { kinds: ['volume'] }), 1)
  t.equal(await count('providers/-', { states: [removingState] }), 0)
  t.equal(await count('providers/-', { states: [keptState], keepReasons: [reports] }), 7)
  t.equal(await count('providers/-', { keepReasons: [keptByPerson] }), 0)
  t.match(await refusal(count('nonsense')), { reason: 'INVALID_FIELD', violations: [{ field: 'parent' }] })
  const { nextPageToken } = await client.orphans.listOrphans({ parent: 'providers/-', pageSize: 3 })
  t.match(await refusal(client.orphans.listOrphans({ parent: 'providers/one', pageToken: nextPageToken })), {
    reason: 'INVALID_PAGE_TOKEN',
  })
  const [name = ''] = names
  t.match(await client.orphans.getOrphan({ name: name.replace('/one/', '/-/') }), { orphan: { name } })
  t.match(await refusal(client.orphans.getOrphan({ name: name.replace('/one/', '/two/') })), {
    reason: 'ORPHAN_NOT_FOUND',
  })
  t.match(await refusal(client.orphans.getOrphan({ name: 'orphans/x' })), { reason: 'INVALID_FIELD' })
})

void t.test('a removal must be confirmed, and is refused for what is in use or not ours', async (t) => {
  const { test, client, hubId, plant } = await start(t)
  const { db } = test.database
  const name = await plant('one', 'srv-1')
  const remove = (orphan: string, confirmExternalId: string, etag = '') =>
    client.orphans.removeOrphan({ name: orphan, confirmExternalId, etag })
  t.match(await refusal(remove(name, '')), { reason: 'INVALID_FIELD', violations: [{ field: 'confirm_external_id' }] })
  t.match(await refusal(remove(name, 'srv-2')), {
    reason: 'INVALID_FIELD',
    violations: [{ field: 'confirm_external_id' }],
  })
  t.match(await refusal(remove(name, 'srv-1', '99')), { reason: 'ETAG_MISMATCH' })
  t.match(await client.orphans.getOrphan({ name }), { orphan: { state: keptState, etag: '1' } })
  const { orphan } = await remove(name, 'srv-1', '1')
  t.match(orphan, { state: removingState, keepReason: 0, removalOrderedBy: /^token\//, removalAttempts: 0 })
  t.match(await client.events.listEvents({ filter: { subject: name } }), {
    events: [{ reason: 'OrphanRemovalOrdered', subject: name, related: ['providers/one'], actor: /^token\// }],
  })

  const garbled = await plant('one', 'srv-3', { ownership_key: `${hubId}/x`, request_id: null })
  t.match(await refusal(remove(garbled, 'srv-3')), { reason: 'ORPHAN_NOT_OURS' })
  const foreign = await plant('one', 'srv-4', { ownership_key: `${randomUUID()}/${randomUUID()}` })
  t.match(await refusal(remove(foreign, 'srv-4')), { reason: 'ORPHAN_NOT_OURS' })
  const used = await plant('one', 'srv-5')
  const { id } = await db.selectFrom('providers').select('id').where('name', '=', 'one').executeTakeFirstOrThrow()
  await db
    .insertInto('machines')
    .values({
      provider_id: id,
      id: randomUUID(),
      name: 'm-1',
      provider_name: 'one',
      static: false,
      external_id: 'srv-5',
      state: 'ACTIVE',
    } as never)
    .execute()
  t.match(await refusal(remove(used, 'srv-5')), { reason: 'ORPHAN_IN_USE' })
  await db.updateTable('providers').set({ capabilities: '[]' }).execute()
  const unable = await plant('two', 'srv-6')
  t.match(await refusal(remove(unable, 'srv-6')), { reason: 'ORPHAN_REMOVAL_UNSUPPORTED' })
})

void t.test('a person has one kept, unless it is being removed', async (t) => {
  const { test, client, plant } = await start(t)
  const name = await plant('one', 'srv-1')
  const keep = async (reason: string) => (await client.orphans.keepOrphan({ name, reason })).orphan
  t.match(await keep('evidence'), { keepReason: keptByPerson, keptFor: 'evidence', keptBy: /^token\// })
  t.match(await keep(''), { keepReason: reports, keptFor: '', keptBy: '' })
  await client.orphans.removeOrphan({ name, confirmExternalId: 'srv-1' })
  t.match(await keep(''), { state: removingState }, 'to leave it to the policy takes no order back')
  t.match(await keep('stop'), { state: keptState, keepReason: keptByPerson, removalOrderedBy: '' })
  await client.orphans.removeOrphan({ name, confirmExternalId: 'srv-1' })
  const [sent, due] = [new Date(), new Date(Date.now() + 60_000)]
  await test.database.db.updateTable('orphans').set({ removal_sent_at: sent, removal_due_at: due }).execute()
  t.match(await refusal(keep('too late')), { reason: 'ORPHAN_BEING_REMOVED' })
  await test.database.db.updateTable('orphans').set({ removal_sent_at: null, removal_due_at: due }).execute()
  t.match(await keep('it failed, and waits'), { state: keptState })
})

void t.test('the policy of a provider', async (t) => {
  const { test, client } = await start(t)
  const defaults = { mode: 1, minAge: { seconds: 3600n }, maxPerPass: 5, maxPercent: 10 }
  t.match(await client.providers.getProvider({ name: 'providers/one' }), { provider: { orphanPolicy: defaults } })
  const made = await client.providers.createProvider({
    providerId: 'three',
    provider: { family: 'simulated', kind: 2, orphanPolicy: { mode: 2, minAge: { seconds: 1n }, maxPercent: 50 } },
  })
  t.match(made.provider?.orphanPolicy, { mode: 2, minAge: { seconds: 1n }, maxPerPass: 5, maxPercent: 50 })
  const update = (orphanPolicy: object, name = 'providers/one') =>
    client.providers.updateProvider({ provider: { name, orphanPolicy }, updateMask: { paths: ['orphan_policy'] } })
  for (const [policy, field] of [
    [{ minAge: { seconds: -1n } }, 'min_age'],
    [{ maxPercent: 101 }, 'max_percent'],
    [{ maxPerPass: 1001 }, 'max_per_pass'],
    [{ mode: 9 }, 'mode'],
  ] as const) {
    const violations = [{ field: `provider.orphan_policy.${field}` }]
    t.match(await refusal(update(policy)), { reason: 'INVALID_FIELD', violations })
  }
  await client.providers.createProvider({ providerId: 'rack', provider: { family: 'simulated-rack', kind: 1 } })
  t.match(await refusal(update({ mode: 2 }, 'providers/rack')), {
    reason: 'INVALID_FIELD',
    violations: [{ field: 'provider.orphan_policy' }],
  })
  t.match(await client.providers.getProvider({ name: 'providers/rack' }), { provider: { orphanPolicy: undefined } })

  const stopCondition = {
    ...{ type: 'OrphanRemoval', status: 'FALSE', reason: 'TooMany', message: '11 orphans' },
    lastTransitionAt: new Date().toISOString(),
  }
  await test.database.db
    .updateTable('providers')
    .set({ orphan_stopped_at: new Date(), conditions: JSON.stringify([stopCondition]) })
    .where('name', '=', 'one')
    .execute()
  const stopped = await client.providers.getProvider({ name: 'providers/one' })
  t.ok(stopped.provider?.orphanRemovalStopTime, 'that it stopped is shown')
  const labelled = await client.providers.updateProvider({
    provider: { name: 'providers/one', labels: { a: 'b' } },
    updateMask: { paths: ['labels'] },
  })
  t.ok(labelled.provider?.orphanRemovalStopTime, 'another change lets nothing go on')
  const resumed = await update({ mode: 2 })
  t.match(resumed.provider, { orphanPolicy: { mode: 2 }, orphanRemovalStopTime: undefined, conditions: [] })
  const { events } = await client.events.listEvents({ filter: { subject: 'providers/one' } })
  t.ok(events.some(({ reason }) => reason === 'OrphanRemovalResumed'))
})
