import { type Mutation, listed, happens, calls, hostA, seenA } from './change.js'

export const sessions: readonly Mutation[] = [
  {
    name: 'a read goes back in time',
    rule: 'S15',
    mutate: (run) => calls(run, { op: 'get', ...hostA }, { type: 'ok', seen: { ...seenA, version: 5 } }),
  },
  {
    name: 'a host that was ordered is not found',
    rule: 'S15',
    mutate: (run) =>
      calls(run, { op: 'get', ...hostA }, { type: 'fail', code: 'NotFound', reason: 'HOST_NOT_FOUND', message: 'no' }),
  },
  {
    name: 'a label that was written is not read',
    rule: 'S15',
    mutate: (run) => calls(run, { op: 'get', ...hostA }, { type: 'ok', seen: { ...seenA, labels: { chaos: '0' } } }),
  },
  {
    name: 'a label that nobody wrote is read',
    rule: 'S15',
    mutate: (run) =>
      calls(run, { op: 'get', ...hostA }, { type: 'ok', seen: { ...seenA, version: 9, labels: { chaos: '99' } } }),
  },
  {
    name: 'a label that was refused is read',
    rule: 'S15',
    mutate: (run) => {
      calls(
        run,
        { op: 'label', ...hostA, value: '8' },
        { type: 'fail', code: 'InvalidArgument', reason: 'INVALID_FIELD', message: 'no' },
      )
      calls(run, { op: 'get', ...hostA }, { type: 'ok', seen: { ...seenA, labels: { chaos: '8' } } }, 1_011_000)
    },
  },
  {
    name: 'a hub answers INTERNAL',
    rule: 'D1',
    mutate: (run) =>
      calls(run, { op: 'get', ...hostA }, { type: 'info', code: 'Internal', reason: 'INTERNAL', message: 'a defect' }),
  },
  {
    name: 'a hub ends by itself',
    rule: 'D2',
    mutate: (run) => run.processes.push({ at: 1_005_000, type: 'exit', name: 'hub-2', pid: 12, how: '1' }),
  },
  {
    name: 'a provider ends by itself with code 0',
    rule: 'D2',
    mutate: (run) => run.processes.push({ at: 1_005_000, type: 'exit', name: 'cloud-a-1', pid: 12, how: '0' }),
  },
  {
    name: 'a machine is rebooted once more, and nothing was in doubt',
    rule: 'L3',
    mutate: (run) => {
      run.faults = []
      happens(run, 'cloud-a', { atMs: 1_004_000, fact: 'server.powered', id: 'srv-a', wish: 'reboot', call: 'power' })
    },
  },
  {
    name: 'a machine is rebooted more often than doubts allow',
    rule: 'L3',
    mutate: (run) => {
      for (const atMs of [1_004_000, 1_004_100, 1_004_200])
        happens(run, 'cloud-a', { atMs, fact: 'server.powered', id: 'srv-a', wish: 'reboot', call: 'power' })
    },
  },
  {
    name: 'a machine is rebooted that nobody asked to',
    rule: 'L3',
    mutate: (run) =>
      happens(run, 'cloud-b', { atMs: 1_004_000, fact: 'server.powered', id: 'srv-b', wish: 'reboot', call: 'power' }),
  },
  {
    name: 'a reboot is never done',
    rule: 'L3',
    mutate: (run) => Object.assign(listed(run, 'rest', 'machine', 'machine-a'), { rebootsDone: 0 }),
  },
  {
    name: 'a hub crashes, whatever it had said before',
    rule: 'D2',
    mutate: (run) =>
      run.processes.push({ at: 1_005_000, type: 'exit', name: 'hub-2', pid: 12, how: '1', said: 'Node.js v20.20.2' }),
  },
]
