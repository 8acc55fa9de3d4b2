import type { Seen, WatchedChange, WatchLine } from '../history.js'
import { groupBy, listingOf, type Histories, type Violation, type WatchFile } from './histories.js'

type Message = Extract<WatchLine, { type: 'message' }>

/** A stretch of a watch from a fresh beginning, over any number of cuts and resumptions. */
interface Chain {
  readonly watch: string
  readonly lines: readonly WatchLine[]
}

/** A watch that begins with what exists starts anew; one with a revision goes on. */
function chainsOf({ name, lines }: WatchFile): readonly Chain[] {
  const chains: { watch: string; lines: WatchLine[] }[] = []
  for (const line of lines) {
    if (line.type === 'open' && line.from === '') chains.push({ watch: name, lines: [] })
    else if (line.type === 'open' && chains.length === 0) chains.push({ watch: name, lines: [] })
    chains.at(-1)?.lines.push(line)
  }
  return chains
}

/** S14, I10: in each watch, the versions of each object rise by exactly one: no gap, no duplicate, no step back, over all cuts. */
export function everyChangeOnce({ watches }: Histories): readonly Violation[] {
  return watches
    .filter(({ kind }) => kind !== 'event')
    .flatMap(chainsOf)
    .flatMap((chain) => {
      const last = new Map<string, { seen: Seen; line: WatchLine }>()
      const violations: Violation[] = []
      for (const line of chain.lines) {
        if (line.type !== 'message') continue
        for (const change of line.changes) {
          const fault = judgeStep(change, last.get(change.seen.uid)?.seen)
          if (fault !== undefined)
            violations.push({
              rule: 'S14',
              message: `${chain.watch}: ${change.seen.name}: ${fault}`,
              lines: evidence(chain, last.get(change.seen.uid)?.line, line, change.seen.uid),
            })
          last.set(change.seen.uid, { seen: change.seen, line })
        }
      }
      return violations.slice(0, 3)
    })
}

function judgeStep({ change, seen }: WatchedChange, before: Seen | undefined): string | undefined {
  if (before === undefined) {
    if (change === 'EXISTING') return undefined
    if (change === 'CREATED' && seen.version === 1) return undefined
    return change === 'CREATED'
      ? `created at version ${seen.version}`
      : `first told of at version ${seen.version} as ${change}: its beginning is missing`
  }
  if (change === 'EXISTING') return `told to exist at version ${seen.version} when it was known already`
  if (seen.version === before.version + 1) return change === 'CREATED' ? 'created a second time' : undefined
  if (seen.version === before.version) return `version ${seen.version} was told twice`
  if (seen.version < before.version) return `version ${seen.version} was told after ${before.version}`
  return `from version ${before.version} to ${seen.version}: a change is missing`
}

/** The two messages that show it, and the cuts between them. */
function evidence(chain: Chain, from: WatchLine | undefined, to: WatchLine, uid: string): readonly unknown[] {
  const begin = from === undefined ? chain.lines.indexOf(to) : chain.lines.indexOf(from)
  return chain.lines
    .slice(begin, chain.lines.indexOf(to) + 1)
    .filter((line) => line.type !== 'message' || line === from || line === to)
    .map((line) =>
      line.type === 'message' ? { ...line, changes: line.changes.filter(({ seen }) => seen.uid === uid) } : line,
    )
}

/** S14: an event is told at most once in one watch. */
export function everyEventOnce({ watches }: Histories): readonly Violation[] {
  return watches
    .filter(({ kind }) => kind === 'event')
    .flatMap(chainsOf)
    .flatMap((chain) => {
      const told = new Map<string, WatchLine>()
      for (const line of chain.lines) {
        if (line.type !== 'message') continue
        for (const { seen } of line.changes) {
          const before = told.get(seen.uid)
          if (before !== undefined)
            return [
              {
                rule: 'S14',
                message: `${chain.watch}: event ${seen.uid} was told twice`,
                lines: evidence(chain, before, line, seen.uid),
              },
            ]
          told.set(seen.uid, line)
        }
      }
      return []
    })
}

