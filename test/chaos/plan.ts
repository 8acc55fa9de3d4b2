import { Dice } from './dice.js'
import { kinds, type Fault, type Kind } from './kinds.js'

/** After a fault its target is left alone for as long, so that it can be seen to recover. */
const breathMs = 1_000
const tries = 20

export interface PlanOptions {
  readonly seed: number
  readonly forMs: number
  readonly everyMs: number
  /** Names of kinds, or beginnings of such. Empty: all. */
  readonly kinds: readonly string[]
  /** What this machine has. */
  readonly has: ReadonlySet<string>
}

/** Kinds that are asked for. @throws where one is asked for that there is not. */
export function chosenKinds(names: readonly string[]): readonly Kind[] {
  for (const name of names)
    if (!kinds.some((kind) => kind.name.startsWith(name))) throw new Error(`there is no kind of fault ${name}`)
  return names.length === 0 ? kinds : kinds.filter((kind) => names.some((name) => kind.name.startsWith(name)))
}

/**
 * The schedule of a seed. The first faults go round all kinds in an order of their own, so that a long run has every one; after that it is chance by weight. Faults
 * overlap, but never two of one target, nor two of PostgreSQL.
 */
export function planFaults(options: PlanOptions): readonly Fault[] {
  const dice = new Dice(options.seed)
  const possible = chosenKinds(options.kinds).filter(({ needs }) => needs === undefined || options.has.has(needs))
  if (possible.length === 0) return []
  const round = shuffled(dice, possible)
  const weighted = possible.map((item) => ({ item, weight: item.weight }))
  const faults: Fault[] = []
  const busyUntil = new Map<string, number>()
  let atMs = 0
  for (;;) {
    atMs += dice.between(Math.floor(options.everyMs * 0.5), Math.floor(options.everyMs * 1.5))
    for (let attempt = 0; attempt < tries; attempt++) {
      const kind = round.pop() ?? dice.weighted(weighted)
      const drawn = kind.draw(dice)
      if (atMs + drawn.durationMs > options.forMs) continue
      const claims = claimsOf(kind, drawn.target)
      if (claims.some((claim) => (busyUntil.get(claim) ?? 0) > atMs)) {
        if (attempt < tries / 2) round.unshift(kind)
        continue
      }
      for (const claim of claims) busyUntil.set(claim, atMs + drawn.durationMs + breathMs)
      faults.push({ id: faults.length + 1, atMs, kind: kind.name, ...drawn })
      break
    }
    if (atMs > options.forMs) return faults
  }
}

/** A wire is busy with its near party: what is killed or unplugged would show no fault of its wire. */
function claimsOf(kind: Kind, target: string): readonly string[] {
  const party = target.split('/')[0] ?? target
  return kind.exclusive === undefined ? [party] : [party, kind.exclusive]
}

function shuffled(dice: Dice, items: readonly Kind[]): Kind[] {
  const rest = [...items]
  const result: Kind[] = []
  while (rest.length > 0) result.push(...rest.splice(dice.between(0, rest.length - 1), 1))
  return result
}

/** A schedule for people. */
export function describePlan(faults: readonly Fault[]): string {
  return faults
    .map(({ id, atMs, kind, target, durationMs, params }) => {
      const more = Object.entries(params).map(([name, value]) => ` ${name}=${value}`)
      return `${String(id).padStart(4)}  ${(atMs / 1000).toFixed(1).padStart(7)} s  ${kind.padEnd(28)} ${target.padEnd(16)} for ${(durationMs / 1000).toFixed(1)} s${more.join('')}`
    })
    .join('\n')
}
