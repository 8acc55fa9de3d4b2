import type { MachineOperation, MachineState } from './machine.js'
import { machineStateKinds, transitionMachine, type MachineEvent } from './transitions.js'

/** The work that a static machine in this state is itself about, also while it waits for it. PROVISIONING is the work of its request. */
export function doingOperation(state: MachineState): MachineOperation | null {
  switch (state) {
    case 'VERIFYING':
      return 'VERIFY'
    case 'INSPECTING':
    case 'INSPECT_WAIT':
      return 'INSPECT'
    case 'CLEANING':
    case 'CLEAN_WAIT':
      return 'CLEAN'
    case 'ADOPTING':
      return 'ADOPT'
    default:
      return null
  }
}

const endings = {
  VERIFY: { done: 'verified', failed: 'verify-failed' },
  INSPECT: { done: 'inspected', failed: 'inspect-failed' },
  CLEAN: { done: 'cleaned', failed: 'clean-failed' },
  ADOPT: { done: 'adopted', failed: 'adopt-failed' },
} as const satisfies Record<Exclude<MachineOperation, 'POWER'>, { done: MachineEvent; failed: MachineEvent }>

/**
 * The state that follows when a machine's own work has ended, with what follows by itself: MANAGEABLE goes on to INSPECTING. Switching power changes no state,
 * and neither does the end of work that the state is not about.
 */
export function afterOperation(
  state: MachineState,
  operation: MachineOperation,
  outcome: 'done' | 'failed',
): MachineState {
  if (operation === 'POWER') return state
  const next = transitionMachine(state, endings[operation][outcome])
  if (next === undefined) return state
  return transitionMachine(next, 'inspect-started') ?? next
}

const waits = {
  INSPECT: { waits: 'inspect-waits', resumed: 'inspect-resumed' },
  CLEAN: { waits: 'clean-waits', resumed: 'clean-resumed' },
  PROVISION: { waits: 'provision-waits', resumed: 'provision-resumed' },
} as const satisfies Record<string, { waits: MachineEvent; resumed: MachineEvent }>

/** What a machine is worked on for, also by its request: a reinstall is a provisioning, too. */
export type WaitingOperation = keyof typeof waits

/** The operation of a machine or a request, if it is one that can wait for the machine's own callback. */
export function waitingOperation(operation: string | null): WaitingOperation | undefined {
  if (operation === 'REINSTALL') return 'PROVISION'
  return operation !== null && operation in waits ? (operation as WaitingOperation) : undefined
}

/** The state in which a machine waits for what it is doing. Undefined: it does nothing of the kind, or waits already. */
export function stateWhileWaiting(state: MachineState, operation: WaitingOperation): MachineState | undefined {
  return transitionMachine(state, waits[operation].waits)
}

/** The state of a machine whose wait is over, with the work still to be done. Undefined: it does not wait for that. */
export function stateAfterWaiting(state: MachineState, operation: WaitingOperation): MachineState | undefined {
  return transitionMachine(state, waits[operation].resumed)
}

/** Whether a machine in this state waits for its own callback. */
export function isWaiting(state: MachineState): boolean {
  return machineStateKinds[state] === 'waiting'
}
