import type { HostState } from './host.js'

export const hostEvents = [
  'placed',
  'claimed',
  'provisioned',
  'ready',
  'reinstall',
  'replace',
  'failed',
  'recovered',
  'retry',
  'release',
  'released',
] as const
export type HostEvent = (typeof hostEvents)[number]

export interface HostTransition {
  readonly from: HostState
  readonly event: HostEvent
  readonly to: HostState
  /** Who or what brings it about. */
  readonly why: string
}

/** States in which a machine is on its way. */
const underWay: readonly HostState[] = ['PLACED', 'PROVISIONING', 'BOOTSTRAPPING']
const live: readonly HostState[] = ['ORDERED', ...underWay, 'READY', 'ERROR']

/** Every move that a host can make. */
export const hostTransitions: readonly HostTransition[] = [
  { from: 'ORDERED', event: 'placed', to: 'PLACED', why: 'a place was found, and a machine request stored for it' },
  { from: 'PLACED', event: 'claimed', to: 'PROVISIONING', why: 'an instance of the provider took the request up' },
  ...(['PLACED', 'PROVISIONING'] as const).map((from) => ({
    from,
    event: 'provisioned' as const,
    to: 'BOOTSTRAPPING' as const,
    why: 'the machine exists as wished',
  })),
  {
    from: 'BOOTSTRAPPING',
    event: 'ready',
    to: 'READY',
    why: 'the machine phoned home, or its class does not ask for it',
  },
  ...underWay.map((from) => ({
    from,
    event: 'replace' as const,
    to: 'ORDERED' as const,
    why: 'the place had none, or its machine stayed silent; nothing of the attempt exists any more, and another place is looked for',
  })),
  ...(['ORDERED', ...underWay, 'READY'] as const).map((from) => ({
    from,
    event: 'failed' as const,
    to: 'ERROR' as const,
    why: 'something failed that waiting cannot cure',
  })),
  ...(['READY', 'ERROR', 'PROVISIONING', 'BOOTSTRAPPING'] as const).map((from) => ({
    from,
    event: 'reinstall' as const,
    to: 'PROVISIONING' as const,
    why: 'a person wants a new system on its machine, which stays',
  })),
  {
    from: 'ERROR',
    event: 'recovered',
    to: 'READY',
    why: 'its machine, which had vanished or stayed silent, is there again',
  },
  { from: 'ERROR', event: 'retry', to: 'ORDERED', why: 'a person' },
  ...live.map((from) => ({ from, event: 'release' as const, to: 'RELEASING' as const, why: 'a person' })),
  { from: 'RELEASING', event: 'released', to: 'RELEASED', why: 'nothing of it exists any more' },
]

const moves = new Map(hostTransitions.map((move) => [`${move.from} ${move.event}`, move.to]))

/** The state that follows, or undefined where the event is not possible in this state. */
export function transitionHost(state: HostState, event: HostEvent): HostState | undefined {
  return moves.get(`${state} ${event}`)
}