/** S14: all watchers of a kind are told the same changes in the same order: where two streams overlap, they are equal. */
export function oneOrderForAll({ watches }: Histories): readonly Violation[] {
  const kinds = groupBy(watches, ({ kind }) => kind)
  return [...kinds.values()].flatMap((files) => {
    const streams = files.flatMap(chainsOf).map((chain) => ({ chain, changes: changesOf(chain) }))
    return streams.flatMap((one, index) => streams.slice(index + 1).flatMap((other) => compare(one, other)))
  })
}

interface Stream {
  readonly chain: Chain
  readonly changes: readonly Seen[]
}

function changesOf({ lines }: Chain): readonly Seen[] {
  return lines
    .filter((line): line is Message => line.type === 'message')
    .flatMap(({ changes }) => changes.filter(({ change }) => change !== 'EXISTING').map(({ seen }) => seen))
}

/** What both were told must be in one order, without anything between that only one of them was told; each may begin and end where it likes, but not both. */
function compare(one: Stream, other: Stream): readonly Violation[] {
  const [mine, theirs] = [keysOf(one), keysOf(other)]
  const common = one.changes.filter((seen) => theirs.has(placeKey(seen)))
  const commonToo = other.changes.filter((seen) => mine.has(placeKey(seen)))
  const blame = (what: string, lines: readonly (Seen | undefined)[]): readonly Violation[] => [
    {
      rule: 'S14',
      message: `${one.chain.watch} and ${other.chain.watch} were told ${what}`,
      lines: lines.filter((line) => line !== undefined),
    },
  ]
  for (const [index, seen] of common.entries()) {
    const twin = commonToo[index]
    if (placeKey(seen) !== placeKey(twin)) return blame('changes in another order', [common[index - 1], seen, twin])
    if (seen.digest !== twin?.digest) return blame('the same version with other content', [seen, twin])
  }
  const gaps = [outside(one, theirs), outside(other, mine)] as const
  const missed = gaps[0].between ?? gaps[1].between
  if (missed !== undefined) return blame('not the same changes', [missed])
  for (const end of ['before', 'after'] as const)
    if (gaps[0][end] !== undefined && gaps[1][end] !== undefined && common.length > 0)
      return blame(`other changes ${end} those that they have in common`, [gaps[0][end], gaps[1][end]])
  return []
}

function keysOf({ changes }: Stream): ReadonlySet<string> {
  return new Set(changes.map(placeKey))
}

/** The nearest changes that the others were not told: before the first that they share, between two such, after the last. */
function outside({ changes }: Stream, shared: ReadonlySet<string>) {
  const isShared = (seen: Seen) => shared.has(placeKey(seen))
  const [first, last] = [changes.findIndex(isShared), changes.findLastIndex(isShared)]
  return {
    before: changes[first - 1],
    between: changes.slice(first, last + 1).find((seen) => !isShared(seen)),
    after: changes[last + 1],
  }
}

function placeKey(seen: Seen | undefined): string {
  return `${seen?.uid ?? ''}@${seen?.version ?? 0}`
}

/** S14, L6: at the end each watch amounts to what the clerk listed. */
export function watchAgreesWithList(histories: Histories): readonly Violation[] {
  return histories.watches.flatMap((file) => {
    const listing = listingOf(histories, 'end', file.kind)
    if (listing === undefined || file.kind === 'event') return []
    const last = new Map<string, Seen>()
    for (const line of file.lines)
      if (line.type === 'message') for (const { seen } of line.changes) last.set(seen.uid, seen)
    const listed = new Map(listing.objects.map((seen) => [seen.uid, seen]))
    const wrong = listing.objects.filter((seen) => {
      const told = last.get(seen.uid)
      return (
        told === undefined ||
        told.version < seen.version ||
        (told.version === seen.version && told.state !== seen.state)
      )
    })
    const invented = [...last.values()].filter((seen) => !listed.has(seen.uid))
    return [
      ...wrong.slice(0, 1).map((seen) => ({
        rule: 'L6',
        message: `${file.name} did not come to what ${seen.name} is: ${wrong.length} such`,
        lines: [seen, last.get(seen.uid) ?? 'never told'],
      })),
      ...invented.slice(0, 1).map((seen) => ({
        rule: 'S14',
        message: `${file.name} was told of ${seen.name}, which is not listed`,
        lines: [seen],
      })),
    ]
  })
}
