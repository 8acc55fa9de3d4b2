import { setTimeout as sleep } from 'node:timers/promises'
import { ConsoleRefused, type ConsoleChunk, type ConsoleWish } from '@slipway/sdk'
import type { BootPlan, Line } from './facts.js'
import { Ledger, type Reducer } from './ledger.js'

const pollMs = 200

/** What a machine of a world has written to its console: a line for each thing that happened to it, as the ledger has it. */
export interface ConsoleText {
  text: string
  /** It is gone: nothing more can come. */
  isOver: boolean
}

/** The console of one machine, by its server id or serial number. */
export function consoleReducer(id: string): Reducer<ConsoleText> {
  return {
    initial: () => ({ text: '', isOver: false }),
    apply(state, line) {
      if (!isOf(line, id)) return
      for (const said of wordsOf(line)) state.text += `[${new Date(line.atMs).toISOString()}] ${id}: ${said}\r\n`
      state.isOver ||= line.fact === 'server.deleted' || line.fact === 'server.vanished'
    },
  }
}

/**
 * Shows a machine's console, from the ledger of its world.
 *
 * @param isKnown whether the world has such a machine, also where nothing has happened to it yet.
 * @throws ConsoleRefused `not-found`; the signal's reason.
 */
export async function* showConsole(
  dir: string,
  id: string,
  isKnown: boolean,
  { after, tailLines, follow }: ConsoleWish,
  signal: AbortSignal,
): AsyncGenerator<ConsoleChunk> {
  const log = `sim-${id.replaceAll(/[^A-Za-z0-9._-]/g, '_')}`.slice(0, 64)
  const ledger = new Ledger(dir, consoleReducer(id), { readOnly: true })
  try {
    const { state } = ledger
    if (state.text === '' && !isKnown) throw new ConsoleRefused('not-found', `there is no ${id} in this world`)
    let offset = tailLines === undefined ? 0 : tailOffset(state.text, tailLines)
    if (after?.log === log && after.offset <= state.text.length) offset = after.offset
    for (;;) {
      const bytes = Buffer.from(state.text.slice(offset), 'latin1')
      if (bytes.length > 0) yield { position: { log, offset }, bytes }
      offset += bytes.length
      if (!follow || state.isOver) return
      await sleep(pollMs, undefined, { signal })
      ledger.catchUp()
    }
  } finally {
    ledger.close()
  }
}

function tailOffset(text: string, lines: number): number {
  const all = text.split(/(?<=\n)/)
  return all.slice(0, Math.max(0, all.length - lines)).join('').length
}

function isOf(line: Line, id: string): boolean {
  if (line.fact === 'call.repeated' || line.fact === 'violation') return false
  return ('id' in line && line.id === id) || ('serial' in line && line.serial === id)
}

function wordsOf(line: Line): string[] {
  switch (line.fact) {
    case 'server.created':
      return [`created as ${line.type} in ${line.location}`, ...bootWords(line.image, line.boot, line.failure)]
    case 'server.retried':
      return ['started anew: its creation had not ended']
    case 'server.reinstalled':
      return ['its disk is written anew', ...bootWords(line.image, line.boot, line.failure)]
    case 'server.rescued':
      return [line.enabled ? 'restarting into the rescue system' : 'restarting into its own system']
    case 'server.powered':
    case 'machine.powered':
      return [line.wish === 'reboot' ? 'reboot: system is going down and comes up again' : `power ${line.wish}`]
    case 'server.deleted':
      return ['system halted: it is being deleted']
    case 'server.vanished':
    case 'machine.vanished':
      return ['connection lost']
    case 'machine.provisioned':
      return [`installing for ${line.host}`, ...bootWords(line.image, line.boot, line.failure)]
    case 'machine.released':
      return ['its host was taken off']
    case 'machine.wipe-started':
      return ['wiping its disks']
    case 'machine.wiped':
      return ['its disks are wiped; power off']
    case 'machine.wipe-failed':
      return ['the wipe of its disks failed; power off']
    case 'server.phoned-home':
    case 'machine.phoned-home':
      return [`phoned home at try ${line.tries}`, 'login:']
    default:
      return []
  }
}

function bootWords(image: string, boot: BootPlan | undefined, failure: string | undefined): string[] {
  if (failure !== undefined) return [`booting ${image}`, `it does not start: ${failure}`]
  return [`booting ${image}`, ...(boot === undefined ? ['login:'] : [`${boot.hostname} starts, and phones home soon`])]
}
