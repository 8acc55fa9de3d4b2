import { type Mutation, listed, unlist, calls, orderA, seenA } from './change.js'

export const orders: readonly Mutation[] = [
  {
    name: 'a key gives another host later',
    rule: 'S8',
    mutate: (run) => calls(run, orderA, { type: 'ok', seen: { ...seenA, uid: 'host-a2' } }),
  },
  {
    name: 'two calls at once under one key give two hosts',
    rule: 'S8',
    mutate: (run) => calls(run, orderA, { type: 'ok', seen: { ...seenA, uid: 'host-a2', version: 1 } }, 1_000_100),
  },
  {
    name: 'a key is refused that was accepted',
    rule: 'S8',
    mutate: (run) => calls(run, orderA, { type: 'fail', code: 'AlreadyExists', reason: 'NAME_TAKEN', message: 'no' }),
  },
  {
    name: 'a key is refused as used with another order',
    rule: 'S8',
    mutate: (run) =>
      calls(run, orderA, { type: 'fail', code: 'AlreadyExists', reason: 'IDEMPOTENCY_KEY_REUSED', message: 'no' }),
  },
  {
    name: 'another order under a used key is accepted',
    rule: 'I8',
    mutate: (run) => calls(run, { ...orderA, op: 'reuse' }, { type: 'ok', seen: seenA }),
  },
  {
    name: 'another order under a used key is refused for another reason',
    rule: 'I8',
    mutate: (run) =>
      calls(
        run,
        { ...orderA, op: 'reuse' },
        { type: 'fail', code: 'AlreadyExists', reason: 'NAME_TAKEN', message: 'no' },
      ),
  },
  { name: 'an acknowledged order is lost', rule: 'S13', mutate: (run) => unlist(run, 'host', 'host-r') },
  {
    name: 'an acknowledged order is another host now',
    rule: 'S13',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { uid: 'host-z' }),
  },
  {
    name: 'an acknowledged order has another class',
    rule: 'S13',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { machineClass: 'machineClasses/cloud-b' }),
  },
  {
    name: 'an acknowledged order has another hostname',
    rule: 'S13',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { hostname: 'b' }),
  },
  {
    name: 'an acknowledged order has lost its provider data',
    rule: 'S13',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { data: { simulate: 'fail' } }),
  },
  {
    name: 'an order is there without its event',
    rule: 'S13',
    mutate: (run) => unlist(run, 'event', 'events/ordered-b'),
  },
  {
    name: 'a host is there that nobody ordered',
    rule: 'S13',
    mutate: (run) => {
      for (const listing of run.listings)
        if (listing.kind === 'host')
          listing.objects.push({
            ...(listing.objects[0] as (typeof listing.objects)[number]),
            uid: 'host-q',
            name: 'workspaces/default/hosts/q',
          })
    },
  },
  {
    name: 'an order of unknown outcome is there in half',
    rule: 'S13',
    mutate: (run) => {
      calls(
        run,
        { ...orderA, key: 'key-h', host: 'workspaces/default/hosts/h' },
        { type: 'info', code: 'Unavailable', reason: '', message: 'cut' },
      )
      for (const listing of run.listings)
        if (listing.kind === 'host')
          listing.objects.push({
            ...(listing.objects[0] as (typeof listing.objects)[number]),
            uid: 'host-h',
            name: 'workspaces/default/hosts/h',
            machineClass: '',
          })
    },
  },
  ...['ORDERED', 'PLACED', 'PROVISIONING', 'BOOTSTRAPPING', 'RELEASING'].map((state): Mutation => ({
    name: `a host is stuck in ${state}`,
    rule: 'I4',
    mutate: (run) => Object.assign(listed(run, 'rest', 'host', 'host-a'), { state }),
  })),
  {
    name: 'a host is in ERROR without a reason',
    rule: 'I4',
    mutate: (run) => Object.assign(listed(run, 'rest', 'host', 'host-b'), { error: '' }),
  },
  {
    name: 'a run that never came to rest',
    rule: 'L1',
    mutate: (run) => {
      run.listings = run.listings.filter(({ moment }) => moment !== 'rest')
    },
  },
  {
    name: 'a request is stuck',
    rule: 'L7',
    mutate: (run) => Object.assign(listed(run, 'rest', 'request', 'request-a'), { state: 'PROVISIONING' }),
  },
  {
    name: 'a request has not seen its last wish',
    rule: 'L7',
    mutate: (run) => Object.assign(listed(run, 'rest', 'request', 'request-a'), { generation: 2 }),
  },
  {
    name: 'a release that was acknowledged has no effect',
    rule: 'I5',
    mutate: (run) => Object.assign(listed(run, 'rest', 'host', 'host-r'), { state: 'READY' }),
  },
  {
    name: 'a host is not released at the end',
    rule: 'I5',
    mutate: (run) => Object.assign(listed(run, 'end', 'host', 'host-a'), { state: 'RELEASING' }),
  },
  {
    name: 'a request is not GONE at the end',
    rule: 'I5',
    mutate: (run) => Object.assign(listed(run, 'end', 'request', 'request-b'), { state: 'DEPROVISIONING' }),
  },
]
