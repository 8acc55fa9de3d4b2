import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { Transcript } from './transcript.js'

const maxOutputChars = 2_000_000

/** How a process ended: its exit code, or the signal that ended it. */
export type Ending = number | NodeJS.Signals

const living = new Set<ProviderProcess>()
let guarded = false

/** A process of the provider under test, with all that it starts. */
export class ProviderProcess {
  readonly name: string
  /** All that it wrote so far, both outputs. */
  output = ''
  /** Fulfilled when it has ended. */
  readonly ended: Promise<Ending>
  ending: Ending | undefined
  /** Whether its end is what the case wants. */
  mayEnd = false
  readonly #child: ChildProcess
  readonly #transcript: Transcript

  /** @param command the program and its arguments. */
  constructor(name: string, command: readonly string[], env: NodeJS.ProcessEnv, transcript: Transcript) {
    const [program = '', ...args] = command
    this.name = name
    this.#transcript = transcript
    // A group of its own: the command may be a wrapper, and a signal must reach what it wraps.
    this.#child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        if (this.output.length < maxOutputChars) this.output += text
      })
    }
    transcript.add('kit', `starts ${name}: ${command.join(' ')}`)
    this.ended = this.#watch()
    living.add(this)
    guard()
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  get running(): boolean {
    return this.ending === undefined
  }

  /** Sends a signal to it and to all that it started in its group. */
  signal(signal: NodeJS.Signals): void {
    if (!this.running || this.pid === 0) return
    this.#transcript.add('kit', `${signal} to ${this.name}`)
    try {
      process.kill(-this.pid, signal)
    } catch {
      // It has just ended.
    }
  }

  /** Kills it where it stands, and waits for its end. */
  async kill(): Promise<void> {
    this.mayEnd = true
    this.signal('SIGKILL')
    await this.ended
  }

  /** Ends it, stopped or not, without waiting. */
  killNow(): void {
    this.mayEnd = true
    this.signal('SIGKILL')
  }

  async #watch(): Promise<Ending> {
    const ending = await Promise.race([
      once(this.#child, 'close').then(([code, signal]) => (code ?? signal) as Ending),
      once(this.#child, 'error').then(([error]) => {
        this.output += `\n${String(error)}`
        return 127
      }),
    ])
    this.ending = ending
    living.delete(this)
    this.#transcript.add('kit', `${this.name} has ended: ${ending}`)
    return ending
  }
}

/** Whatever ends the kit ends what it has started. */
function guard(): void {
  if (guarded) return
  guarded = true
  process.on('exit', () => {
    for (const each of living) each.killNow()
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
}
