import { groupBy, text, type Histories, type LedgerLine, type Violation } from './histories.js'

/** Reboots of one machine: how often it was asked for, and how often it happened. */
export interface Reboots {
  readonly machine: string
  readonly wished: number
  readonly happened: readonly LedgerLine[]
  /** Occasions on which nobody could know whether one had happened: lost answers, and faults while it was under way. */
  readonly doubts: number
}

/** A cloud that is stuck takes an order, and never carries it out: whoever asks it again then reboots nothing twice. */
const isCarriedOut = ({ doneAtMs }: LedgerLine): boolean => doneAtMs !== null

/** How often each machine was rebooted, over all worlds. */
export function rebootsOf(histories: Histories): readonly Reboots[] {
  const machineOf = new Map<string, string>()
  const observed = [
    ...histories.listings.filter(({ kind }) => kind === 'machine').flatMap(({ objects }) => objects),
    ...histories.watches.flatMap(({ lines }) =>
      lines.flatMap((line) =>
        line.type === 'message' && line.kind === 'machine' ? line.changes.map(({ seen }) => seen) : [],
      ),
    ),
  ]
  for (const seen of observed) machineOf.set(text(seen['externalId']), seen.name)
  const wishes = histories.clients.flatMap((line) =>
    line.type === 'invoke' && line.op === 'power' && line.action === 'reboot' ? [line] : [],
  )
  const wished = groupBy(wishes, ({ machine }) => machine)
  const powered = histories.ledgers
    .flatMap(({ lines }) => lines)
    .filter(({ fact, wish }) => /^(server|machine)\.powered$/.test(fact) && wish === 'reboot')
  const happened = groupBy(
    powered,
    ({ id, serial }) => machineOf.get(id ?? serial ?? '') ?? `unknown ${id ?? serial ?? ''}`,
  )
  return [...happened].map(([machine, ordered]) => {
    const lines = ordered.filter(isCarriedOut)
    const own = wished.get(machine) ?? []
    const from = Math.min(...own.map(({ at }) => at))
    const to = Math.max(...ordered.map(({ atMs }) => atMs))
    const during = histories.faults.filter(({ type, at }) => type === 'end' && at >= from && at <= to + 30_000)
    const lost = lines.filter(({ answer }) => answer === 'lost').length
    return {
      machine,
      wished: new Set(own.map(({ key }) => key)).size,
      happened: lines,
      doubts: lost + during.length,
    }
  })
}

/**
 * Each reboot happens once. Where an answer was lost, or a process or a link broke while it was under way, nobody can know whether it did, and it may happen once more
 * for each such occasion: a known limit, since power has no key at a cloud.
 */
export function rebootsOnce(histories: Histories): readonly Violation[] {
  return rebootsOf(histories)
    .filter(({ wished, happened, doubts }) => happened.length > wished + doubts || wished === 0)
    .map(({ machine, wished, happened, doubts }) => ({
      rule: 'L3',
      message: `${machine} was rebooted ${happened.length} times for ${wished} wishes, with ${doubts} doubts`,
      lines: happened,
    }))
}
