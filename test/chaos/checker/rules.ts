import * as clouds from './clouds.js'
import { legalMoves } from './lifecycles.js'
import type { Histories, Rule, Violation } from './histories.js'
import * as orders from './orders.js'
import { rebootsOnce } from './power.js'
import * as racks from './racks.js'
import * as sessions from './sessions.js'
import * as watches from './watches.js'

/** Every rule that a run is judged by. */
export const rules: readonly Rule[] = [
  clouds.oneServerForEachRequest,
  clouds.nothingForeignTouched,
  clouds.foreignServersLeft,
  clouds.nothingDeletedThatIsKept,
  clouds.noServerWithoutHost,
  clouds.nothingLeftAtTheEnd,
  racks.machinesHandedOver,
  racks.rackAtTheEnd,
  orders.sameKeySameHost,
  orders.otherOrderRefused,
  orders.acknowledgedOrdersExist,
  orders.everyOrderArrives,
  orders.powerAsWished,
  orders.releasesArrive,
  sessions.readYourWrites,
  sessions.noInternalErrors,
  sessions.noUnexpectedEnds,
  legalMoves,
  watches.everyChangeOnce,
  watches.everyEventOnce,
  watches.oneOrderForAll,
  watches.watchAgreesWithList,
  rebootsOnce,
]

/** Judges a run by its histories alone. */
export function check(histories: Histories): readonly Violation[] {
  return rules.flatMap((rule) => rule(histories))
}
