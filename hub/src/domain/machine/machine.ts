export const machineStates = [
  'DISCOVERED',
  'VERIFYING',
  'MANAGEABLE',
  'INSPECTING',
  'INSPECT_WAIT',
  'CLEANING',
  'CLEAN_WAIT',
  'AVAILABLE',
  'PROVISIONING',
  'PROVISION_WAIT',
  'ACTIVE',
  'ADOPTING',
  'VERIFY_FAILED',
  'INSPECT_FAILED',
  'CLEAN_FAILED',
  'PROVISION_FAILED',
  'ADOPT_FAILED',
  'GONE',
] as const
export type MachineState = (typeof machineStates)[number]

export type MachineOperation = 'VERIFY' | 'INSPECT' | 'CLEAN' | 'POWER' | 'ADOPT'
