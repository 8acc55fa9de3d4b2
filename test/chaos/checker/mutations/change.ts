import type { Listing, Operation, Outcome, WatchKind, WatchLine } from '../../history.js'
import type { Example } from '../example.js'

// Ways in which a run can go wrong, each as a change to the histories of a good one. The checker must find every one.

export interface Mutation {
  readonly name: string
  /** The rule that must be found broken. */
  readonly rule: string
  readonly mutate: (example: Example) => void
}

export type Message = Extract<WatchLine, { type: 'message' }>
export type Change = {
  change: Message['changes'][number]['change']
  seen: Record<string, unknown> & { uid: string; version: number }
}

export const watchers = ['watcher-1', 'watcher-2'] as const

export function linesOf(example: Example, watch: string): WatchLine[] {
  const file = example.watches.find(({ name }) => name === watch)
  if (file === undefined) throw new Error(`there is no watch ${watch}`)
  return file.lines
}

/** The changes of a watch, to be changed, with the lines that they are in. */
export function changesOf(example: Example, watch: string): { line: Message; change: Change }[] {
  return linesOf(example, watch).flatMap((line) =>
    line.type === 'message' ? line.changes.map((change) => ({ line, change: change })) : [],
  )
}

export function changeOf(
  example: Example,
  watch: string,
  uid: string,
  version: number,
): { line: Message; change: Change } {
  const found = changesOf(example, watch).find(
    ({ change }) => change.seen.uid === uid && change.seen.version === version,
  )
  if (found === undefined) throw new Error(`${watch} was not told ${uid}@${version}`)
  return found
}

export function lineOf(example: Example, watch: string, uid: string, version: number): WatchLine {
  return changeOf(example, watch, uid, version).line
}

export function drop(example: Example, watch: string, uid: string, version: number): void {
  const lines = linesOf(example, watch)
  lines.splice(lines.indexOf(lineOf(example, watch, uid, version)), 1)
}

/** Tells a change again, directly after or after so many lines. */
export function repeat(example: Example, watch: string, uid: string, version: number, later = 1): void {
  const lines = linesOf(example, watch)
  const line = lineOf(example, watch, uid, version)
  lines.splice(lines.indexOf(line) + later, 0, structuredClone(line))
}

/** Exchanges the places of two changes. */
export function swap(
  example: Example,
  watch: string,
  one: readonly [string, number],
  other: readonly [string, number],
): void {
  const lines = linesOf(example, watch)
  const [first, second] = [
    lines.indexOf(lineOf(example, watch, ...one)),
    lines.indexOf(lineOf(example, watch, ...other)),
  ]
  ;[lines[first], lines[second]] = [lines[second] as WatchLine, lines[first] as WatchLine]
}

export function listed(
  example: Example,
  moment: Listing['moment'],
  kind: WatchKind,
  uid: string,
): Record<string, unknown> {
  const listing = example.listings.find((candidate) => candidate.moment === moment && candidate.kind === kind)
  const object = listing?.objects.find((candidate) => candidate.uid === uid)
  if (object === undefined) throw new Error(`${uid} is not listed`)
  return object
}

export function unlist(example: Example, kind: WatchKind, uid: string): void {
  for (const listing of example.listings)
    if (listing.kind === kind) listing.objects = listing.objects.filter((object) => object.uid !== uid)
}

export function ledger(example: Example, name: string) {
  const file = example.ledgers.find((candidate) => candidate.name === name)
  if (file === undefined) throw new Error(`there is no ledger ${name}`)
  return file.lines
}

export type LedgerFact = Omit<Example['ledgers'][number]['lines'][number], 'seq'>

export function happens(example: Example, world: string, fact: LedgerFact): void {
  const lines = ledger(example, world)
  lines.push({ seq: lines.length + 1, ...fact })
  lines.sort((one, other) => one.atMs - other.atMs)
}

export function never(example: Example, world: string, fact: string, about: string): void {
  const lines = ledger(example, world)
  const index = lines.findIndex((line) => line.fact === fact && (line.id ?? line.binding ?? line.serial) === about)
  if (index === -1) throw new Error(`there is no ${fact} of ${about}`)
  lines.splice(index, 1)
}

/** A call and its outcome, at the end of what client-1 did. */
export function calls(example: Example, operation: Operation, outcome: object, at = 1_010_000): void {
  const call = `client-1.9.${example.clients.length}`
  const head = { by: 'client-1', call }
  example.clients.push({ at, ...head, type: 'invoke', hub: 'hub-2', ...operation })
  example.clients.push({ at: at + 50, ...head, ...outcome } as unknown as Outcome)
}

export const orderA = {
  op: 'order' as const,
  key: 'key-a',
  host: 'workspaces/default/hosts/a',
  want: { machineClass: 'machineClasses/cloud-a', hostname: 'a', labels: { chaos: '0' }, providerData: {} },
}
export const hostA = { host: orderA.host, uid: 'host-a' }
export const seenA = { uid: 'host-a', name: orderA.host, version: 6, state: 'READY', labels: { chaos: '7' } }
export const created = (id: string, ownershipKey: string, atMs: number): LedgerFact => ({
  atMs,
  fact: 'server.created',
  id,
  ownershipKey,
  call: 'create',
})
