import { type Mutation, watchers, changesOf, changeOf } from './change.js'

export const lifecycles: readonly Mutation[] = [
  ...(
    [
      ['host', 'host-a', 2, 'READY', 'a host is READY without a place'],
      ['host', 'host-a', 7, 'ORDERED', 'a host is ordered anew while it is released'],
      ['host', 'host-r', 7, 'READY', 'a host comes back from its release'],
      ['request', 'request-a', 2, 'PROVISIONED', 'a request is done before it is begun'],
      ['request', 'request-a', 5, 'PROVISIONING', 'a request comes back from its end'],
      ['machine', 'machine-r', 7, 'ACTIVE', 'a machine is in use without being provisioned'],
      ['machine', 'machine-r', 9, 'AVAILABLE', 'a machine is available without being cleaned'],
    ] as const
  ).map(([kind, uid, version, state, name]): Mutation => ({
    name,
    rule: 'S7',
    mutate: (run) => {
      for (const watcher of watchers) {
        const found = changesOf(run, `${watcher}-${kind}`).filter(
          ({ change }) => change.seen.uid === uid && change.seen.version === version,
        )
        for (const { change } of found) change.seen['state'] = state
      }
    },
  })),
  {
    name: 'a generation falls',
    rule: 'S7',
    mutate: (run) => void (changeOf(run, 'watcher-1-request', 'request-a', 4).change.seen['generation'] = 0),
  },
  {
    name: 'a count of reboots falls',
    rule: 'S7',
    mutate: (run) => void (changeOf(run, 'watcher-1-machine', 'machine-a', 3).change.seen['reboots'] = 0),
  },
]
