import type { Case } from '../case.js'
import { adoptCases } from './adopt.js'
import { clockCases } from './clock.js'
import { consoleCases } from './console.js'
import { crashCases } from './crash.js'
import { createCases } from './create.js'
import { deleteCases } from './delete.js'
import { endingCases } from './ending.js'
import { failureCases } from './failures.js'
import { handshakeCases } from './handshake.js'
import { holdsCases } from './holds.js'
import { idleCases } from './idle.js'
import { leftAloneCases } from './left-alone.js'
import { listingCases } from './listing.js'
import { observeCases } from './observe.js'
import { offeringsCases } from './offerings.js'
import { orphanCases } from './orphans.js'
import { ownershipCases } from './ownership.js'
import { powerCases } from './power.js'
import { rackCases } from './rack.js'
import { reinstallCases } from './reinstall.js'
import { rescueCases } from './rescue.js'
import { schemaCases } from './schema.js'
import { settingsCases } from './settings.js'
import { stoppingCases } from './stopping.js'
import { streamCases } from './stream.js'
import { takeoverCases } from './takeover.js'
import { validateCases } from './validate.js'

/** Every case, theme by theme. */
export const allCases: readonly Case[] = [
  ...handshakeCases,
  ...schemaCases,
  ...settingsCases,
  ...createCases,
  ...observeCases,
  ...deleteCases,
  ...crashCases,
  ...takeoverCases,
  ...holdsCases,
  ...streamCases,
  ...listingCases,
  ...ownershipCases,
  ...orphanCases,
  ...adoptCases,
  ...validateCases,
  ...offeringsCases,
  ...failureCases,
  ...powerCases,
  ...reinstallCases,
  ...rescueCases,
  ...consoleCases,
  ...rackCases,
  ...leftAloneCases,
  ...stoppingCases,
  ...idleCases,
  ...clockCases,
  ...endingCases,
]
