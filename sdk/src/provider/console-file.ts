import type { BigIntStats } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { sleep } from '../internal/timing.js'
import { ConsoleRefused, type ConsoleChunk, type ConsolePosition, type ConsoleWish } from './console.js'

const readBytes = 64 * 1024
const defaultPollMs = 250
/** A file that shrank is being turned over: its parts have their names within moments. */
const turnoverMs = 5_000
const newline = 0x0a

export interface ConsoleFile {
  readonly path: string
  /** Where the part before it is kept. */
  readonly previousPath?: string
  /**
   * How the file is turned over when it is large. `rename`: it is renamed to `previousPath`, and a new one begins. `copy`: it is copied to a file
   * that is renamed to `previousPath` once the file was truncated, for a writer who keeps it open.
   */
  readonly turnover: 'rename' | 'copy'
  /** Wait for a file that is not there yet, where the console is followed. Default: it is refused as absent. */
  readonly waitForIt?: boolean
  /** How often to look for more. Default 250. */
  readonly pollMs?: number
}

/** One of the two parts, as it was seen at a moment. */
interface Part {
  readonly path: string
  /** The file, by what stays the same of it. */
  readonly file: string
  readonly log: string
  readonly size: number
}

/**
 * Shows a console that is written to a file, over its turnovers: what was written before one is read to its end, and where that is gone, the gap shows.
 *
 * @throws ConsoleRefused `absent` where there is no file; the signal's reason.
 */
export async function* readConsoleFile(
  file: ConsoleFile,
  wish: ConsoleWish,
  signal: AbortSignal,
): AsyncGenerator<ConsoleChunk> {
  const pollMs = file.pollMs ?? defaultPollMs
  let parts = await look(file)
  while (parts.length === 0) {
    if (!wish.follow || file.waitForIt !== true)
      throw new ConsoleRefused('absent', 'nothing was written to its console yet')
    await sleep(pollMs, signal)
    parts = await look(file)
  }
  const cuts = new Map<string, string>()
  let at: Place = await startOf(parts, wish)
  let shrunkForMs = 0
  for (;;) {
    const begun = at.log
    const read = yield* readParts(parts, at, signal)
    at = read.at
    if (!wish.follow && read.complete) return
    if (at.log === begun) await sleep(pollMs, signal)
    parts = (await look(file)).map((part) => ({ ...part, log: cuts.get(part.log) ?? part.log }))
    const shrunk = parts.some((part) => part.log === at.log && part.size < at.offset)
    shrunkForMs = shrunk ? shrunkForMs + pollMs : 0
    if (shrunkForMs > turnoverMs) {
      // Somebody cut it off. What is written from here on is another log.
      cuts.set(at.log, `${at.log.slice(0, 60)}.cut`)
      parts = parts.map((part) => ({ ...part, log: cuts.get(part.log) ?? part.log }))
      at = { log: cuts.get(at.log) ?? at.log, offset: 0 }
    } else parts = continued(file, parts, at)
  }
}

/** Where a copy was taken, the part that was read until now has another name: it is the same all the same. */
function continued(file: ConsoleFile, parts: readonly Part[], at: ConsolePosition): readonly Part[] {
  const [previous, current] = parts
  if (file.turnover !== 'copy' || previous === undefined || current === undefined) return parts
  const turned = current.log !== at.log && previous.log !== at.log && previous.size >= at.offset
  return turned ? [{ ...previous, log: at.log }, current] : parts
}

interface Place extends ConsolePosition {
  /** Nothing was read of its log yet, and nothing is missing before it. */
  readonly continues?: boolean
}

interface Read {
  /** Where it ended. */
  readonly at: Place
  /** False: a part was taken from under it; look again. */
  readonly complete: boolean
}

