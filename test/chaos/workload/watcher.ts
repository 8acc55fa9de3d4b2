import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Code } from '@connectrpc/connect'
import {
  ChangeType,
  type Event,
  type HostChange,
  type MachineChange,
  type MachineRequestChange,
} from '@slipway/proto/hub/v1'
import { createSlipwayClient, follow, SlipwayError, type SlipwayClient } from '@slipway/sdk/client'
import { readLines, Writer, type Seen, type WatchedChange, type WatchKind, type WatchLine } from '../history.js'
import { workspace } from './caller.js'
import { seenEvent, seenHost, seenMachine, seenRequest } from './seen.js'
import { readSettings } from './settings.js'

// A watcher: it follows through the client library, at another hub after each cut, and writes every message down before the library is given it. Killed and started
// again, it resumes from the last revision that it wrote.

const settings = readSettings(process.argv)
const clients = settings.hubs.map((baseUrl) => createSlipwayClient({ baseUrl, token: settings.token }))

interface Message {
  readonly changes: readonly Change[]
  readonly revision: string
  readonly synced: boolean
}

interface Change {
  readonly type: ChangeType
  readonly seen: Seen
}

/** The streams of the four kinds, in one form. */
const streams: Readonly<
  Record<WatchKind, (client: SlipwayClient, revision: string, signal: AbortSignal) => AsyncIterable<Message>>
> = {
  host: (client, revision, signal) =>
    short(
      client.hosts.watchHosts(
        { parent: workspace, filter: { showReleased: true }, revision },
        { signal, timeoutMs: 0 },
      ),
      ({ host }: HostChange) => host && seenHost(host),
    ),
  request: (client, revision, signal) =>
    short(
      client.machineRequests.watchMachineRequests({ filter: { showGone: true }, revision }, { signal, timeoutMs: 0 }),
      ({ machineRequest }: MachineRequestChange) => machineRequest && seenRequest(machineRequest),
    ),
  machine: (client, revision, signal) =>
    short(
      client.machines.watchMachines({ filter: { showGone: true }, revision }, { signal, timeoutMs: 0 }),
      ({ machine }: MachineChange) => machine && seenMachine(machine),
    ),
  event: async function* (client, revision, signal) {
    for await (const message of client.events.watchEvents({ revision }, { signal, timeoutMs: 0 })) {
      const changes = message.events.map((event: Event) => ({ type: ChangeType.CREATED, seen: seenEvent(event) }))
      yield { changes, revision: message.revision, synced: false }
    }
  },
}

async function* short<Raw extends { readonly type: ChangeType }>(
  messages: AsyncIterable<{ readonly changes: readonly Raw[]; readonly revision: string; readonly synced: boolean }>,
  seenOf: (change: Raw) => Seen | undefined,
): AsyncGenerator<Message> {
  for await (const { changes, revision, synced } of messages) {
    const known = changes.flatMap((change) => {
      const seen = seenOf(change)
      return seen === undefined ? [] : [{ type: change.type, seen }]
    })
    yield { changes: known, revision, synced }
  }
}

async function watch(kind: WatchKind): Promise<void> {
  const name = `${settings.name}-${kind}`
  const file = join(settings.histories, `watch-${name}.jsonl`)
  let revision = existsSync(file) ? lastRevision(readLines<WatchLine>(file)) : ''
  const history = new Writer<WatchLine>(settings.histories, `watch-${name}`)
  const stamp = () => ({ at: Date.now(), by: name, kind })
  history.write({ ...stamp(), type: 'start' })
  // Watchers begin with different hubs.
  let turn = settings.seed
  // A watch of events has no beginning of its own: it starts from a list.
  while (kind === 'event' && revision === '') {
    const list = await listEvents(clients[turn++ % clients.length])
    if (list === undefined) continue
    revision = list.revision
    history.write({ ...stamp(), type: 'message', synced: true, ...list })
  }
  async function* recorded(from: string, signal: AbortSignal): AsyncGenerator<Message> {
    const index = turn++ % clients.length
    const client = clients[index]
    if (client === undefined) throw new Error('there is no hub to watch')
    history.write({ ...stamp(), type: 'open', from, hub: `hub-${index + 1}` })
    try {
      for await (const message of streams[kind](client, from, signal)) {
        const changes = message.changes.map(({ type, seen }): WatchedChange => ({
          change: ChangeType[type] as WatchedChange['change'],
          seen,
        }))
        history.write({ ...stamp(), type: 'message', revision: message.revision, synced: message.synced, changes })
        yield message
      }
      history.write({ ...stamp(), type: 'end', code: 'OK', reason: '' })
    } catch (error) {
      const { code, reason } = SlipwayError.of(error)
      history.write({ ...stamp(), type: 'end', code: Code[code], reason })
      throw error
    }
  }
  for (;;) {
    try {
      const options = { signal: new AbortController().signal, revision }
      for await (const update of follow(recorded, ({ seen }) => seen, options)) void update
    } catch (error) {
      if (SlipwayError.of(error).reason !== 'REVISION_COMPACTED') throw error
      revision = ''
    }
  }
}

/** The events so far, in one page: a watcher begins early. Undefined: not now. */
async function listEvents(client: SlipwayClient | undefined) {
  try {
    const list = await client?.events.listEvents({ pageSize: 1_000 })
    if (list === undefined || list.nextPageToken !== '') throw new Error('there are more events than fit in a page')
    const changes = list.events.map((event): WatchedChange => ({ change: 'EXISTING', seen: seenEvent(event) }))
    return { revision: list.revision, changes }
  } catch {
    await sleep(200)
    return undefined
  }
}

/** Where the last process had come to: nowhere, before all that existed was told. */
function lastRevision(lines: readonly WatchLine[]): string {
  let revision = ''
  let settled = false
  for (const line of lines) {
    if (line.type === 'open') settled = line.from !== ''
    if (line.type !== 'message') continue
    settled ||= line.synced || line.kind === 'event'
    if (settled) revision = line.revision
  }
  return revision
}

await Promise.all((settings.watch ?? []).map((kind) => watch(kind as WatchKind)))
