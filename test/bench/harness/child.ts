import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync, closeSync, readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
export const root = join(here, '../../../..')
const probe = join(here, 'probe.js')
/** Of /proc: the unit of CPU times. */
const ticksPerSecond = 100

export interface Memory {
  readonly rss: number
  readonly heapUsed: number
  readonly external: number
}

/** Waits until `check` gives something other than undefined or false. @throws after `timeoutMs`, with what it waited for. */
export async function until<Result>(
  what: string,
  check: () => Promise<Result | undefined | false> | Result | undefined | false,
  timeoutMs = 60_000,
): Promise<Result> {
  const deadline = performance.now() + timeoutMs
  let last: unknown
  for (;;) {
    try {
      const result = await check()
      if (result !== undefined && result !== false) return result
    } catch (error) {
      last = error
    }
    if (performance.now() > deadline) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`, { cause: last })
    await sleep(20)
  }
}

/** A process that is measured from outside, by /proc and by a probe that is loaded into it beside its own program. */
export class Child {
  readonly name: string
  readonly #log: string
  readonly #probeFile: string
  readonly #argv: readonly string[]
  readonly #env: NodeJS.ProcessEnv
  readonly #messages: ((message: unknown) => void)[] = []
  #child: ChildProcess

  constructor(name: string, folder: string, argv: readonly string[], env: NodeJS.ProcessEnv) {
    this.name = name
    this.#log = join(folder, `${name}.log`)
    this.#probeFile = join(folder, `${name}.probe`)
    this.#argv = argv
    this.#env = env
    this.#child = this.#spawn()
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  output(): string {
    return readFileSync(this.#log, 'utf8')
  }

  onMessage(listener: (message: unknown) => void): void {
    this.#messages.push(listener)
  }

  send(message: object): void {
    this.#child.send(message)
  }

  /** CPU time of user and system so far, in ms. */
  cpuMs(): number {
    const fields = readFileSync(`/proc/${this.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    return ((Number(fields[11]) + Number(fields[12])) * 1_000) / ticksPerSecond
  }

  rssBytes(): number {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, 'utf8'))?.[1] ?? Number.NaN) * 1024
  }

  /** What it holds after a collection of garbage. */
  async memory(): Promise<Memory> {
    rmSync(this.#probeFile, { force: true })
    this.#child.kill('SIGUSR2')
    return until(`the memory of ${this.name}`, () => JSON.parse(readFileSync(this.#probeFile, 'utf8')) as Memory)
  }

  /** Asks it to end; after 20 s it is killed. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (!this.running) return
    const exit = once(this.#child, 'exit')
    this.#child.kill(signal)
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 20_000)
    await exit
    clearTimeout(timer)
  }

  start(): void {
    if (this.running) throw new Error(`${this.name} runs already`)
    this.#child = this.#spawn()
  }

  #spawn(): ChildProcess {
    const log = openSync(this.#log, 'a')
    const profile = process.env['SLIPWAY_BENCH_PROFILE'] ?? ''
    const child = spawn(
      process.execPath,
      [
        '--expose-gc',
        ...(profile === '' ? [] : ['--cpu-prof', `--cpu-prof-dir=${profile}`]),
        `--import=${probe}`,
        ...this.#argv,
      ],
      {
        cwd: root,
        env: { ...process.env, ...this.#env, SLIPWAY_PROBE_FILE: this.#probeFile },
        stdio: ['ignore', log, log, 'ipc'],
      },
    )
    closeSync(log)
    child.on('message', (message) => this.#messages.forEach((listener) => listener(message)))
    return child
  }
}
