import t from 'tap'
import { asHistories, goodRun } from './example.js'
import { listed } from './mutations/change.js'
import { mutations } from './mutations/index.js'
import { check, rules } from './rules.js'

void t.test('a good run is not blamed', async (t) => {
  t.strictSame(check(asHistories(goodRun())), [])
  t.ok(rules.length > 20)
})

void t.test('every way to break it is found, by its rule', async (t) => {
  t.ok(mutations.length >= 60, `${mutations.length} ways`)
  t.equal(new Set(mutations.map(({ name }) => name)).size, mutations.length, 'each is another one')
  for (const { name, rule, mutate } of mutations) {
    const example = goodRun()
    mutate(example)
    const violations = check(asHistories(example))
    t.ok(
      violations.some((violation) => violation.rule === rule),
      `${name}: ${rule} (found: ${violations.map((violation) => violation.rule).join(', ') || 'nothing'})`,
    )
    t.ok(
      violations.every(({ lines }) => lines.length <= 12),
      `${name}: with few lines of evidence`,
    )
  }
})

void t.test('what looks odd and is right is not blamed', async (t) => {
  const good: readonly (readonly [string, (example: ReturnType<typeof goodRun>) => void])[] = [
    [
      'a server that has vanished is not rebooted any more',
      (run) => {
        Object.assign(listed(run, 'rest', 'machine', 'machine-b'), { reboots: 1 })
        Object.assign(listed(run, 'rest', 'request', 'request-b'), { generation: 2, observed: 1, externalId: 'srv-b' })
      },
    ],
    [
      'a server for the same request after the first is gone',
      ({ ledgers }) =>
        void ledgers[0]?.lines.push(
          {
            seq: 9,
            atMs: 1_065_100,
            fact: 'server.created',
            id: 'srv-a2',
            ownershipKey: 'the-hub/request-a',
            call: 'create',
          },
          { seq: 10, atMs: 1_066_000, fact: 'server.deleted', id: 'srv-a2', goneAtMs: 1_066_100, call: 'delete' },
        ),
    ],
    [
      'a deletion that was asked for twice',
      ({ ledgers }) =>
        void ledgers[0]?.lines.push({
          seq: 9,
          atMs: 1_066_000,
          fact: 'server.deleted',
          id: 'srv-a',
          goneAtMs: 1_066_100,
          call: 'delete',
        }),
    ],
    [
      'an order whose outcome nobody knows, and that never came',
      ({ clients }) =>
        void clients.push({
          at: 1_005_000,
          by: 'client-1',
          type: 'invoke',
          call: 'x',
          hub: 'hub-1',
          op: 'order',
          key: 'key-x',
          host: 'workspaces/default/hosts/x',
          want: { machineClass: '', hostname: 'x', labels: {}, providerData: {} },
        }),
    ],
    [
      'a hub that could not reach its database when it started',
      ({ processes }) =>
        void processes.push({
          at: 1_005_000,
          type: 'exit',
          name: 'hub-2',
          pid: 12,
          how: '1',
          said: 'slipway-hub: connect ECONNREFUSED 10.99.200.11:5432',
        }),
    ],
    [
      'a reboot more after a fault',
      ({ ledgers }) =>
        void ledgers[0]?.lines.push({
          seq: 9,
          atMs: 1_004_000,
          fact: 'server.powered',
          id: 'srv-a',
          wish: 'reboot',
          call: 'power',
        }),
    ],
    [
      'a reboot that a stuck cloud took and never carried out, before it was asked again',
      (run) => {
        run.faults = []
        const order = { fact: 'server.powered', id: 'srv-a', wish: 'reboot', call: 'power' }
        run.ledgers[0]?.lines.push({ ...order, seq: 9, atMs: 1_002_500, doneAtMs: null })
      },
    ],
    [
      'a watcher that began anew after its revision was too old',
      ({ watches, listings }) => {
        const file = watches.find(({ name }) => name === 'watcher-1-host')
        const stamp = { at: 1_095_000, by: 'watcher-1-host', kind: 'host' as const }
        const changes = (listings.find(({ moment, kind }) => moment === 'end' && kind === 'host')?.objects ?? []).map(
          (seen) => ({ change: 'EXISTING' as const, seen }),
        )
        file?.lines.push(
          { ...stamp, type: 'open', from: '', hub: 'hub-1' },
          { ...stamp, type: 'message', revision: 'r999', synced: true, changes },
        )
      },
    ],
    [
      'a read that overlaps a label being written',
      ({ clients }) => {
        clients.push({
          at: 1_001_200,
          by: 'client-1',
          type: 'invoke',
          call: 'w',
          hub: 'hub-1',
          op: 'label',
          host: 'workspaces/default/hosts/a',
          uid: 'host-a',
          value: '9',
        })
        const read = clients.findLast((line) => line.type === 'ok' && line.seen.version === 6)
        if (read?.type === 'ok') Object.assign(read.seen, { version: 7, labels: { chaos: '9' } })
      },
    ],
    [
      'a refusal of an order whose key was never accepted',
      ({ clients }) =>
        void clients.push(
          {
            at: 1_005_000,
            by: 'client-1',
            type: 'invoke',
            call: 'y',
            hub: 'hub-1',
            op: 'order',
            key: 'key-y',
            host: 'workspaces/default/hosts/y',
            want: { machineClass: '', hostname: 'y', labels: {}, providerData: {} },
          },
          {
            at: 1_005_100,
            by: 'client-1',
            type: 'fail',
            call: 'y',
            code: 'FailedPrecondition',
            reason: 'CLASS_NOT_OFFERED',
            message: 'no',
          },
        ),
    ],
  ]
  for (const [name, change] of good) {
    const example = goodRun()
    change(example)
    t.strictSame(check(asHistories(example)), [], name)
  }
})
