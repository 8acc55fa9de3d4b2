import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Dice } from '../dice.js'
import { readLines, type ClientLine, type Seen, type Wanted } from '../history.js'
import { Book, type Entry } from './book.js'
import { Caller, workspace } from './caller.js'
import { readSettings } from './settings.js'

// A client that orders hosts, uses them and lets go of them, through two hubs. Whatever happens, it retries under the same key until it knows.

const settings = readSettings(process.argv)
const file = join(settings.histories, `client-${settings.name}.jsonl`)
const book = new Book(existsSync(file) ? readLines<ClientLine>(file) : [])
const dice = new Dice(settings.seed + book.calls)
const caller = new Caller({ ...settings, note: (line) => book.take(line) })
const hubs = settings.hubs.length

/** Faults of the cloud that come with an order; most have none. */
const simulations = [
  { item: undefined, weight: 20 },
  { item: 'lost-answer', weight: 3 },
  { item: 'timeout-before', weight: 2 },
  { item: 'unavailable', weight: 2 },
  { item: 'stuck', weight: 1 },
  { item: 'stuck-delete', weight: 1 },
  { item: 'fail', weight: 1 },
]
const rackSimulations = simulations.filter(({ item }) => item !== 'stuck-delete')

caller.mark('start')
while (!existsSync(settings.stopFile)) {
  await step()
  await sleep(dice.between(20, 150))
}
while (book.pending.length > 0 || book.leaving.length > 0) await settle()
caller.mark('done')

/** One thing that a client may do. */
async function step(): Promise<void> {
  const doubtful = [...book.pending, ...book.leaving]
  if (doubtful.length > 0 && dice.happens(0.7)) return settle()
  const choice = dice.weighted([
    { item: order, weight: 5 },
    { item: release, weight: 3 },
    { item: label, weight: 4 },
    { item: read, weight: 3 },
    { item: power, weight: 2 },
    { item: again, weight: 1 },
    { item: reuse, weight: 1 },
  ])
  await choice()
}

/** Asks again for what nobody knows the outcome of. */
async function settle(): Promise<void> {
  const [pending] = book.pending
  if (pending !== undefined) await caller.call(anyHub(), orderOf(pending))
  const [leaving] = book.leaving
  if (leaving?.uid !== undefined) await caller.call(anyHub(), { op: 'release', host: leaving.host, uid: leaving.uid })
}

async function order(): Promise<void> {
  const classes = settings.classes ?? []
  const room = classes.filter(
    ({ name, atOnce }) => active().filter(({ want }) => want.machineClass === name).length < atOnce,
  )
  if (room.length === 0) return
  const { name: machineClass } = dice.pick(room)
  const id = `${settings.name}-${book.entries.length + 1}`
  const simulate = dice.weighted(machineClass.endsWith('metal') ? rackSimulations : simulations)
  const want: Wanted = {
    machineClass,
    hostname: id,
    labels: { chaos: '0' },
    providerData: simulate === undefined ? {} : { simulate },
  }
  const operation = { op: 'order' as const, key: randomUUID(), host: `${workspace}/hosts/${id}`, want }
  const first = anyHub()
  // Now and then two calls at once, one to each hub: there must be one host.
  const outcomes = await Promise.all([
    caller.call(first, operation),
    ...(dice.happens(0.2) ? [caller.call(first + 1, operation)] : []),
  ])
  const known = outcomes.find(({ type }) => type === 'ok')
  // What was acknowledged is there for every replica at once.
  if (known?.type === 'ok') await caller.call(first + 1, { op: 'get', host: operation.host, uid: known.seen.uid })
}

async function release(): Promise<void> {
  if (active().length < 3 && dice.happens(0.6)) return
  const entry = anyLive()
  if (entry?.uid !== undefined) await caller.call(anyHub(), { op: 'release', host: entry.host, uid: entry.uid })
}

async function label(): Promise<void> {
  const entry = anyLive()
  if (entry?.uid === undefined) return
  const hub = anyHub()
  const value = String(dice.between(1, 1_000_000))
  const outcome = await caller.call(hub, { op: 'label', host: entry.host, uid: entry.uid, value })
  if (outcome.type === 'ok') await caller.call(hub + 1, { op: 'get', host: entry.host, uid: entry.uid })
}

async function read(): Promise<void> {
  const entry = anyLive()
  if (entry?.uid !== undefined) await caller.call(anyHub(), { op: 'get', host: entry.host, uid: entry.uid })
}

async function power(): Promise<void> {
  const entry = anyLive()
  if (entry?.uid === undefined) return
  const seen = await caller.call(anyHub(), { op: 'get', host: entry.host, uid: entry.uid })
  if (seen.type !== 'ok' || seen.seen.state !== 'READY') return
  const machine = machineOf(seen.seen)
  if (machine === '') return
  const action = dice.weighted([
    { item: 'reboot' as const, weight: 3 },
    { item: 'off' as const, weight: 1 },
    { item: 'on' as const, weight: 1 },
  ])
  const wish = { op: 'power' as const, key: randomUUID(), machine, host: entry.host, action }
  const hub = anyHub()
  const outcome = await caller.call(hub, wish)
  if (outcome.type === 'info') await caller.call(hub + 1, wish)
  // A machine is not left off: a later reboot would find it so.
  if (action === 'off') await caller.call(hub, { ...wish, key: randomUUID(), action: 'on' })
}

/** The same order once more, long after. */
async function again(): Promise<void> {
  const known = book.entries.filter(({ uid }) => uid !== undefined)
  if (known.length > 0) await caller.call(anyHub(), orderOf(dice.pick(known)))
}

/** The same key with another order. */
async function reuse(): Promise<void> {
  const known = book.entries.filter(({ uid }) => uid !== undefined)
  if (known.length === 0) return
  const { key, host, want } = dice.pick(known)
  const other = { ...want, labels: { ...want.labels, other: 'yes' } }
  await caller.call(anyHub(), { op: 'reuse', key, host, want: other })
}

function orderOf({ key, host, want }: Entry) {
  return { op: 'order' as const, key, host, want }
}

function machineOf(seen: Seen): string {
  return typeof seen['machine'] === 'string' ? seen['machine'] : ''
}

/** Hosts that take room: live ones, and orders whose outcome is not known. */
function active(): readonly Entry[] {
  return [...book.live, ...book.pending]
}

function anyLive(): Entry | undefined {
  return book.live.length === 0 ? undefined : dice.pick(book.live)
}

function anyHub(): number {
  return dice.between(0, hubs - 1)
}
