import {
  groupBy,
  listingOf,
  text,
  type Histories,
  type LedgerFile,
  type LedgerLine,
  type Violation,
} from './histories.js'

// What the rack's own ledger tells about who had which machine.

/** I6, I7: one host a machine at a time, and a wipe between two. The rack refuses what breaks this, and writes it down; the lines are judged here all the same. */
export function machinesHandedOver({ ledgers }: Histories): readonly Violation[] {
  return ledgers.filter(({ kind }) => kind === 'rack').flatMap(judgeRack)
}

function judgeRack({ lines }: LedgerFile): readonly Violation[] {
  const violations: Violation[] = lines
    .filter(({ fact }) => fact === 'violation')
    .map((line) => ({
      rule: 'I6',
      message: `the rack refused: ${line.what ?? ''}: ${line.message ?? ''}`,
      lines: [line],
    }))
  const bySerial = groupBy(
    lines.filter(({ serial }) => serial !== undefined),
    ({ serial }) => serial ?? '',
  )
  for (const [serial, own] of bySerial) {
    const violation = judgeMachine(serial, own)
    if (violation !== undefined) violations.push(violation)
  }
  return violations
}

function judgeMachine(serial: string, lines: readonly LedgerLine[]): Violation | undefined {
  let bound: LedgerLine | undefined
  let soiled: LedgerLine | undefined
  for (const line of lines) {
    if (line.fact === 'machine.provisioned') {
      if (bound !== undefined && bound.binding !== line.binding)
        return { rule: 'I6', message: `machine ${serial} was given to a second host`, lines: [bound, line] }
      if (soiled !== undefined && soiled.binding !== line.binding)
        return { rule: 'I7', message: `machine ${serial} was given on without a wipe`, lines: [soiled, line] }
      bound = line
      soiled = line
    } else if (line.fact === 'machine.released' && bound?.binding === line.binding) {
      bound = undefined
    } else if (line.fact === 'machine.wiped') {
      if (bound !== undefined)
        return { rule: 'I6', message: `machine ${serial} was wiped with a host on it`, lines: [bound, line] }
      soiled = undefined
    }
  }
  return undefined
}

/** L7: at the end every machine of a rack is clean, or says why not; none is bound. */
export function rackAtTheEnd(histories: Histories): readonly Violation[] {
  const listing = listingOf(histories, 'end', 'machine')
  if (listing === undefined) return []
  const resting = new Set(['AVAILABLE', 'CLEAN_FAILED', 'PROVISION_FAILED', 'VERIFY_FAILED', 'INSPECT_FAILED', 'GONE'])
  const rest = listing.objects
    .filter((machine) => machine['static'] === true && !resting.has(machine.state))
    .map((machine) => ({
      rule: 'L7',
      message: `machine ${machine.name} is ${machine.state} at the end`,
      lines: [machine],
    }))
  const bound = listing.objects
    .filter((machine) => machine['static'] === true && text(machine['host']) !== '')
    .map((machine) => ({ rule: 'I5', message: `machine ${machine.name} has a host at the end`, lines: [machine] }))
  return [...rest, ...bound]
}
