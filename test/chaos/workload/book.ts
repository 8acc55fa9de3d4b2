import type { ClientLine, Invocation, Operation, Wanted } from '../history.js'

/** A host as its orderer knows it. */
export interface Entry {
  readonly key: string
  readonly host: string
  readonly want: Wanted
  /** Absent: the order's outcome is not known yet. */
  uid?: string
  refused?: boolean
  releasing?: boolean
  released?: boolean
  /** The label value that was acknowledged last. */
  label?: string
}

/** What a client knows of its own orders. It follows from its history alone, so that a killed client goes on where it was. */
export class Book {
  readonly entries: Entry[] = []
  readonly #byKey = new Map<string, Entry>()
  readonly #calls = new Map<string, Operation>()
  calls = 0

  constructor(history: readonly ClientLine[]) {
    for (const line of history) this.take(line)
  }

  get pending(): readonly Entry[] {
    return this.entries.filter((entry) => entry.uid === undefined && entry.refused !== true)
  }

  get live(): readonly Entry[] {
    return this.entries.filter((entry) => entry.uid !== undefined && entry.releasing !== true)
  }

  /** Asked to go, and not known to have heard. */
  get leaving(): readonly Entry[] {
    return this.entries.filter((entry) => entry.releasing === true && entry.released !== true)
  }

  take(line: ClientLine): void {
    if (line.type === 'invoke') this.#invoke(line)
    else if (line.type === 'ok' || line.type === 'fail' || line.type === 'info') {
      const call = this.#calls.get(line.call)
      this.#calls.delete(line.call)
      if (call === undefined) return
      if (line.type === 'ok') this.#done(call, line.seen.uid)
      else if (line.type === 'fail') this.#refused(call)
    }
  }

  #invoke(line: Invocation): void {
    this.calls++
    this.#calls.set(line.call, line)
    if (line.op === 'order' && !this.#byKey.has(line.key)) {
      const entry: Entry = { key: line.key, host: line.host, want: line.want }
      this.#byKey.set(line.key, entry)
      this.entries.push(entry)
    } else if (line.op === 'release') {
      const entry = this.entries.find((candidate) => candidate.uid === line.uid)
      if (entry !== undefined) entry.releasing = true
    }
  }

  #done(call: Operation, uid: string): void {
    if (call.op === 'order') {
      const entry = this.#byKey.get(call.key)
      if (entry !== undefined) entry.uid ??= uid
    } else if (call.op === 'release' || call.op === 'label') {
      const entry = this.entries.find((candidate) => candidate.uid === call.uid)
      if (entry !== undefined && call.op === 'release') entry.released = true
      if (entry !== undefined && call.op === 'label') entry.label = call.value
    }
  }

  #refused(call: Operation): void {
    if (call.op === 'order') {
      const entry = this.#byKey.get(call.key)
      if (entry !== undefined) entry.refused = true
    } else if (call.op === 'release') {
      const entry = this.entries.find((candidate) => candidate.uid === call.uid)
      if (entry !== undefined) entry.released = true
    }
  }
}
