import { AsyncLocalStorage } from 'node:async_hooks'
import { Random } from './random.js'
import { real } from './real.js'

// One thread of virtual time. Whatever the code under test waits for is an event here; which one comes next, and when, is drawn from the seed.

// One for all seeds: each that there ever was costs time with every promise, and none ends.
const running = new AsyncLocalStorage<Node>()

/** A process of the simulated system. Killed, all that waits for it is dropped; stopped, it waits until the process goes on. */
export class Node {
  readonly name: string
  alive = true
  /** Virtual time until which it stands still. */
  stoppedUntil = 0
  /** How far its clock on the wall is off, in ms. */
  clockOffsetMs = 0
  /** Called when it is killed. */
  readonly onKill: (() => void)[] = []

  constructor(name: string) {
    this.name = name
  }

  /** Runs code of this process. */
  run<T>(work: () => T): T {
    return running.run(this, work)
  }
}

/** How far a process's clock is off at most. */
export const maxClockErrorMs = 3_600_000

/** No process of a seed takes it for earlier than one of the seed before: libraries keep the latest time that they saw, and go on from there. */
const apartMs = 3 * maxClockErrorMs

export interface SimEvent {
  atMs: number
  readonly tie: number
  readonly node: Node | undefined
  readonly run: () => void | Promise<void>
  cancelled: boolean
}

/** The invariant that was broken, and when. */
export interface Violation {
  readonly atMs: number
  readonly invariant: string
  readonly message: string
}

export class Scheduler {
  readonly random: Random
  readonly violations: Violation[] = []
  /** What happened, for who replays a seed. */
  readonly journal: string[] = []
  readonly keepJournal: boolean
  readonly #heap: SimEvent[] = []
  readonly #epochMs: number
  nowMs = 0
  steps = 0

  constructor(seed: number, keepJournal: boolean) {
    this.random = new Random(seed)
    this.keepJournal = keepJournal
    this.#epochMs = Date.UTC(2030, 0, 1) + seed * apartMs
  }

  node(name: string): Node {
    return new Node(name)
  }

  get current(): Node | undefined {
    return running.getStore()
  }

  /** The time of day, as the running process believes it to be. */
  wallMs(): number {
    return this.#epochMs + Math.floor(this.nowMs) + (this.current?.clockOffsetMs ?? 0)
  }

  /** The time of day without anybody's error: the database's. */
  trueWallMs(): number {
    return this.#epochMs + this.nowMs
  }

  note(text: string): void {
    if (this.keepJournal) this.journal.push(`${(this.nowMs / 1000).toFixed(3).padStart(9)} ${text}`)
  }

  violate(invariant: string, message: string): void {
    this.note(`VIOLATION ${invariant}: ${message}`)
    this.violations.push({ atMs: this.nowMs, invariant, message })
  }

  /**
   * @param run what is the world's own is waited for: it may use the real database. What is a process's is not: it waits for events like this one.
   * @param node whose event it is; default: the running process's. What is the world's own nothing holds up.
   */
  schedule(
    delayMs: number,
    run: () => void | Promise<void>,
    node: Node | 'world' | undefined = this.current,
  ): SimEvent {
    const event = {
      atMs: this.nowMs + Math.max(0, delayMs),
      tie: this.random.next(),
      node: node === 'world' ? undefined : node,
      run,
      cancelled: false,
    }
    this.#push(event)
    return event
  }

  /** Runs events until there is something to stop for. Returns whether there was, before the deadline. */
  async until(done: () => boolean, deadlineMs: number): Promise<boolean> {
    while (!done()) {
      const event = this.#pop()
      if (event === undefined || event.atMs > deadlineMs) {
        if (event !== undefined) this.#push(event)
        this.nowMs = Math.max(this.nowMs, deadlineMs)
        return done()
      }
      await this.#execute(event)
      if (this.violations.length > 0) return true
    }
    return true
  }

  async #execute(event: SimEvent): Promise<void> {
    if (event.cancelled) return
    const { node } = event
    if (node !== undefined) {
      if (!node.alive) return
      if (node.stoppedUntil > event.atMs) {
        event.atMs = node.stoppedUntil
        this.#push(event)
        return
      }
    }
    this.nowMs = Math.max(this.nowMs, event.atMs)
    this.steps += 1
    if (node === undefined) await event.run()
    else void node.run(() => event.run())
    // All that follows from it without waiting for another event has run when the next turn of the real loop comes.
    await new Promise<void>((resolve) => real.setImmediate(resolve))
  }

  #push(event: SimEvent): void {
    const heap = this.#heap
    let index = heap.push(event) - 1
    while (index > 0) {
      const parent = (index - 1) >> 1
      const above = heap[parent]
      if (above === undefined || before(above, event)) break
      heap[index] = above
      index = parent
    }
    heap[index] = event
  }

  #pop(): SimEvent | undefined {
    const heap = this.#heap
    const top = heap[0]
    const last = heap.pop()
    if (top === undefined || last === undefined || heap.length === 0) return top
    let index = 0
    for (;;) {
      let child = index * 2 + 1
      const left = heap[child]
      const right = heap[child + 1]
      if (left === undefined) break
      if (right !== undefined && before(right, left)) child += 1
      const smaller = heap[child] ?? left
      if (before(last, smaller)) break
      heap[index] = smaller
      index = child
    }
    heap[index] = last
    return top
  }
}

function before(one: SimEvent, other: SimEvent): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.tie < other.tie)
}
