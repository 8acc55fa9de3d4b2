import type { RequestState } from './request.js'

export const requestEvents = [
  'claimed',
  'adopted',
  'provisioned',
  'reinstall',
  'failed',
  'deprovision-started',
  'gone',
  'cancelled',
  'forgotten',
] as const
export type RequestEvent = (typeof requestEvents)[number]

export interface RequestTransition {
  readonly from: RequestState
  readonly event: RequestEvent
  readonly to: RequestState
  /** Who or what brings it about. */
  readonly why: string
}

/** Every move that a machine request can make. GONE comes from its provider, a cancel before any claim, or a person's recorded word; from nothing else. */
export const requestTransitions: readonly RequestTransition[] = [
  { from: 'PENDING', event: 'claimed', to: 'PROVISIONING', why: 'an instance of its provider takes it up' },
  {
    from: 'PENDING',
    event: 'adopted',
    to: 'PROVISIONED',
    why: 'the machine was in use already, and is taken over as it is',
  },
  { from: 'PENDING', event: 'cancelled', to: 'GONE', why: 'released, or out of time, before anyone had claimed it' },
  {
    from: 'PENDING',
    event: 'deprovision-started',
    to: 'DEPROVISIONING',
    why: 'its host lets go of it, and an instance takes up the removal',
  },
  { from: 'PENDING', event: 'forgotten', to: 'GONE', why: 'a person' },
  { from: 'PROVISIONING', event: 'provisioned', to: 'PROVISIONED', why: 'the machine exists as wished' },
  {
    from: 'PROVISIONED',
    event: 'reinstall',
    to: 'PROVISIONING',
    why: 'a person wants a new system on the machine, which stays',
  },
  {
    from: 'PROVISIONING',
    event: 'reinstall',
    to: 'PROVISIONING',
    why: 'a newer wish takes the place of a reinstall that is under way',
  },
  { from: 'PROVISIONING', event: 'failed', to: 'FAILED', why: 'its provider gives up, or its deadline passed' },
  {
    from: 'PROVISIONING',
    event: 'deprovision-started',
    to: 'DEPROVISIONING',
    why: 'its host lets go of it, and an instance takes up the removal',
  },
  { from: 'PROVISIONING', event: 'forgotten', to: 'GONE', why: 'a person' },
  { from: 'PROVISIONED', event: 'failed', to: 'FAILED', why: 'its machine stayed silent' },
  {
    from: 'PROVISIONED',
    event: 'deprovision-started',
    to: 'DEPROVISIONING',
    why: 'its host lets go of it, and an instance takes up the removal',
  },
  { from: 'PROVISIONED', event: 'forgotten', to: 'GONE', why: 'a person' },
  {
    from: 'FAILED',
    event: 'deprovision-started',
    to: 'DEPROVISIONING',
    why: 'an instance takes up the removal of what was half made',
  },
  { from: 'FAILED', event: 'forgotten', to: 'GONE', why: 'a person' },
  {
    from: 'DEPROVISIONING',
    event: 'gone',
    to: 'GONE',
    why: 'its provider saw that nothing of it exists, or has let go of a server that was to be adopted',
  },
  { from: 'DEPROVISIONING', event: 'forgotten', to: 'GONE', why: 'a person' },
]

const moves = new Map(requestTransitions.map((move) => [`${move.from} ${move.event}`, move.to]))

/** The state that follows, or undefined where the event is not possible in this state. */
export function transitionRequest(state: RequestState, event: RequestEvent): RequestState | undefined {
  return moves.get(`${state} ${event}`)
}
