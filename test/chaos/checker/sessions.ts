import type { ProcessLine, Seen } from '../history.js'
import { callsOf, linesOf, type Call } from './calls.js'
import { groupBy, text, type Histories, type Violation } from './histories.js'

/** The host that a call was about, once that is known. */
function uidOf({ invocation, outcome }: Call): string {
  if ('uid' in invocation) return invocation.uid
  return outcome?.type === 'ok' && (invocation.op === 'order' || invocation.op === 'reuse') ? outcome.seen.uid : ''
}

/** S15: what a client was told, every hub tells it from then on. */
export function readYourWrites(histories: Histories): readonly Violation[] {
  const aboutHosts = callsOf(histories).filter(({ invocation }) => invocation.op !== 'power')
  const byHost = groupBy(aboutHosts, uidOf)
  byHost.delete('')
  return [...byHost.values()].flatMap((calls) => [...neverBack(calls), ...neverLost(calls), ...labelsKept(calls)])
}

/** No answer is older than one that had come before the question. */
function neverBack(calls: readonly Call[]): readonly Violation[] {
  const violations: Violation[] = []
  for (const later of calls) {
    // A repeated order is told the first answer again.
    if (later.outcome?.type !== 'ok' || later.invocation.op !== 'get') continue
    const version = later.outcome.seen.version
    const newer = calls.find(
      ({ outcome }) => outcome?.type === 'ok' && outcome.at < later.invocation.at && outcome.seen.version > version,
    )
    if (newer === undefined) continue
    const message = `${later.outcome.seen.name} was told at version ${version} after a newer one`
    violations.push({ rule: 'S15', message, lines: linesOf(newer, later) })
  }
  return violations.slice(0, 1)
}

/** What was acknowledged is found, until somebody lets go of it. */
function neverLost(calls: readonly Call[]): readonly Violation[] {
  const ordered = calls.find(({ invocation, outcome }) => invocation.op === 'order' && outcome?.type === 'ok')
  const released = calls.find(({ invocation }) => invocation.op === 'release')
  const missed = calls.find(
    ({ invocation, outcome }) =>
      invocation.op === 'get' &&
      outcome?.type === 'fail' &&
      outcome.reason === 'HOST_NOT_FOUND' &&
      ordered?.outcome !== undefined &&
      invocation.at > ordered.outcome.at &&
      outcome.at < (released?.invocation.at ?? Infinity),
  )
  if (missed === undefined) return []
  return [{ rule: 'S15', message: 'an acknowledged order was not found', lines: linesOf(ordered, missed) }]
}

/** A label is what was written last; one whose outcome nobody knows may come at any later time. */
function labelsKept(calls: readonly Call[]): readonly Violation[] {
  const writes = calls.filter(({ invocation }) => invocation.op === 'label')
  for (const read of calls) {
    if (read.invocation.op !== 'get' || read.outcome?.type !== 'ok') continue
    const { at } = read.invocation
    const value = labelOf(read.outcome.seen)
    const done = writes.filter(({ outcome }) => outcome?.type === 'ok' && outcome.at < at)
    const last = done.at(-1)
    if (last === undefined) continue
    const readEnd = read.outcome.at
    const possible = writes.filter(
      (write) =>
        write === last ||
        (write.outcome?.type !== 'fail' &&
          (write.outcome?.type !== 'ok' || write.outcome.at >= at) &&
          write.invocation.at <= readEnd),
    )
    if (possible.some(({ invocation }) => invocation.op === 'label' && invocation.value === value)) continue
    const message = `${read.outcome.seen.name} has the label ${value}, and not what was written last`
    return [{ rule: 'S15', message, lines: linesOf(last, read) }]
  }
  return []
}

function labelOf(seen: Seen): string {
  return text((seen['labels'] as Record<string, unknown> | undefined)?.['chaos'])
}

/** A hub that says INTERNAL says that it has a defect. */
export function noInternalErrors({ clients }: Histories): readonly Violation[] {
  const said = clients.filter((line) => line.type === 'info' && line.reason === 'INTERNAL')
  return said.map((line) => ({
    rule: 'D1',
    message: 'a hub answered INTERNAL, a defect by its own word',
    lines: [...clients.filter((other) => other.type === 'invoke' && 'call' in line && other.call === line.call), line],
  }))
}

/** No process of the product ends but by a fault or an order; or a hub that cannot reach its database when it starts, and says so. */
export function noUnexpectedEnds({ processes }: Histories): readonly Violation[] {
  return processes
    .filter((line) => line.type === 'exit' && line.because === undefined && !isRefusedStart(line))
    .map((line) => ({ rule: 'D2', message: `${line.name} ended by itself (${line.how ?? ''})`, lines: [line] }))
}

/** Whether a hub ended in good order because its database was away at its start. Its service manager starts it again. */
export function isRefusedStart({ name, how, said = '' }: ProcessLine): boolean {
  return name.startsWith('hub-') && how === '1' && said.startsWith('slipway-hub: ')
}
