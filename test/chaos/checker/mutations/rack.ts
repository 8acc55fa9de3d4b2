import { type Mutation, listed, ledger, happens, never } from './change.js'

export const rack: readonly Mutation[] = [
  {
    name: 'the rack refused a second host',
    rule: 'I6',
    mutate: (run) =>
      happens(run, 'rack', {
        atMs: 1_003_000,
        fact: 'violation',
        serial: 'R-1',
        what: 'provision-bound',
        message: 'it is taken',
      }),
  },
  {
    name: 'a machine is given to a second host',
    rule: 'I6',
    mutate: (run) =>
      happens(run, 'rack', { atMs: 1_003_000, fact: 'machine.provisioned', serial: 'R-1', binding: 'the-hub/other' }),
  },
  {
    name: 'a machine is given on without a wipe',
    rule: 'I7',
    mutate: (run) =>
      happens(run, 'rack', { atMs: 1_009_200, fact: 'machine.provisioned', serial: 'R-1', binding: 'the-hub/other' }),
  },
  {
    name: 'a machine is given on after a wipe that failed',
    rule: 'I7',
    mutate: (run) => {
      Object.assign(ledger(run, 'rack').at(-1) ?? {}, { fact: 'machine.wipe-failed' })
      happens(run, 'rack', { atMs: 1_012_000, fact: 'machine.provisioned', serial: 'R-1', binding: 'the-hub/other' })
    },
  },
  {
    name: 'a machine is wiped with its host on it',
    rule: 'I6',
    mutate: (run) =>
      happens(run, 'rack', { atMs: 1_005_000, fact: 'machine.wiped', serial: 'R-1', binding: 'the-hub/request-r' }),
  },
  {
    name: 'a machine was wiped before its release, and given on',
    rule: 'I6',
    mutate: (run) => {
      never(run, 'rack', 'machine.wiped', 'the-hub/request-r')
      happens(run, 'rack', { atMs: 1_008_000, fact: 'machine.wiped', serial: 'R-1', binding: 'the-hub/request-r' })
    },
  },
  {
    name: 'a machine is never cleaned',
    rule: 'L7',
    mutate: (run) => Object.assign(listed(run, 'end', 'machine', 'machine-r'), { state: 'CLEANING' }),
  },
  {
    name: 'a machine keeps its host',
    rule: 'I5',
    mutate: (run) => Object.assign(listed(run, 'end', 'machine', 'machine-r'), { host: 'workspaces/default/hosts/r' }),
  },
]
