import { type Mutation, listed, ledger, happens, never, created } from './change.js'

export const money: readonly Mutation[] = [
  {
    name: 'a second server on the same cloud',
    rule: 'S1',
    mutate: (run) => happens(run, 'cloud-a', created('srv-a2', 'the-hub/request-a', 1_002_000)),
  },
  {
    name: 'a second server on the other cloud',
    rule: 'S1',
    mutate: (run) => happens(run, 'cloud-b', created('srv-a2', 'the-hub/request-a', 1_002_000)),
  },
  {
    name: 'a second server for a millisecond',
    rule: 'S1',
    mutate: (run) => {
      happens(run, 'cloud-a', created('srv-a2', 'the-hub/request-a', 1_002_000))
      happens(run, 'cloud-a', {
        atMs: 1_002_000,
        fact: 'server.deleted',
        id: 'srv-a2',
        goneAtMs: 1_002_001,
        call: 'delete',
      })
    },
  },
  {
    name: 'a second server while the first is being deleted',
    rule: 'S1',
    mutate: (run) => happens(run, 'cloud-a', created('srv-a2', 'the-hub/request-a', 1_065_050)),
  },
  {
    name: 'a second server after a deletion that got stuck',
    rule: 'S1',
    mutate: (run) => {
      Object.assign(ledger(run, 'cloud-a').find(({ fact }) => fact === 'server.deleted') ?? {}, { goneAtMs: null })
      happens(run, 'cloud-a', created('srv-a2', 'the-hub/request-a', 1_066_000))
    },
  },
  {
    name: 'somebody else’s server is deleted',
    rule: 'S4',
    mutate: (run) =>
      happens(run, 'cloud-a', {
        atMs: 1_003_000,
        fact: 'server.deleted',
        id: 'srv-x',
        goneAtMs: 1_003_100,
        call: 'delete',
      }),
  },
  {
    name: 'somebody else’s server is rebooted',
    rule: 'S4',
    mutate: (run) =>
      happens(run, 'cloud-a', { atMs: 1_003_000, fact: 'server.powered', id: 'srv-x', wish: 'off', call: 'power' }),
  },
  {
    name: 'a server is deleted that nobody let go of',
    rule: 'S4',
    mutate: (run) => {
      run.clients = run.clients.filter(
        (line) => !(line.type === 'invoke' && line.op === 'release' && line.uid === 'host-a'),
      )
    },
  },
  {
    name: 'a server is deleted before its release',
    rule: 'S4',
    mutate: (run) =>
      happens(run, 'cloud-a', {
        atMs: 1_030_000,
        fact: 'server.deleted',
        id: 'srv-a',
        goneAtMs: 1_030_100,
        call: 'delete',
      }),
  },
  {
    name: 'a server is deleted that no request is known for',
    rule: 'S4',
    mutate: (run) => {
      happens(run, 'cloud-a', created('srv-q', 'the-hub/request-q', 1_002_000))
      happens(run, 'cloud-a', {
        atMs: 1_003_000,
        fact: 'server.deleted',
        id: 'srv-q',
        goneAtMs: 1_003_100,
        call: 'delete',
      })
    },
  },
  {
    name: 'a server without a record at rest',
    rule: 'I2',
    mutate: (run) => happens(run, 'cloud-b', created('srv-q', 'the-hub/request-q', 1_002_000)),
  },
  {
    name: 'a server whose request is GONE',
    rule: 'I2',
    mutate: (run) => Object.assign(listed(run, 'rest', 'request', 'request-a'), { state: 'GONE' }),
  },
  {
    name: 'a server that is never deleted',
    rule: 'L2',
    mutate: (run) => never(run, 'cloud-a', 'server.deleted', 'srv-a'),
  },
  {
    name: 'a deletion that never ends',
    rule: 'L2',
    mutate: (run) =>
      Object.assign(ledger(run, 'cloud-a').find(({ fact }) => fact === 'server.deleted') ?? {}, { goneAtMs: null }),
  },
  {
    name: 'a run that was never brought to its end',
    rule: 'L2',
    mutate: (run) => {
      run.listings = run.listings.filter(({ moment }) => moment !== 'end')
    },
  },
]
