import type { Seen, WatchedChange, WatchLine } from '../history.js'
import { groupBy, listingOf, type Histories, type Violation, type WatchFile } from './histories.js'

/** A stretch of a watch from a fresh beginning, over any number of cuts and resumptions. */
interface Chain {
  readonly watch: string
  readonly lines: readonly WatchLine[]
}

/** A watch that begins with what exists starts anew; one with a revision goes on. */
function chainsOf({ name, lines }: WatchFile): readonly Chain[] {
  const chains: { watch: string; lines: WatchLine[] }[] = []
  for (const line of lines) {
    const isAnew = line.type === 'open' && line.from === ''
    if (isAnew || (chains.length === 0 && line.type !== 'start')) chains.push({ watch: name, lines: [] })
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

/** S14: all watchers of a kind are told the same changes, and those of each object in the same order. Commits at one moment have no order among themselves. */
export function oneOrderForAll({ watches }: Histories): readonly Violation[] {
  const kinds = groupBy(watches, ({ kind }) => kind)
  return [...kinds.values()].flatMap((files) => {
    const streams = files.flatMap(chainsOf).map(streamOf)
    return streams.flatMap((one, index) => streams.slice(index + 1).flatMap((other) => compare(one, other)))
  })
}

/** How many changes may be committed at one moment. */
const atOneMoment = 25

interface Stream {
  readonly watch: string
  readonly changes: readonly Seen[]
  /** What it was told to exist: the version of each object that the list showed. */
  readonly existing: ReadonlyMap<string, number>
}

function streamOf({ watch, lines }: Chain): Stream {
  const told = lines.flatMap((line) => (line.type === 'message' ? line.changes : []))
  const existing = told
    .filter(({ change }) => change === 'EXISTING')
    .map(({ seen }) => [seen.uid, seen.version] as const)
  const changes = told.filter(({ change }) => change !== 'EXISTING').map(({ seen }) => seen)
  return { watch, changes, existing: new Map(existing) }
}

/** What a stream was told and the other one's list had not shown already. A list shows what was committed by then, which need not be the beginning of the order. */
function toldBeyond({ changes }: Stream, { existing }: Stream): readonly Seen[] {
  return changes.filter(({ uid, version }) => version > (existing.get(uid) ?? 0))
}

/** What both were told beyond their lists must be in one order for each object, without anything that only one of them was told; one may end before the other. */
function compare(one: Stream, other: Stream): readonly Violation[] {
  const [mine, theirs] = [toldBeyond(one, other), toldBeyond(other, one)]
  const [myKeys, theirKeys] = [new Set(mine.map(placeKey)), new Set(theirs.map(placeKey))]
  const common = mine.filter((seen) => theirKeys.has(placeKey(seen)))
  const commonToo = theirs.filter((seen) => myKeys.has(placeKey(seen)))
  const blame = (what: string, lines: readonly (Seen | undefined)[]): readonly Violation[] => [
    {
      rule: 'S14',
      message: `${one.watch} and ${other.watch} were told ${what}`,
      lines: lines.filter((line) => line !== undefined),
    },
  ]
  const theirsByObject = groupBy(commonToo, objectKey)
  for (const [object, changes] of groupBy(common, objectKey)) {
    for (const [index, seen] of changes.entries()) {
      const twin = theirsByObject.get(object)?.[index]
      if (placeKey(seen) !== placeKey(twin)) return blame('changes in another order', [changes[index - 1], seen, twin])
      if (seen.digest !== twin?.digest) return blame('the same version with other content', [seen, twin])
    }
  }
  const gaps = [outside(mine, theirKeys), outside(theirs, myKeys)] as const
  if (common.length === 0) return []
  // Each began with a list, so that what it was not told after it is missing.
  const missed = gaps.flatMap(({ before, between }) => [before, between]).find((seen) => seen !== undefined)
  if (missed !== undefined) return blame('not the same changes', [missed])
  const [mineAfter, theirsAfter] = [gaps[0].after, gaps[1].after]
  if (mineAfter === undefined || theirsAfter === undefined) return []
  return blame('other changes after those that they have in common', [mineAfter, theirsAfter])
}

/** The nearest changes that the others were not told: before the first that they share, between two such, after the last. */
function outside(changes: readonly Seen[], shared: ReadonlySet<string>) {
  const isShared = (seen: Seen) => shared.has(placeKey(seen))
  const [first, last] = [changes.findIndex(isShared), changes.findLastIndex(isShared)]
  const after = changes[last + 1]
  // Where the others ended earlier, what was committed at the moment of their end may stand before something that they were still told.
  const end = after === undefined ? last + 1 : Math.max(first, last + 1 - atOneMoment)
  return { before: changes[first - 1], between: changes.slice(first, end).find((seen) => !isShared(seen)), after }
}

/** What changes have an order among themselves: those of one object, or the timeline of one subject. */
function objectKey(seen: Seen): string {
  return typeof seen['subject'] === 'string' ? seen['subject'] : seen.uid
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
