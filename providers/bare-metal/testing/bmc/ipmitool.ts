import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import type { BmcSecret, IpmiSettings } from '../../src/power/settings.js'

const prompt = 'ipmitool> '

/** What became of a raw command. */
export interface RawAnswer {
  readonly code: number
  readonly data: Buffer
}

/** ipmitool's shell: one process and one session for many commands. The password goes through its environment. */
export class Ipmitool {
  readonly #child: ChildProcessWithoutNullStreams
  #unread = ''
  #wake = (): void => undefined

  private constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#unread += text
      this.#wake()
    })
    child.on('exit', () => this.#wake())
  }

  static async start({ address, port, cipherSuite }: IpmiSettings, secret: BmcSecret): Promise<Ipmitool> {
    const login = ['-I', 'lanplus', '-C', String(cipherSuite), '-H', address, '-p', String(port), '-U', secret.username]
    // The shell makes one pipe of both outputs, so that errors and answers keep their order.
    const command = ['-c', 'exec ipmitool "$@" 2>&1', 'sh', ...login, '-E', 'shell']
    const tool = new Ipmitool(
      spawn('sh', command, { env: { ...process.env, IPMI_PASSWORD: secret.password }, stdio: 'pipe' }),
    )
    await tool.#untilPrompt()
    return tool
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** Runs a command, and gives what it printed. */
  async run(command: string): Promise<string> {
    this.#child.stdin.write(`${command}\n`)
    const printed = await this.#untilPrompt()
    return (printed.startsWith(command) ? printed.slice(command.length) : printed).trim()
  }

  async raw(netFn: number, command: number, data: readonly number[]): Promise<RawAnswer> {
    const printed = await this.run(`raw ${[netFn, command, ...data].map((byte) => `0x${byte.toString(16)}`).join(' ')}`)
    const refused = /rsp=0x([0-9a-f]+)/.exec(printed)?.[1]
    if (refused !== undefined) return { code: Number.parseInt(refused, 16), data: Buffer.alloc(0) }
    if (!/^[0-9a-f\s]*$/.test(printed)) throw new Error(`ipmitool: ${printed}`)
    return { code: 0, data: Buffer.from(printed.replaceAll(/\s/g, ''), 'hex') }
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.stdin.end('exit\n')
    const late = setTimeout(() => this.#child.kill('SIGKILL'), 10_000)
    await exited
    clearTimeout(late)
  }

  async #untilPrompt(): Promise<string> {
    const deadline = performance.now() + 60_000
    for (;;) {
      const end = this.#unread.indexOf(prompt)
      if (end >= 0) {
        const printed = this.#unread.slice(0, end)
        this.#unread = this.#unread.slice(end + prompt.length)
        return printed
      }
      const left = deadline - performance.now()
      if (left <= 0 || this.#child.exitCode !== null) throw new Error(`ipmitool ended or is silent: ${this.#unread}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
  }
}
