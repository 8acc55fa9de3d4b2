import type { SimDatabase } from './database.js'
import type { Network } from './network.js'
import { idleInTransactionMs, leaseMs, type HubProcess, type ProviderProcess } from './processes.js'
import { maxClockErrorMs, type Node, type Scheduler } from './scheduler.js'
import type { Watcher } from './clients.js'
import { noWorldFaults, type World } from './world.js'

// What goes wrong in a seed: drawn from it, each kind counted where it took effect.

export const faultKinds = [
  'kill-hub',
  'kill-provider',
  'restart-hub',
  'restart-provider',
  'stop-hub-briefly',
  'stop-hub-past-lease',
  'stop-provider-briefly',
  'stop-provider-past-lease',
  'cut-link',
  'cut-link-one-way',
  'break-stream',
  'database-cut-from-hub',
  'database-cut-past-lease',
  'database-down',
  'database-answers-lost',
  'database-slow',
  'wake-ups-lost',
  'watcher-cut',
  'clock-jump',
  'cloud-answers-lost',
  'cloud-refuses',
  'cloud-slow',
  'cloud-full',
] as const
export type FaultKind = (typeof faultKinds)[number]

/** What goes wrong in one seed: kinds that make each other worse. */
export const profiles = {
  mixed: faultKinds,
  crashes: [
    'kill-hub',
    'kill-provider',
    'kill-provider',
    'restart-hub',
    'restart-provider',
    'cloud-answers-lost',
    'cloud-slow',
  ],
  pauses: [
    'stop-provider-past-lease',
    'stop-provider-past-lease',
    'stop-hub-past-lease',
    'stop-provider-briefly',
    'cloud-slow',
    'cloud-slow',
    'clock-jump',
    'database-slow',
    'database-slow',
  ],
  database: [
    'database-cut-from-hub',
    'database-down',
    'database-answers-lost',
    'database-slow',
    'kill-hub',
    'wake-ups-lost',
  ],
  network: [
    'cut-link',
    'cut-link-one-way',
    'break-stream',
    'watcher-cut',
    'watcher-cut',
    'wake-ups-lost',
    'restart-hub',
    'cloud-slow',
  ],
  cloud: ['cloud-answers-lost', 'cloud-answers-lost', 'cloud-refuses', 'cloud-slow', 'cloud-full', 'kill-provider'],
  // Creates under way while their holders die, and answers that are lost.
  doubts: ['cloud-slow', 'cloud-answers-lost', 'kill-provider'],
  // The same of installations, on a rack that has fewer machines than are wanted.
  iron: ['cloud-slow', 'cloud-answers-lost', 'kill-provider'],
  partitions: [
    'database-cut-past-lease',
    'database-cut-past-lease',
    'cloud-slow',
    'cloud-slow',
    'cut-link',
    'cut-link-one-way',
  ],
  hints: ['wake-ups-lost', 'wake-ups-lost', 'wake-ups-lost', 'cloud-slow'],
  watches: ['watcher-cut', 'watcher-cut', 'database-slow', 'database-slow', 'kill-hub', 'wake-ups-lost'],
  lists: ['watcher-cut', 'watcher-cut', 'database-slow'],
  // More orders than a quota allows, all at once.
  quotas: ['database-slow', 'database-slow', 'database-answers-lost', 'kill-hub', 'wake-ups-lost'],
} as const satisfies Readonly<Record<string, readonly FaultKind[]>>
export type Profile = keyof typeof profiles
export const profileNames = Object.keys(profiles) as readonly Profile[]

export interface Stage {
  readonly scheduler: Scheduler
  readonly database: SimDatabase
  readonly network: Network
  readonly world: World
  readonly hubs: Map<string, HubProcess>
  readonly instances: Map<string, ProviderProcess>
  readonly watchers: readonly Watcher[]
  readonly restartHub: (name: string) => void
  readonly restartInstance: (name: string) => void
  /** Share of wake-ups between hubs that are lost. */
  wakeUpsLost: number
}

