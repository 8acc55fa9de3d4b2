import type { Seen, WatchKind } from '../history.js'
import { groupBy, type Histories, type Violation } from './histories.js'

/**
 * From each state, the states that may follow: from docs/lifecycles.md, and not from the product's code. A host may become READY in the very commit in which its
 * machine was there.
 */
const moves: Readonly<Partial<Record<WatchKind, Readonly<Record<string, string>>>>> = {
  host: {
    ORDERED: 'PLACED ERROR RELEASING',
    PLACED: 'PROVISIONING BOOTSTRAPPING READY ORDERED ERROR RELEASING',
    PROVISIONING: 'BOOTSTRAPPING READY ORDERED ERROR RELEASING',
    BOOTSTRAPPING: 'READY PROVISIONING ORDERED ERROR RELEASING',
    READY: 'PROVISIONING ERROR RELEASING',
    ERROR: 'READY PROVISIONING ORDERED RELEASING',
    RELEASING: 'RELEASED',
    RELEASED: '',
  },
  request: {
    PENDING: 'PROVISIONING GONE DEPROVISIONING',
    PROVISIONING: 'PROVISIONED FAILED DEPROVISIONING',
    PROVISIONED: 'PROVISIONING FAILED DEPROVISIONING',
    FAILED: 'DEPROVISIONING',
    DEPROVISIONING: 'GONE',
    GONE: '',
  },
  machine: {
    DISCOVERED: 'VERIFYING ADOPTING GONE',
    VERIFYING: 'MANAGEABLE VERIFY_FAILED GONE',
    MANAGEABLE: 'INSPECTING GONE',
    INSPECTING: 'CLEANING INSPECT_WAIT INSPECT_FAILED GONE',
    INSPECT_WAIT: 'CLEANING INSPECT_FAILED GONE',
    CLEANING: 'AVAILABLE CLEAN_WAIT CLEAN_FAILED GONE',
    CLEAN_WAIT: 'AVAILABLE CLEAN_FAILED GONE',
    AVAILABLE: 'PROVISIONING GONE',
    PROVISIONING: 'AVAILABLE ACTIVE PROVISION_WAIT PROVISION_FAILED CLEANING GONE',
    PROVISION_WAIT: 'ACTIVE PROVISION_FAILED CLEANING GONE',
    ACTIVE: 'PROVISIONING CLEANING GONE',
    ADOPTING: 'ACTIVE ADOPT_FAILED GONE',
    VERIFY_FAILED: 'VERIFYING GONE',
    INSPECT_FAILED: 'INSPECTING GONE',
    CLEAN_FAILED: 'CLEANING GONE',
    PROVISION_FAILED: 'CLEANING GONE',
    ADOPT_FAILED: 'ADOPTING GONE',
    GONE: '',
  },
}

/** What never falls, by kind. */
const rising: Readonly<Partial<Record<WatchKind, readonly string[]>>> = {
  request: ['generation', 'observed'],
  machine: ['reboots', 'rebootsDone'],
}

/** S7: only legal moves, and counters that never fall, over all that any watcher was told. */
export function legalMoves({ watches }: Histories): readonly Violation[] {
  const found = watches.flatMap(({ kind, lines }) => {
    const told = lines.flatMap((line) => (line.type === 'message' ? line.changes.map(({ seen }) => seen) : []))
    return [...groupBy(told, ({ uid }) => uid).values()].flatMap((versions) => judge(kind, versions))
  })
  // Every watcher is told the same.
  return [...new Map(found.map((violation) => [violation.message, violation])).values()]
}

function judge(kind: WatchKind, told: readonly Seen[]): readonly Violation[] {
  const byVersion = new Map(told.map((seen) => [seen.version, seen]))
  for (const after of byVersion.values()) {
    const before = byVersion.get(after.version - 1)
    if (before === undefined) continue
    const legal = moves[kind]?.[before.state]?.split(' ')
    if (legal !== undefined && before.state !== after.state && !legal.includes(after.state)) {
      const message = `${after.name} went from ${before.state} to ${after.state}`
      return [{ rule: 'S7', message, lines: [before, after] }]
    }
    // A machine of a rack is counted anew for its next host.
    const isHandedOn = kind === 'machine' && before.state !== 'ACTIVE'
    const fallen = isHandedOn ? undefined : rising[kind]?.find((field) => Number(after[field]) < Number(before[field]))
    if (fallen !== undefined)
      return [{ rule: 'S7', message: `${fallen} of ${after.name} fell`, lines: [before, after] }]
  }
  return []
}
