import assert from 'node:assert/strict'
import test, { type TestContext } from 'node:test'
import { FakeCloud, goodToken } from '../testing/fake-cloud.js'
import { Client } from './client.js'
import { configSchema, dataSchema } from './config.js'
import { toProviderError } from './errors.js'
import { keyLabel, observedOf, ownedOf } from './map.js'

// What is yours to get right; what all providers must get right, the conformance kit looks after.

const signal = new AbortController().signal

async function start(t: TestContext, token = goodToken) {
  const cloud = await FakeCloud.start(keyLabel)
  t.after(() => cloud.stop())
  return { cloud, client: new Client(configSchema.parse({ url: cloud.url }), { token }) }
}

const order = { name: 'web-1', type: 'small', image: 'debian-13', location: 'here', labels: {}, userData: '' }

void test('configuration and orders have defaults, and refuse what they do not know', () => {
  assert.deepEqual(dataSchema.parse({}), { image: 'debian-13' })
  assert.equal(configSchema.safeParse({ url: 'https://cloud.example', locatoin: 'x' }).success, false)
})

void test('a server is made, found by its label, and deleted', async (t) => {
  const { client } = await start(t)
  const { id } = await client.create({ ...order, labels: { [keyLabel]: 'hub/request' } }, signal)
  const found = []
  for await (const server of client.list(`${keyLabel}=hub/request`, signal)) found.push(server)
  assert.deepEqual(
    found.map((server) => ownedOf(server)?.ownershipKey),
    ['hub/request'],
  )
  await client.delete(id, signal)
  await client.delete('srv-none', signal)
  assert.equal(await client.get('srv-none', signal), undefined)
})

void test('a listing that breaks does not look whole', async (t) => {
  const { cloud, client } = await start(t)
  for (let count = 0; count < 60; count += 1) cloud.plant(`web-${count}`, {})
  cloud.faults = { listBreaks: true }
  await assert.rejects(async () => {
    for await (const _server of client.list(undefined, signal)) continue
  }, /cannot be read/)
})

void test('refusals are told in the terms of the hub', async (t) => {
  const { cloud, client } = await start(t, 'a-token-that-is-bad')
  await assert.rejects(client.types(signal), { code: 'CREDENTIALS' })
  const good = new Client(configSchema.parse({ url: cloud.url }), { token: goodToken })
  cloud.faults = { refuse: 'out_of_stock' }
  await assert.rejects(good.create(order, signal), { code: 'CAPACITY' })
  cloud.faults = { breakOff: 'after' }
  await assert.rejects(good.create(order, signal), { code: 'TIMEOUT' })
  assert.equal(toProviderError({ status: 429, code: '', message: '', retryAfterMs: 5 }).retryAfterMs, 5)
})

void test('power is told only where it is known', () => {
  const server = { id: 'srv-1', name: 'web-1', labels: {}, ips: [] }
  assert.equal(observedOf({ ...server, status: 'creating' }).power, undefined)
  assert.equal(observedOf({ ...server, status: 'off' }).power, 'off')
})
