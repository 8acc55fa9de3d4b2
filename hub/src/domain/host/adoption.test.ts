import t from 'tap'
import type { Candidate } from '../placement/placement.js'
import { adoptedPrice, adoptedShape, findAdoptedPlace } from './adoption.js'

const shape = { vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: '', architecture: 'amd64' }

function candidate(typeId: string, location: string, over: Partial<Candidate> = {}): Candidate {
  return {
    provider: { kind: 'DYNAMIC', name: 'fsn1' } as Candidate['provider'],
    offeringIndex: 0,
    typeId,
    location,
    shape,
    price: null,
    providerData: {},
    offered: true,
    available: true,
    remaining: null,
    holds: [],
    failures: null,
    machine: null,
    ...over,
  }
}

const nothing = { typeId: '', location: '' }

void t.test('the place of a server is the one that its class has, or the one that is named', async (t) => {
  const [a, b, c] = [candidate('s', 'x'), candidate('s', 'y'), candidate('m', 'x')]
  t.match(findAdoptedPlace([a], shape, nothing), { kind: 'place', candidate: a })
  t.match(findAdoptedPlace([a, b], shape, nothing), { kind: 'several', field: 'location', choices: ['x', 'y'] })
  t.match(findAdoptedPlace([a, b, c], shape, nothing), { kind: 'several', field: 'type_id', choices: ['m', 's'] })
  t.match(findAdoptedPlace([a, b, c], shape, { typeId: 's', location: 'y' }), { kind: 'place', candidate: b })
  t.match(findAdoptedPlace([a, b, c], shape, { typeId: 'm', location: '' }), { kind: 'place', candidate: c })
})

void t.test('that no more of it can be had is no matter, and that it falls short is one', async (t) => {
  const soldOut = candidate('s', 'x', {
    available: false,
    offered: false,
    remaining: 0,
    holds: [
      { code: 'CAPACITY', provider: '', typeId: 's', location: 'x', market: '', shape: null, until: '', reason: '' },
    ],
  })
  t.match(findAdoptedPlace([soldOut], shape, nothing), { kind: 'place' })
  const small = candidate('s', 'x', { shape: { ...shape, vcpus: 1 } })
  t.match(findAdoptedPlace([small], shape, nothing), { kind: 'none', reasons: [/s in x has only 1 of 2 vCPUs/] })
  t.match(findAdoptedPlace([candidate('s', 'x')], shape, { typeId: 'l', location: '' }), {
    kind: 'none',
    reasons: ['it has s in x there'],
  })
  t.match(findAdoptedPlace([], shape, nothing), { kind: 'none', reasons: [] })
  const rack = candidate('', '', { provider: { kind: 'STATIC' } as Candidate['provider'] })
  t.match(findAdoptedPlace([rack], shape, nothing), { kind: 'none' }, 'machines of racks are adopted as machines')
})

void t.test('it counts with all that it has, and is not set up again', async (t) => {
  t.match(adoptedShape({ ...shape, vcpus: 1 }, { ...shape, memoryMib: 1 }), { vcpus: 2, memoryMib: 4096 })
  t.strictSame(adoptedShape(shape, null), shape)
  const price = { currency: 'EUR', hourlyMicros: 3, monthlyMicros: 4, setupMicros: 5 }
  t.strictSame(adoptedPrice(price), { ...price, setupMicros: 0 })
  t.equal(adoptedPrice(null), null)
})
