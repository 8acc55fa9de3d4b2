import type { ProviderEvent } from '@slipway/sdk'
import type { RogueEvent } from './boot/rogue-log.js'
import type { PowerEvent } from './power/driver.js'
import { loginKinds } from './power/rules.js'
import type { BmcErrorKind } from './power/errors.js'

// What happens in the segment, as people are told of it in the timelines of the hub.

/** `replayed-token` as `RogueReplayedToken`. */
export function tidingsOfRogue({ kind, subject, message, suppressed }: RogueEvent): ProviderEvent {
  const name = kind.replace(/(^|[^A-Za-z0-9]+)([A-Za-z0-9])/g, (_all, _gap, letter: string) => letter.toUpperCase())
  return { reason: `Rogue${name}`, severity: 'warning', message: `${subject}: ${message}`, count: suppressed + 1 }
}

/** A machine whose power somebody else has in hand belongs in maintenance: neither side is to fight the other. */
export function tidingsOfPower({ kind, id, message, errorKind }: PowerEvent): ProviderEvent {
  const about = { externalId: id, message }
  switch (kind) {
    case 'changed-outside':
      return { ...about, reason: 'PowerChangedOutside', severity: 'warning' }
    case 'contested':
      return { ...about, reason: 'PowerContested', severity: 'error', maintenance: 'begin' }
    case 'corrected':
      return { ...about, reason: 'PowerCorrected', severity: 'info' }
    case 'correction-delayed':
      return { ...about, reason: 'PowerCorrectionDelayed', severity: 'warning' }
    case 'ignored':
      return { ...about, reason: 'PowerIgnored', severity: 'warning' }
    case 'failing': {
      const isLogin = errorKind !== undefined && loginKinds.has(errorKind as BmcErrorKind)
      return { ...about, reason: isLogin ? 'ControllerRefusesLogin' : 'ControllerFails', severity: 'warning' }
    }
    case 'recovered':
      return { ...about, reason: 'ControllerRecovered', severity: 'info' }
  }
}
