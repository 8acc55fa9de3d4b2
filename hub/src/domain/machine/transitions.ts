import type { MachineState } from './machine.js'

/**
 * The kind of a state says who must act, and what a crash does to it: stable (nobody), doing (the holder of the lease; if it dies the next one resumes),
 * waiting (the machine's own callback; survives every crash), failed (a person, or policy), final (nobody, ever).
 */
export type MachineStateKind = 'stable' | 'doing' | 'waiting' | 'failed' | 'final'

export const machineStateKinds = {
  DISCOVERED: 'stable',
  VERIFYING: 'doing',
  MANAGEABLE: 'stable',
  INSPECTING: 'doing',
  INSPECT_WAIT: 'waiting',
  CLEANING: 'doing',
  CLEAN_WAIT: 'waiting',
  AVAILABLE: 'stable',
  PROVISIONING: 'doing',
  PROVISION_WAIT: 'waiting',
  ACTIVE: 'stable',
  ADOPTING: 'doing',
  VERIFY_FAILED: 'failed',
  INSPECT_FAILED: 'failed',
  CLEAN_FAILED: 'failed',
  PROVISION_FAILED: 'failed',
  ADOPT_FAILED: 'failed',
  GONE: 'final',
} as const satisfies Record<MachineState, MachineStateKind>

export const machineEvents = [
  'accept',
  'verified',
  'verify-failed',
  'inspect-started',
  'inspect-waits',
  'inspect-resumed',
  'inspected',
  'inspect-failed',
  'clean-waits',
  'clean-resumed',
  'cleaned',
  'clean-failed',
  'allocated',
  'unallocated',
  'provision-waits',
  'provision-resumed',
  'provisioned',
  'provision-failed',
  'reinstall',
  'released',
  'adopt',
  'adopted',
  'adopt-failed',
  'unadopted',
  'moved',
  'retry',
  'gone',
] as const
export type MachineEvent = (typeof machineEvents)[number]

export interface MachineTransition {
  readonly from: MachineState
  readonly event: MachineEvent
  readonly to: MachineState
  /** Who or what brings it about. */
  readonly why: string
}

const goneFrom: readonly MachineState[] = (Object.keys(machineStateKinds) as MachineState[]).filter(
  (state) => state !== 'GONE',
)

function movedBy(to: MachineState, from: readonly MachineState[]): readonly MachineTransition[] {
  const why = 'a person puts it under another provider, which looks at it anew'
  return from.map((state) => ({ from: state, event: 'moved', to, why }))
}

