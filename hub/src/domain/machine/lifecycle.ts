import type { MachineOperation, MachineState } from './machine.js'
import { transitionMachine, type MachineEvent } from './transitions.js'

/** The work that a static machine in this state is itself about. PROVISIONING is the work of its request. */
export function doingOperation(state: MachineState): MachineOperation | null {
  switch (state) {
    case 'VERIFYING':
      return 'VERIFY'
    case 'INSPECTING':
      return 'INSPECT'
    case 'CLEANING':
      return 'CLEAN'
    default:
      return null
  }
}

const endings = {
  VERIFY: { done: 'verified', failed: 'verify-failed' },
  INSPECT: { done: 'inspected', failed: 'inspect-failed' },
  CLEAN: { done: 'cleaned', failed: 'clean-failed' },
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