/** Reads from a place to the end of the last part. */
async function* readParts(
  parts: readonly Part[],
  from: Place,
  signal: AbortSignal,
): AsyncGenerator<ConsoleChunk, Read> {
  const known = parts.findIndex((part) => part.log === from.log)
  let at: Place = known < 0 && parts[0] !== undefined ? { log: parts[0].log, offset: 0 } : from
  for (const part of parts.slice(Math.max(0, known))) {
    if (part.log !== at.log) at = { log: part.log, offset: 0, continues: true }
    const handle = await opened(part)
    if (handle === undefined) return { at, complete: false }
    try {
      while (at.offset < part.size) {
        signal.throwIfAborted()
        const wanted = Math.min(readBytes, part.size - at.offset)
        const { bytesRead, buffer } = await handle.read(Buffer.alloc(wanted), 0, wanted, at.offset)
        if (bytesRead === 0) return { at, complete: false }
        const { log, offset, continues = false } = at
        at = { log, offset: offset + bytesRead }
        yield { position: { log, offset }, bytes: buffer.subarray(0, bytesRead), ...(continues && { continues }) }
      }
    } finally {
      await handle.close()
    }
  }
  return { at, complete: true }
}

/** Opens a part; undefined where another file has its path by now. */
async function opened({ path, file }: Part): Promise<FileHandle | undefined> {
  let handle: FileHandle
  try {
    handle = await open(path, 'r')
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
  if (nameOf(await handle.stat({ bigint: true })) === file) return handle
  await handle.close()
  return undefined
}

async function startOf(parts: readonly Part[], { after, tailLines }: ConsoleWish): Promise<ConsolePosition> {
  const first = { log: parts[0]?.log ?? '', offset: 0 }
  if (after !== undefined) {
    const known = parts.find((part) => part.log === after.log && part.size >= after.offset)
    return known === undefined ? first : after
  }
  return tailLines === undefined ? first : await tailOf(parts, tailLines, first)
}

/** So many lines before the end. A last line without an end counts as one. */
async function tailOf(parts: readonly Part[], lines: number, first: ConsolePosition): Promise<ConsolePosition> {
  const last = parts.at(-1)
  if (last === undefined) return first
  if (lines === 0) return { log: last.log, offset: last.size }
  let found = 0
  let isEnd = true
  for (const part of [...parts].reverse()) {
    const handle = await opened(part)
    if (handle === undefined) continue
    try {
      for (let end = part.size; end > 0;) {
        const start = Math.max(0, end - readBytes)
        const { buffer } = await handle.read(Buffer.alloc(end - start), 0, end - start, start)
        for (let index = buffer.length - 1; index >= 0; index -= 1) {
          if (buffer[index] === newline && !isEnd && (found += 1) === lines)
            return { log: part.log, offset: start + index + 1 }
          isEnd = false
        }
        end = start
      }
    } finally {
      await handle.close()
    }
  }
  return first
}

/** The parts that there are, the older first. Their names change with each turnover. */
async function look({ path, previousPath, turnover }: ConsoleFile): Promise<readonly Part[]> {
  // The older part is looked at last: one that was turned over in between is then seen twice, and not missed.
  const current = await statOf(path)
  const previous = previousPath === undefined ? undefined : await statOf(previousPath)
  const parts: Part[] = []
  const mark = turnover === 'copy' ? `-${(previous?.mtimeNs ?? 0n).toString(36)}` : ''
  const add = (where: string, stats: BigIntStats, suffix: string): void => {
    const file = nameOf(stats)
    if (parts.every((part) => part.file !== file))
      parts.push({ path: where, file, log: `${file}${suffix}`, size: Number(stats.size) })
  }
  if (previous !== undefined && previousPath !== undefined) add(previousPath, previous, mark === '' ? '' : `${mark}-p`)
  if (current !== undefined) add(path, current, mark)
  return parts
}

function nameOf(stats: BigIntStats): string {
  return `${stats.ino.toString(36)}-${stats.birthtimeNs.toString(36)}`
}

async function statOf(path: string): Promise<BigIntStats | undefined> {
  try {
    return await stat(path, { bigint: true })
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT'
}
