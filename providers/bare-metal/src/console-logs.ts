import { appendFile, mkdir, rename, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { readConsoleFile, type ConsoleChunk, type ConsoleWish } from '@slipway/sdk'
import type { Heartbeat } from './agent/protocol.js'

const maxBytes = 256 * 1024

/** What machines said on their consoles while the agent ran: a file each, and the one before it. */
export class ConsoleLogs {
  readonly #folder: string
  /** Up to where each machine's console is known. */
  readonly #offsets = new Map<string, number>()
  #writing: Promise<void> = Promise.resolve()

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Shows what a machine wrote while its agent ran; where it is followed, also what is still to come of it. */
  read(machineId: string, wish: ConsoleWish, signal: AbortSignal): AsyncIterable<ConsoleChunk> {
    const path = this.pathOf(machineId)
    return readConsoleFile({ path, previousPath: `${path}.1`, turnover: 'rename', waitForIt: true }, wish, signal)
  }

  /** The file of a machine's console. */
  pathOf(machineId: string): string {
    return join(this.#folder, `${machineId.replaceAll(/[^A-Za-z0-9._-]/g, '_')}.log`)
  }

  /** Takes in what a heartbeat brought. What it says again is not written again. */
  take(machineId: string, { log }: Heartbeat): void {
    if (log === undefined || log.text === '') return
    const known = this.#offsets.get(machineId) ?? 0
    // A smaller offset than what is known: another boot.
    const bytes = Buffer.from(log.text)
    const from = log.offset < known && log.offset + bytes.length > known ? known - log.offset : 0
    if (log.offset + bytes.length === known) return
    this.#offsets.set(machineId, log.offset + bytes.length)
    // The agent keeps the last of what it wrote: what it dropped before it was heard is named, so that nobody takes the rest for all.
    const missing =
      known > 0 && log.offset > known ? `\n[${log.offset - known} bytes of the console were not heard]\n` : ''
    const heard = Buffer.concat([Buffer.from(missing), bytes.subarray(from)])
    this.#writing = this.#writing.then(() => this.#append(machineId, heard)).catch(() => undefined)
  }

  async close(): Promise<void> {
    await this.#writing
  }

  async #append(machineId: string, bytes: Buffer): Promise<void> {
    const path = this.pathOf(machineId)
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    const size = await stat(path).then(
      (stats) => stats.size,
      () => 0,
    )
    if (size > maxBytes) await rename(path, `${path}.1`)
    await appendFile(path, bytes, { mode: 0o600 })
  }
}
