import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, openSync, closeSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../tools/processes.js'
import type { ProcessLine, Writer } from './history.js'
import { inside } from './network.js'

/** How soon a process that ended by itself is started again, as a service manager would. */
const restartMs = 500
const fakeTimeLibraries = [
  '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1',
  '/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1',
  '/usr/lib/faketime/libfaketimeMT.so.1',
]

export type PartyKind = 'hub' | 'provider' | 'client' | 'watcher'

/** Where libfaketime is, if it is. */
export const fakeTimeLibrary = fakeTimeLibraries.find((path) => existsSync(path))

export interface PartyOptions {
  readonly kind: PartyKind
  readonly name: string
  readonly script: string
  readonly args: readonly string[]
  readonly env: NodeJS.ProcessEnv
  /** Where its log goes. */
  readonly folder: string
  /** For what does not outlive the run. */
  readonly scratch: string
  readonly log: Writer<ProcessLine>
}

/** A real process in a network namespace of its own. One that ends by itself is started again, and that it did is written down. */
export class Party {
  readonly kind: PartyKind
  readonly name: string
  readonly #options: PartyOptions
  readonly #clockFile: string
  #child: ChildProcess | undefined
  #because: string | undefined
  /** Whether it should be up. */
  #wanted = false
  starts = 0

  constructor(options: PartyOptions) {
    this.#options = options
    this.kind = options.kind
    this.name = options.name
    this.#clockFile = join(options.scratch, `${options.name}.clock`)
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  get running(): boolean {
    const child = this.#child
    return child !== undefined && child.exitCode === null && child.signalCode === null
  }

  get stopped(): boolean {
    return this.running && processState(this.pid) === 'T'
  }

  get logFile(): string {
    return join(this.#options.folder, `${this.name}.log`)
  }

  start(env: NodeJS.ProcessEnv = {}): void {
    this.#wanted = true
    if (this.running) return
    this.setClock(0)
    const { script, args, folder, log } = this.#options
    const nodeArgs = (process.env['SLIPWAY_CHAOS_NODE_ARGS'] ?? '').split(' ').filter((arg) => arg !== '')
    const [command = '', ...rest] = [...inside(this.name), process.execPath, ...nodeArgs, join(root, script), ...args]
    const output = openSync(join(folder, `${this.name}.log`), 'a')
    const child = spawn(command, rest, {
      cwd: folder,
      env: { ...process.env, ...this.#clockEnv(), ...this.#options.env, ...env },
      stdio: ['ignore', output, output],
    })
    closeSync(output)
    this.#child = child
    this.#because = undefined
    this.starts++
    log.write({ at: Date.now(), type: 'start', name: this.name, pid: this.pid })
    child.on('exit', (code, signal) => {
      const because = this.#because
      const how = signal ?? String(code)
      const why = because === undefined ? { said: this.#lastWords() } : { because }
      log.write({ at: Date.now(), type: 'exit', name: this.name, pid: child.pid ?? 0, how, ...why })
      if (because === undefined && this.#wanted) setTimeout(() => this.#wanted && this.start(), restartMs).unref()
    })
  }

  /** Sends a signal to go by, and waits for the end; after `patienceMs` it is killed. It stays down until started. */
  async end(signal: NodeJS.Signals, because: string, patienceMs = 20_000): Promise<void> {
    this.#wanted = false
    const child = this.#child
    if (child === undefined || !this.running) return
    const exit = once(child, 'exit')
    this.#because = because
    child.kill(signal)
    // A process that stands still hears nothing but this.
    if (signal !== 'SIGKILL') child.kill('SIGCONT')
    const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs)
    await exit
    clearTimeout(timer)
  }

  /** Says beforehand why it is going to end by itself. */
  expectEnd(because: string): void {
    this.#wanted = false
    this.#because = because
  }

  /** Waits for the end. @returns how it ended, or undefined where it did not. */
  async ended(withinMs: number): Promise<string | undefined> {
    const deadline = performance.now() + withinMs
    while (this.running && performance.now() < deadline) await sleep(20)
    return this.running ? undefined : (this.#child?.signalCode ?? String(this.#child?.exitCode))
  }

  signal(signal: NodeJS.Signals): void {
    if (this.running) this.#child?.kill(signal)
  }

  /** Moves its wall clock by so many seconds. */
  setClock(seconds: number): void {
    if (fakeTimeLibrary !== undefined) writeFileSync(this.#clockFile, `${seconds >= 0 ? '+' : ''}${seconds}s\n`)
  }

  #lastWords(): string {
    return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').at(-1)?.slice(0, 500) ?? ''
  }

  #clockEnv(): NodeJS.ProcessEnv {
    // The clocks of the histories are the machine's.
    if (fakeTimeLibrary === undefined || this.kind === 'client' || this.kind === 'watcher') return {}
    return {
      LD_PRELOAD: fakeTimeLibrary,
      FAKETIME_TIMESTAMP_FILE: this.#clockFile,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    }
  }
}

/** The letter that the kernel gives a process's state; undefined: there is none. */
export function processState(pid: number): string | undefined {
  try {
    return /\) (\w)/.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1]
  } catch {
    return undefined
  }
}
