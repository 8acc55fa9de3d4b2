export type ProviderKind = 'STATIC' | 'DYNAMIC'
export type ProviderConnection = 'PENDING' | 'CONNECTED' | 'DISCONNECTED'
export type Health = 'HEALTHY' | 'DEGRADED' | 'UNHEALTHY'
export const capabilities = [
  'POWER',
  'REINSTALL',
  'INSPECT',
  'OFFERINGS',
  'VALIDATE',
  'LIST',
  'REMOVE_ORPHAN',
  'RESCUE',
] as const
export type Capability = (typeof capabilities)[number]