/** Makes one fault of this kind happen. Returns whether it could. */
export function inject(stage: Stage, kind: FaultKind): boolean {
  const { scheduler, database, network, world, hubs, instances } = stage
  const { random } = scheduler
  const hub = random.pick([...hubs.values()])
  const instance = random.pick([...instances.values()])
  const after = (ms: number, undo: () => void): void => void scheduler.schedule(ms, undo, 'world')
  switch (kind) {
    case 'kill-hub':
      if (!hub.node.alive) return false
      kill(hub.node)
      after(random.between(50, 4_000), () => stage.restartHub(hub.name))
      return true
    case 'kill-provider':
      if (!instance.node.alive) return false
      kill(instance.node)
      after(random.between(50, 4_000), () => stage.restartInstance(instance.name))
      return true
    case 'restart-hub':
      if (!hub.node.alive) return false
      void hub.stop().then(
        () => undefined,
        () => undefined,
      )
      after(4_000, () => {
        kill(hub.node)
        stage.restartHub(hub.name)
      })
      return true
    case 'restart-provider':
      if (!instance.node.alive) return false
      instance.stop()
      after(3_000, () => {
        kill(instance.node)
        stage.restartInstance(instance.name)
      })
      return true
    case 'stop-hub-briefly':
      return stopHub(stage, hub, random.between(200, leaseMs * 0.6))
    case 'stop-hub-past-lease':
      return stopHub(stage, hub, leaseMs * random.between(1.1, 2.5))
    case 'stop-provider-briefly':
      return stop(stage, instance.node, random.between(200, leaseMs * 0.6))
    case 'stop-provider-past-lease':
      return stop(stage, instance.node, leaseMs * random.between(1.1, 3.5))
    case 'cut-link': {
      const heal = [network.cut(hub.node, instance.node), network.cut(instance.node, hub.node)]
      after(random.between(100, leaseMs * 2), () => heal.forEach((undo) => undo()))
      return true
    }
    case 'cut-link-one-way':
      after(
        random.between(100, leaseMs * 2),
        random.chance(0.5) ? network.cut(hub.node, instance.node) : network.cut(instance.node, hub.node),
      )
      return true
    case 'break-stream':
      return network.breakOne()
    case 'database-cut-from-hub':
    case 'database-cut-past-lease': {
      const lastsMs =
        kind === 'database-cut-from-hub' ? random.between(100, leaseMs * 2) : leaseMs * random.between(2.2, 4)
      hub.pool.unreachable = true
      after(0, () => hub.pool.cut(random.chance(0.5)) as unknown as void)
      after(lastsMs, () => (hub.pool.unreachable = false))
      return hub.node.alive
    }
    case 'database-down': {
      database.down = true
      for (const pool of database.pools()) scheduler.schedule(0, () => pool.cut(random.chance(0.5)), 'world')
      after(random.between(200, leaseMs * 2), () => (database.down = false))
      return true
    }
    case 'database-answers-lost':
      database.faults.lostCommitAnswers = random.between(0.02, 0.3)
      after(random.between(500, 8_000), () => (database.faults.lostCommitAnswers = 0))
      return true
    case 'database-slow':
      database.faults.slowStatements = random.between(0.02, 0.3)
      after(random.between(500, 6_000), () => (database.faults.slowStatements = 0))
      return true
    case 'wake-ups-lost':
      stage.wakeUpsLost = random.chance(0.5) ? 1 : 0.5
      after(random.between(1_000, 15_000), () => (stage.wakeUpsLost = 0))
      return true
    case 'watcher-cut':
      random.pick(stage.watchers).disconnect()
      return true
    case 'clock-jump': {
      const node = random.chance(0.5) ? hub.node : instance.node
      node.clockOffsetMs = random.between(-maxClockErrorMs, maxClockErrorMs)
      return true
    }
    case 'cloud-answers-lost':
      world.faults.answersLost = random.between(0.1, 0.7)
      after(random.between(1_000, 10_000), () => (world.faults.answersLost = 0))
      return true
    case 'cloud-refuses':
      world.faults.refusedBefore = random.between(0.1, 0.6)
      world.faults.rateLimited = random.between(0, 0.3)
      after(random.between(1_000, 8_000), () => ((world.faults.refusedBefore = 0), (world.faults.rateLimited = 0)))
      return true
    case 'cloud-slow':
      world.faults.slow = random.between(0.2, 0.9)
      after(random.between(1_000, 10_000), () => (world.faults.slow = 0))
      return true
    case 'cloud-full':
      world.faults.noCapacity = random.between(0.3, 1)
      after(random.between(500, 5_000), () => (world.faults.noCapacity = 0))
      return true
  }
}

/** Everything works again. */
export function healAll(stage: Stage): void {
  stage.database.down = false
  stage.database.faults = { lostCommitAnswers: 0, slowStatements: 0 }
  stage.world.faults = { ...noWorldFaults }
  stage.wakeUpsLost = 0
  for (const hub of stage.hubs.values()) {
    hub.pool.unreachable = false
    hub.node.stoppedUntil = 0
  }
}

export function kill(node: Node): void {
  if (!node.alive) return
  node.alive = false
  for (const work of node.onKill) work()
}

function stop(stage: Stage, node: Node, ms: number): boolean {
  if (!node.alive || node.stoppedUntil > stage.scheduler.nowMs) return false
  node.stoppedUntil = stage.scheduler.nowMs + ms
  return true
}

function stopHub(stage: Stage, hub: HubProcess, ms: number): boolean {
  if (!stop(stage, hub.node, ms)) return false
  if (ms > idleInTransactionMs)
    stage.scheduler.schedule(idleInTransactionMs, () => hub.pool.endIdleTransactions(), 'world')
  return true
}
