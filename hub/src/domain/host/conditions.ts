import type { Condition } from '../facts.js'
import { mergeConditions } from '../request/apply-report.js'

/** The conditions of a host, in the order in which they rise. None is TRUE while one before it is not. */
export const hostConditionTypes = ['Accepted', 'Placed', 'Created', 'Booted', 'Registered', 'Ready'] as const
export type HostConditionType = (typeof hostConditionTypes)[number]

const reachedReasons: Readonly<Record<HostConditionType, string>> = {
  Accepted: 'Ordered',
  Placed: 'Placed',
  Created: 'Created',
  Booted: 'Provisioned',
  Registered: 'PhonedHome',
  Ready: 'Ready',
}

export interface HostRise {
  /** The last condition that holds. */
  readonly reached: HostConditionType
  /** Of the one that is next, and of Ready: why it does not hold. UpperCamelCase. */
  readonly reason: string
  readonly message: string
  /** False: the class does not ask for a phone home, so that Registered needs none. */
  readonly phoneHome: boolean
}

/** The conditions that follow from how far a host has risen. A condition's time moves only where its status does. */
export function riseConditions(before: readonly Condition[], rise: HostRise, now: Date): readonly Condition[] {
  const reached = hostConditionTypes.indexOf(rise.reached)
  const said = hostConditionTypes.map((type, index) => {
    if (index <= reached) {
      const reason = type === 'Registered' && !rise.phoneHome ? 'NotRequired' : reachedReasons[type]
      return { type, status: 'TRUE' as const, reason, message: '' }
    }
    const told = index === reached + 1 || type === 'Ready'
    return { type, status: 'FALSE' as const, reason: told ? rise.reason : 'Waiting', message: told ? rise.message : '' }
  })
  return mergeConditions(before, said, now)
}

/** `OFFERING_HELD` as a condition's reason: `OfferingHeld`. */
export function toConditionReason(code: string): string {
  return code
    .split('_')
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1).toLowerCase())
    .join('')
}
