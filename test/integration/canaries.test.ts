import { createRegistry, type DescMessage } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { canary, disguises, holdsSecrets, Needles, secretPart, withHub, Witness } from '@slipway/hub/testing'
import { createSlipwayClient } from '@slipway/sdk/client'
import fc from 'fast-check'
import { sql } from 'kysely'
import t from 'tap'

// The scan that every hub of every test goes through at its end: that it finds what is there, and nothing else.

const parent = 'organizations/default'

void t.test('needles', async (t) => {
  await t.test('are found in each disguise, wherever it stands', () => {
    const mark = canary()
    for (const disguise of disguises(mark))
      fc.assert(
        fc.property(fc.string({ maxLength: 40 }), fc.string({ maxLength: 40 }), (before, after) => {
          const needles = new Needles()
          needles.add('mark', mark)
          needles.add('another', canary())
          const found = needles.search('here', `${before}${disguise}${after}`)
          return found.length > 0 && found.every(({ what, at }) => what.startsWith('mark') && at >= 0)
        }),
        { numRuns: 50 },
      )
    return Promise.resolve()
  })

  await t.test('are all found that a plain search finds, and no others', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f', '/', '+'), maxLength: 300 })
    const texts = fc.array(fc.string({ unit: 'binary', minLength: 12, maxLength: 30 }), { maxLength: 8 })
    fc.assert(
      fc.property(texts, letters, letters, fc.nat(), (secrets, before, after, pick) => {
        const needles = new Needles()
        for (const [index, text] of secrets.entries()) needles.add(String(index), text)
        const hay = before + (secrets[pick % Math.max(1, secrets.length)] ?? '') + after
        const found = needles.search('hay', hay).length > 0
        const plain = secrets.some(
          (text) =>
            new Set(text).size >= 6 && text.length >= 12 && disguises(text).some((disguise) => hay.includes(disguise)),
        )
        return found === plain
      }),
      { numRuns: 500 },
    )
    return Promise.resolve()
  })

  await t.test('are no words, no padding, and of what is long the middle', (t) => {
    const needles = new Needles()
    for (const text of ['password', 'x'.repeat(500), '']) needles.add('chance', text)
    t.equal(needles.size, 0)
    const long = `${'-'.repeat(400)}${canary()}${'='.repeat(400)}`
    needles.add('long', long)
    t.ok(needles.search('here', `… ${long.slice(300, 600)} …`).length > 0)
    t.end()
  })
})

void t.test('what the contract calls secret is what is named so', async (t) => {
  const files = Object.values(hub).flatMap((value) =>
    typeof value === 'object' && 'kind' in value && (value as { kind: string }).kind === 'file' ? [value] : [],
  )
  const messages = [...createRegistry(...(files as never[]))].filter((type) => type.kind === 'message')
  t.ok(messages.length > 200, `${messages.length} messages`)
  // Names of things, filters and counts, which are nobody's secret; `Secret` itself is a document of which one field is.
  const open = [
    ...['page_token', 'next_page_token', 'credentials_secret', 'has_credentials', 'secret'],
    ...['token', 'tokens', 'secrets', 'data', 'secret_id', 'public_client_secret'],
  ]
  const suspicious = /secret|token|credential|password|user_data|private/
  const missing = messages.flatMap((message) =>
    message.fields
      .filter(({ name, proto }) => suspicious.test(name) && !open.includes(name) && proto.options?.debugRedact !== true)
      .map(({ name }) => `${message.name}.${name}`),
  )
  // The user-data of a class is part of what is offered, and there to be read.
  t.strictSame(missing, ['ClassBootstrap.user_data'])
  const named = (name: string) => messages.find((message) => message.name === name) as DescMessage
  for (const name of ['CreateSecretRequest', 'CreateHostRequest', 'CreateTokenResponse', 'ListHostsResponse'])
    t.ok(holdsSecrets(named(name)), name)
  t.notOk(holdsSecrets(named('ListEventsRequest')))
})

void t.test('a leak is found, wherever it is planted', async (t) => {
  const test = await withHub(t)
  const client = createSlipwayClient({ baseUrl: test.hub.apiUrl, token: test.token })
  const { db } = test.database
  const mark = canary()
  await client.secrets.createSecret({ parent, secretId: 's', secret: { data: { deep: [{ token: mark }] } } })
  const { joinToken } = await client.providers
    .createProvider({ providerId: 'p', provider: { family: 'f', kind: 2, credentials: { token: canary() } } })
    .then(() => client.providers.createJoinToken({ provider: 'providers/p' }))
  t.ok(test.witness.needles.size >= 5, `${test.witness.needles.size} secrets are looked for`)

  // What is planted here is no finding of the suite.
  const totals = process.env['SLIPWAY_CANARY_TOTALS']
  delete process.env['SLIPWAY_CANARY_TOTALS']
  t.teardown(() => {
    if (totals !== undefined) process.env['SLIPWAY_CANARY_TOTALS'] = totals
  })

  /** What a witness that knows what this one knows finds in what is there now. */
  const scan = async (answer = ''): Promise<string> => {
    const other = new Witness()
    for (const text of [mark, secretPart(joinToken), secretPart(test.token)]) other.needles.add('a secret', text)
    other.keep(answer)
    other.search('the log', test.log.join(''))
    await other.searchDatabase(db, undefined)
    try {
      other.finish()
      return 'nothing'
    } catch (error) {
      return (error as Error).message
    }
  }
  t.equal(await scan(), 'nothing')
  for (const [index, disguise] of disguises(mark).entries()) {
    t.match(await scan(`so ${disguise}.`), /a secret \(form \d+\) in an answer/, `form ${index} in an answer`)
    if (index % 4 > 0) continue
    await db.updateTable('organizations').set({ display_name: disguise }).execute()
    t.match(await scan(), /a secret \(form \d+\) in table organizations/, `form ${index} in a row`)
    await db.updateTable('organizations').set({ display_name: '' }).execute()
    await db.deleteFrom('changes').execute()
  }
  await sql`
    insert into provider_credentials (provider_id, config_version, sealed) select id, 99, ${Buffer.from(`\0${mark}`)} from providers
  `.execute(db)
  t.match(await scan(), /in table provider_credentials/, 'in bytes')
  await sql`delete from provider_credentials where config_version = 99`.execute(db)
  await db.deleteFrom('changes').execute()
  t.equal(await scan(), 'nothing')

  await t.test('of what the hub was told in a call', async (t) => {
    const own = new Witness()
    own.needles.addAll('CreateSecretRequest.secret.data', { deep: [{ token: mark }] })
    own.keep(JSON.stringify({ message: `no such secret: ${mark}` }))
    t.throws(() => own.finish(), /CreateSecretRequest\.secret\.data\.deep\.0\.token/)
  })
})