/** Every move that a machine can make. What is not listed is not possible. */
export const machineTransitions: readonly MachineTransition[] = [
  {
    from: 'DISCOVERED',
    event: 'accept',
    to: 'VERIFYING',
    why: 'a person takes it into service, a rule of its provider fits, or its provider accepts at once',
  },
  { from: 'DISCOVERED', event: 'adopt', to: 'ADOPTING', why: 'a server in use is taken over as it is' },
  { from: 'VERIFYING', event: 'verified', to: 'MANAGEABLE', why: 'address and credentials work' },
  { from: 'VERIFYING', event: 'verify-failed', to: 'VERIFY_FAILED', why: 'they do not' },
  { from: 'MANAGEABLE', event: 'inspect-started', to: 'INSPECTING', why: 'follows by itself' },
  { from: 'INSPECTING', event: 'inspected', to: 'CLEANING', why: 'its hardware is known; a wipe follows by itself' },
  { from: 'INSPECTING', event: 'inspect-waits', to: 'INSPECT_WAIT', why: 'the inspection runs on the machine itself' },
  { from: 'INSPECTING', event: 'inspect-failed', to: 'INSPECT_FAILED', why: 'its hardware cannot be read' },
  { from: 'INSPECT_WAIT', event: 'inspected', to: 'CLEANING', why: 'the inspection has called back' },
  {
    from: 'INSPECT_WAIT',
    event: 'inspect-failed',
    to: 'INSPECT_FAILED',
    why: 'it called back with a failure, or not in time',
  },
  {
    from: 'INSPECT_WAIT',
    event: 'inspect-resumed',
    to: 'INSPECTING',
    why: 'a try failed, and another is made',
  },
  { from: 'CLEANING', event: 'cleaned', to: 'AVAILABLE', why: 'it is wiped and powered off' },
  { from: 'CLEANING', event: 'clean-waits', to: 'CLEAN_WAIT', why: 'the wipe runs on the machine itself' },
  { from: 'CLEANING', event: 'clean-failed', to: 'CLEAN_FAILED', why: 'it could not be wiped: quarantined' },
  { from: 'CLEAN_WAIT', event: 'cleaned', to: 'AVAILABLE', why: 'the wipe has called back' },
  {
    from: 'CLEAN_WAIT',
    event: 'clean-failed',
    to: 'CLEAN_FAILED',
    why: 'it called back with a failure, or not in time',
  },
  { from: 'CLEAN_WAIT', event: 'clean-resumed', to: 'CLEANING', why: 'a try failed, and another is made' },
  { from: 'AVAILABLE', event: 'allocated', to: 'PROVISIONING', why: 'an order takes it' },
  {
    from: 'PROVISIONING',
    event: 'unallocated',
    to: 'AVAILABLE',
    why: 'the order was cancelled before anyone touched the machine',
  },
  { from: 'PROVISIONING', event: 'provisioned', to: 'ACTIVE', why: 'its host is on it' },
  {
    from: 'PROVISIONING',
    event: 'provision-waits',
    to: 'PROVISION_WAIT',
    why: 'the installation runs on the machine itself',
  },
  { from: 'PROVISIONING', event: 'provision-failed', to: 'PROVISION_FAILED', why: 'its host could not be put on it' },
  { from: 'PROVISIONING', event: 'released', to: 'CLEANING', why: 'its request is gone' },
  { from: 'PROVISION_WAIT', event: 'provisioned', to: 'ACTIVE', why: 'the installation has called back' },
  {
    from: 'PROVISION_WAIT',
    event: 'provision-failed',
    to: 'PROVISION_FAILED',
    why: 'it called back with a failure, or not in time',
  },
  { from: 'PROVISION_WAIT', event: 'provision-resumed', to: 'PROVISIONING', why: 'a try failed, and another is made' },
  { from: 'PROVISION_WAIT', event: 'released', to: 'CLEANING', why: 'its request is gone' },
  { from: 'PROVISION_WAIT', event: 'reinstall', to: 'PROVISIONING', why: 'its host wants yet another system on it' },
  { from: 'ACTIVE', event: 'reinstall', to: 'PROVISIONING', why: 'its host wants a new system on it' },
  { from: 'ACTIVE', event: 'released', to: 'CLEANING', why: 'its request is gone' },
  { from: 'ADOPTING', event: 'adopted', to: 'ACTIVE', why: 'the server in use is known' },
  { from: 'ADOPTING', event: 'adopt-failed', to: 'ADOPT_FAILED', why: 'it cannot be taken over' },
  { from: 'ADOPTING', event: 'unadopted', to: 'DISCOVERED', why: 'its host was released before; nothing was touched' },
  {
    from: 'ADOPT_FAILED',
    event: 'unadopted',
    to: 'DISCOVERED',
    why: 'its host was released before; nothing was touched',
  },
  { from: 'ADOPTING', event: 'released', to: 'CLEANING', why: 'its request is gone' },
  { from: 'ADOPT_FAILED', event: 'released', to: 'CLEANING', why: 'its request is gone' },
  { from: 'ACTIVE', event: 'moved', to: 'ADOPTING', why: 'a person puts it under another provider; its host keeps it' },
  ...movedBy('ADOPTING', ['ADOPTING', 'ADOPT_FAILED']),
  ...movedBy('VERIFYING', ['MANAGEABLE', 'AVAILABLE', 'VERIFY_FAILED', 'INSPECT_FAILED', 'CLEAN_FAILED']),
  { from: 'VERIFY_FAILED', event: 'retry', to: 'VERIFYING', why: 'a person' },
  { from: 'INSPECT_FAILED', event: 'retry', to: 'INSPECTING', why: 'a person' },
  {
    from: 'CLEAN_FAILED',
    event: 'retry',
    to: 'CLEANING',
    why: 'a person; it is never taken before a wipe has gone well',
  },
  { from: 'PROVISION_FAILED', event: 'released', to: 'CLEANING', why: 'its request is gone' },
  { from: 'PROVISION_FAILED', event: 'retry', to: 'CLEANING', why: 'a person; whatever is on it is wiped' },
  { from: 'ADOPT_FAILED', event: 'retry', to: 'ADOPTING', why: 'a person' },
  ...goneFrom.map((from) => ({
    from,
    event: 'gone' as const,
    to: 'GONE' as const,
    why: 'a dynamic machine was deleted, or a person removed the record of one that is not in use',
  })),
]

const moves = new Map(machineTransitions.map((move) => [`${move.from} ${move.event}`, move.to]))

/** The state that follows, or undefined where the event is not possible in this state. */
export function transitionMachine(state: MachineState, event: MachineEvent): MachineState | undefined {
  return moves.get(`${state} ${event}`)
}
