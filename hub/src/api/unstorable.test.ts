import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import fc from 'fast-check'
import t from 'tap'
import { findUnstorable } from './unstorable.js'

void t.test('what no database can keep is named', async (t) => {
  const request = (host: object) => create(hub.CreateHostRequestSchema, { hostId: 'a', host })
  const cases: readonly (readonly [object, string])[] = [
    [{ userData: 'a\0' }, 'host.user_data'],
    [{ labels: { a: 'x\0' } }, 'host.labels["a"]'],
    [{ labels: { 'a\0b': 'x' } }, 'host.labels["ab"]'],
    [{ placement: { regions: ['fine', '\ud800'] } }, 'host.placement.regions[1]'],
    [{ providerData: { deep: [{ er: '\0' }] } }, 'host.provider_data["deep"][0]["er"]'],
  ]
  for (const [host, field] of cases) t.match(findUnstorable(request(host)), { field }, field)
  t.equal(findUnstorable(request({ userData: 'päivää 🚢 \u0001' })), undefined)
  let deep: object = {}
  for (let level = 0; level < 20_000; level++) deep = { deep }
  t.match(findUnstorable(request({ providerData: deep as never })), {
    field: 'host.provider_data["deep"]["deep"]',
    description: /24 levels/,
  })
})

void t.test('what is found is there, and nothing else is found', async () => {
  const texts = fc.string({ unit: fc.constantFrom('a', '\0', '\ud800', '\udc00', '🚢', '"', '\\') })
  fc.assert(
    fc.property(fc.dictionary(texts, texts), (labels) => {
      const expected = Object.entries(labels)
        .flat()
        .some((text) => text.includes('\0') || /\p{Surrogate}/u.test(text))
      const found = findUnstorable(create(hub.HostSchema, { labels }))
      return (found !== undefined) === expected && !(found?.field ?? '').includes('\0')
    }),
  )
  return Promise.resolve()
})
