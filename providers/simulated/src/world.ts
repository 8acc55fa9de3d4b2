import { randomBytes, randomInt, randomUUID } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { BootPlan, CloudCode, Fact, Line, ViolationSeen, WorldKind } from './facts.js'
import { hasLedger, Ledger, type LedgerOptions, type Reducer } from './ledger.js'

/** What worlds of both kinds remember. */
export interface WorldState {
  opened: { readonly kind: WorldKind; readonly worldId: string; readonly seed: number } | undefined
  /** As it was last noted; `undefined`: never. */
  config: unknown
  /** Writing calls so far, by kind. */
  readonly calls: Map<string, number>
  /** Writing calls so far, by kind and subject. */
  readonly attempts: Map<string, number>
  readonly refusals: Map<CloudCode, number>
  lostAnswers: number
  readonly violations: (ViolationSeen & { readonly seq: number; readonly atMs: number })[]
}

/** A first boot that has not phoned home yet. */
export interface PendingBoot {
  /** The server or machine that boots. */
  readonly id: string
  readonly plan: BootPlan
  readonly addresses: readonly string[]
  readonly dueAtMs: number
  /** The writer that ordered it; the others stand back for a moment. */
  readonly by: string
}

/** What a kind of world adds: its own facts, those that time brings about, and its boots. */
export interface WorldRules<State extends WorldState> extends Reducer<State> {
  readonly kind: WorldKind
  /** The next fact that has come true by itself. */
  due(state: State, nowMs: number): Fact | undefined
  pendingBoots(state: State, nowMs: number): Iterable<PendingBoot>
  phonedHome(boot: PendingBoot, tries: number): Fact
  /** Whether a boot can still come to phone home, now or later. */
  mayBoot(state: State, bootId: string, nowMs: number): boolean
}

const secretsFolder = 'secrets'
const secretGraceMs = 60_000

/** A ledger with its world's rules, and the secrets that must not be in the ledger. */
export class World<State extends WorldState> {
  readonly dir: string
  readonly ledger: Ledger<State>
  readonly rules: WorldRules<State>

  /** Opens a world, making it where there is none. @throws where the folder holds a world of another kind. */
  constructor(dir: string, rules: WorldRules<State>, options: LedgerOptions = {}) {
    this.dir = dir
    this.rules = rules
    this.ledger = new Ledger(dir, rules, options)
    this.ledger.commit((state) => (state.opened === undefined ? newWorld(rules.kind) : undefined))
    const kind = this.ledger.state.opened?.kind
    if (kind !== rules.kind) {
      this.ledger.close()
      throw new Error(
        `${dir} holds a simulated ${kind ?? 'world of another version'}, not a ${rules.kind}; choose another folder`,
      )
    }
    mkdirSync(join(dir, secretsFolder), { recursive: true, mode: 0o700 })
    this.#sweepSecrets()
  }

  /** Everything as it is now, with what time has brought about written down. */
  settled(): State {
    while (this.ledger.commit((state, nowMs) => this.rules.due(state, nowMs)) !== undefined);
    return this.ledger.state
  }

  now(): number {
    return this.ledger.now()
  }

  /** The seed in use: the configuration's, or the world's own. */
  seed(configured: number | undefined): number {
    return configured ?? this.ledger.state.opened?.seed ?? 0
  }

  /** Writes down the configuration it runs with, where that is news. */
  noteConfig(config: unknown): void {
    const text = JSON.stringify(config)
    this.ledger.commit((state) =>
      JSON.stringify(state.config) === text ? undefined : { fact: 'world.configured', config },
    )
  }

  /** Keeps a boot's token apart from the ledger, for its owner's eyes only. */
  keepSecret(bootId: string, token: string): void {
    writeFileSync(this.#secretPath(bootId), token, { mode: 0o600 })
  }

  /** A boot's token; `undefined`: used or dropped. */
  readSecret(bootId: string): string | undefined {
    try {
      return readFileSync(this.#secretPath(bootId), 'utf8')
    } catch {
      return undefined
    }
  }

  /** Removes a boot's token, unless the boot is still to come. */
  dropSecret(bootId: string | undefined): void {
    if (bootId === undefined || this.rules.mayBoot(this.ledger.state, bootId, this.now())) return
    rmSync(this.#secretPath(bootId), { force: true })
  }

  close(): void {
    this.ledger.close()
  }

  #secretPath(bootId: string): string {
    return join(this.dir, secretsFolder, bootId)
  }

  /** Removes tokens of boots that are over, or never came to be because a process died over them. */
  #sweepSecrets(): void {
    const folder = join(this.dir, secretsFolder)
    for (const bootId of readdirSync(folder)) {
      const writtenAtMs = statSync(join(folder, bootId), { throwIfNoEntry: false })?.mtimeMs
      const fresh = writtenAtMs !== undefined && Date.now() - writtenAtMs < secretGraceMs
      if (!fresh) this.dropSecret(bootId)
    }
  }
}

/** The kind of the world in a folder. @throws an Error that says what to do where there is none. */
export function kindOfWorld(dir: string): WorldKind {
  if (!hasLedger(dir)) throw new Error(`${dir} holds no simulated world: there is no ledger.jsonl in it`)
  const reducer: Reducer<WorldState> = { initial: initialWorldState, apply: applyCommon }
  const ledger = new Ledger(dir, reducer, { readOnly: true })
  ledger.close()
  const kind = ledger.state.opened?.kind
  if (kind === undefined)
    throw new Error(`${dir} holds a ledger without a first line: it is empty or of another version`)
  return kind
}

export function initialWorldState(): WorldState {
  return {
    opened: undefined,
    config: undefined,
    calls: new Map(),
    attempts: new Map(),
    refusals: new Map(),
    lostAnswers: 0,
    violations: [],
  }
}

/** Takes in what a line means for worlds of both kinds. */
export function applyCommon(state: WorldState, line: Line): void {
  if (line.call !== undefined) {
    count(state.calls, line.call)
    count(state.attempts, attemptKey(line.call, line.subject ?? ''))
  }
  if (line.answer === 'lost') state.lostAnswers++
  if (line.fact === 'world.opened' && line.version === 1) state.opened ??= line
  else if (line.fact === 'world.configured') state.config = line.config
  else if (line.fact === 'call.refused') count(state.refusals, line.code)
  else if (line.fact === 'violation') state.violations.push(line)
}

/** How often a kind of writing call was made about a subject. */
export function attemptsOf(state: WorldState, call: string, subject: string): number {
  return state.attempts.get(attemptKey(call, subject)) ?? 0
}

function newWorld(kind: WorldKind): Fact {
  return { fact: 'world.opened', version: 1, kind, worldId: randomUUID(), seed: randomInt(2 ** 31) }
}

export function newId(prefix: string): string {
  return `${prefix}-${randomBytes(5).toString('hex')}`
}

function attemptKey(call: string, subject: string): string {
  return `${call} ${subject}`
}

function count<Key>(counts: Map<Key, number>, key: Key): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}
