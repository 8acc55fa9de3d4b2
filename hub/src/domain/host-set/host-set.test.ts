import t from 'tap'
import { domainOf, narrowTo } from './domains.js'
import { describeHostSet, replacesMembers, type HostTemplate } from './host-set.js'
import { judgeMember, type MemberFacts } from './member.js'
import { planHostSet, type Member, type Wanted } from './plan.js'

const anywhere = { providers: [], families: [], locations: [], maxHourlyMicros: 0 }
const template: HostTemplate = {
  className: 'small',
  shape: null,
  placement: anywhere,
  providerData: { image: 'a', network: { id: 1, name: 'n' } },
  labels: {},
  annotations: {},
  protected: false,
  lifetimeMs: null,
}

void t.test('what tells of the machine replaces members, and what tells of the record does not', (t) => {
  const differs = (change: Partial<HostTemplate>) => replacesMembers(template, { ...template, ...change })
  t.notOk(differs({ providerData: { network: { name: 'n', id: 1 }, image: 'a' } }), 'the order of keys is nothing')
  t.notOk(differs({ labels: { a: 'b' }, annotations: { a: 'b' }, protected: true, lifetimeMs: 1 }))
  t.ok(differs({ className: 'large' }))
  t.ok(differs({ providerData: { image: 'b' } }))
  t.ok(differs({ placement: { ...anywhere, locations: ['x'] } }))
  t.ok(differs({ sshPublicKeys: ['ssh-ed25519 A'] }))
  t.notOk(differs({ sshPublicKeys: [] }), 'a set from before there were keys has none')
  t.end()
})

void t.test('the name of a place says what an order is narrowed to', (t) => {
  const at = (location: string) => ({ location, provider: { name: 'p' } }) as Parameters<typeof domainOf>[1]
  const narrowed = (spread: Parameters<typeof domainOf>[0], location: string) => {
    const { providers, locations } = narrowTo(anywhere, spread, domainOf(spread, at(location)))
    return [providers.join(), locations.join()]
  }
  t.strictSame(narrowed('NONE', 'l'), ['', ''])
  t.strictSame(narrowed('PROVIDER', 'l'), ['p', ''])
  t.strictSame(narrowed('LOCATION', 'l'), ['', 'l'])
  t.strictSame(narrowed('LOCATION', ''), ['p', ''], 'a provider that has only one place')
  t.strictSame(narrowed('FAILURE_DOMAIN', 'l'), ['p', 'l'])
  t.strictSame(narrowed('FAILURE_DOMAIN', ''), ['p', ''])
  t.end()
})

const now = new Date('2030-01-01T12:00:00Z')
const ago = (ms: number) => new Date(now.getTime() - ms)
const facts: MemberFacts = {
  id: 'a',
  ordinal: 0,
  revision: 1,
  domain: '',
  protected: false,
  state: 'PROVISIONING',
  stateAt: ago(60_000),
  createdAt: ago(600_000),
  readyAt: null,
  providerId: 'p',
  connectedSince: ago(3_600_000),
}
const clock = { now, deadlineMs: 300_000, patient: false }

void t.test('silence is held against a member, and not against one that nobody can hear', (t) => {
  const health = (change: Partial<MemberFacts>, at: Partial<typeof clock> = {}) =>
    judgeMember({ ...facts, ...change }, { ...clock, ...at }).health
  t.equal(health({}), 'failed')
  t.equal(health({ createdAt: ago(200_000) }), 'starting')
  t.equal(health({ connectedSince: null }), 'starting')
  t.equal(health({ connectedSince: ago(60_000) }), 'starting', 'its provider has only just come back')
  t.equal(health({}, { patient: true }), 'starting', 'the hub has only just come back')
  t.equal(health({ readyAt: ago(3_000_000) }), 'starting', 'it was READY, and is being reinstalled')
  t.equal(health({ readyAt: ago(3_000_000), stateAt: ago(400_000) }), 'failed')
  t.equal(health({ providerId: null, connectedSince: null }), 'failed', 'no place was found for it')
  t.equal(health({ state: 'READY' }), 'ready')
  t.equal(health({ state: 'ERROR', connectedSince: null }), 'failed')
  t.equal(judgeMember({ ...facts, connectedSince: null }, clock).visible, false)
  t.end()
})

void t.test('what people are told', (t) => {
  const wanted: Wanted = {
    replicas: 2,
    revision: 1,
    maxSurge: 1,
    maxUnavailable: 0,
    maxRepairs: 1,
    maxUnhealthyPercent: 100,
    paused: false,
    deleting: false,
    nextOrdinal: 2,
    failuresFrom: 0,
    domains: [],
    ordersHeld: false,
    repairsHeld: false,
  }
  const well = [0, 1].map((ordinal): Member => ({
    ...judgeMember({ ...facts, id: `${ordinal}`, ordinal, state: 'READY' }, clock),
  }))
  const told = (
    members: readonly Member[],
    change: Partial<Wanted> = {},
    refusal?: { reason: string; message: string },
  ) => {
    const all = { ...wanted, ...change }
    return describeHostSet(
      {
        wanted: all,
        members,
        plan: planHostSet(all, members),
        pauseReason: all.paused ? 'ByRequest' : null,
        refusal,
        before: [],
      },
      now,
    )
  }
  const reason = (status: ReturnType<typeof told>, type: string) =>
    status.conditions.find((condition) => condition.type === type)?.reason
  t.match(told(well), { state: 'READY', message: '2 of 2 READY', counts: { current: 2, ready: 2, updated: 2 } })
  t.match(told(well.slice(0, 1)), { state: 'PROGRESSING' })
  t.match(told(well, { paused: true }), { state: 'PAUSED' })
  t.match(told(well, { deleting: true }), { state: 'DELETING' })
  t.match(told(well, { revision: 2 }), { state: 'PROGRESSING', counts: { updated: 0 } })
  const sick = well.map((member) => ({ ...member, health: 'failed' as const, visible: false }))
  t.match(told(sick), { state: 'DEGRADED', message: /out of sight/ })
  t.equal(reason(told(sick), 'Ready'), 'ProviderOutOfSight')
  const refused = told(well.slice(0, 1), { ordersHeld: true }, { reason: 'QuotaExceeded', message: 'no more' })
  t.match(refused, { state: 'DEGRADED', message: '1 of 2 READY; no more' })
  t.equal(reason(refused, 'Ordered'), 'QuotaExceeded')
  const madeUpFor = told(well, {}, { reason: 'QuotaExceeded', message: 'no more' })
  t.match(madeUpFor, { state: 'READY', message: '2 of 2 READY' })
  t.equal(reason(madeUpFor, 'Ordered'), 'Accepted')
  t.end()
})
