import type {
  ClientLine,
  FaultLine,
  Listing,
  Operation,
  ProcessLine,
  RunFacts,
  Seen,
  Wanted,
  WatchedChange,
  WatchKind,
  WatchLine,
} from '../history.js'
import type { Histories, LedgerFile, LedgerLine, WatchFile } from './histories.js'

// A run in which all went well, made by hand: four hosts on two clouds and a rack, a client whose calls were cut, watchers whose streams were. The tests of the
// checker break it in one place at a time.

type Open<Type> = Type extends readonly (infer Item)[]
  ? Open<Item>[]
  : Type extends object
    ? { -readonly [Key in keyof Type]: Open<Type[Key]> }
    : Type

/** Histories that may be changed. */
export interface Example {
  run: Open<RunFacts>
  clients: ClientLine[]
  watches: Open<WatchFile>[]
  listings: Open<Listing>[]
  faults: FaultLine[]
  processes: ProcessLine[]
  ledgers: { name: string; kind: 'cloud' | 'rack'; lines: Open<LedgerLine>[] }[]
}

const startMs = 1_000_000
const restMs = startMs + 60_000
const endMs = startMs + 90_000

const hostName = (id: string) => `workspaces/default/hosts/${id}`
const ownerOf = (request: string) => `the-hub/${request}`

/** Every change of every object, in the order in which all watchers must be told of them. */
interface Told {
  readonly kind: WatchKind
  readonly change: WatchedChange['change']
  readonly seen: Seen
}

class Story {
  readonly told: Told[] = []
  readonly #versions = new Map<string, Seen>()

  /** The next version of an object. */
  next(
    kind: WatchKind,
    uid: string,
    fields: { readonly name: string; readonly state: string; readonly [field: string]: unknown },
  ) {
    const before = this.#versions.get(uid)
    const version = (before?.version ?? 0) + 1
    const isOver = fields.state === 'RELEASED' || fields.state === 'GONE'
    const change = before === undefined ? 'CREATED' : isOver ? 'DELETED' : 'UPDATED'
    const seen: Seen = { ...before, uid, version, digest: `${uid}@${version}`, ...fields }
    this.#versions.set(uid, seen)
    this.told.push({ kind, change, seen })
    return seen
  }

  /** What exists of a kind. */
  all(kind: WatchKind): Seen[] {
    const last = new Map(this.told.filter((change) => change.kind === kind).map(({ seen }) => [seen.uid, seen]))
    return [...last.values()].map((seen) => ({ ...seen }))
  }
}

function want(id: string, machineClass: string): Wanted {
  return { machineClass, hostname: id, labels: { chaos: '0' }, providerData: {} }
}

function hostFields(id: string, machineClass: string) {
  return { name: hostName(id), hostname: id, machineClass, data: {}, labels: { chaos: '0' } }
}

/** A host's way to READY, with its request and its machine. */
function born(story: Story, id: string, machineClass: string): void {
  const fields = hostFields(id, machineClass)
  const request = { name: `machineRequests/${id}`, host: fields.name, ownershipKey: ownerOf(`request-${id}`) }
  story.next('host', `host-${id}`, { ...fields, state: 'ORDERED' })
  story.next('event', `events/ordered-${id}`, {
    name: `events/ordered-${id}`,
    state: 'HostOrdered',
    subject: fields.name,
  })
  story.next('request', `request-${id}`, { ...request, state: 'PENDING', generation: 1, observed: 0 })
  story.next('host', `host-${id}`, { ...fields, state: 'PLACED' })
  story.next('event', `events/placed-${id}`, {
    name: `events/placed-${id}`,
    state: 'HostPlaced',
    subject: fields.name,
  })
  story.next('request', `request-${id}`, { ...request, state: 'PROVISIONING' })
  story.next('host', `host-${id}`, { ...fields, state: 'PROVISIONING' })
  story.next('request', `request-${id}`, { ...request, state: 'PROVISIONED', observed: 1 })
  story.next('host', `host-${id}`, { ...fields, state: 'BOOTSTRAPPING' })
  story.next('host', `host-${id}`, { ...fields, state: 'READY' })
}

function released(story: Story, id: string): void {
  const name = hostName(id)
  const request = `machineRequests/${id}`
  story.next('host', `host-${id}`, { name, state: 'RELEASING' })
  story.next('request', `request-${id}`, { name: request, state: 'DEPROVISIONING', generation: 2 })
  story.next('request', `request-${id}`, { name: request, state: 'GONE', observed: 2 })
  story.next('host', `host-${id}`, { name, state: 'RELEASED' })
}

function machine(story: Story, id: string, externalId: string, states: readonly string[], more: object = {}): void {
  for (const state of states)
    story.next('machine', `machine-${id}`, {
      name: `machines/${id}`,
      state,
      externalId,
      static: false,
      reboots: 0,
      rebootsDone: 0,
      host: '',
      ...more,
    })
}

/** A good run, made anew at each call. */
export function goodRun(): Example {
  const story = new Story()
  born(story, 'a', 'machineClasses/cloud-a')
  machine(story, 'a', 'srv-a', ['ACTIVE'])
  born(story, 'b', 'machineClasses/cloud-b')
  machine(story, 'b', 'srv-b', ['ACTIVE'])
  machine(
    story,
    'r',
    'R-1',
    ['DISCOVERED', 'VERIFYING', 'MANAGEABLE', 'INSPECTING', 'CLEANING', 'AVAILABLE', 'PROVISIONING', 'ACTIVE'],
    { static: true },
  )
  born(story, 'r', 'machineClasses/metal')
  story.next('host', 'host-a', { name: hostName('a'), state: 'READY', labels: { chaos: '7' } })
  story.next('machine', 'machine-a', { name: 'machines/a', state: 'ACTIVE', reboots: 1 })
  story.next('machine', 'machine-a', { name: 'machines/a', state: 'ACTIVE', rebootsDone: 1 })
  story.next('host', 'host-b', { name: hostName('b'), state: 'ERROR', error: 'its machine has vanished' })
  released(story, 'r')
  machine(story, 'r', 'R-1', ['CLEANING', 'AVAILABLE'], { static: true })
  const rest = listAll(story, 'rest', restMs)
  released(story, 'a')
  machine(story, 'a', 'srv-a', ['GONE'], { reboots: 1, rebootsDone: 1 })
  released(story, 'b')
  machine(story, 'b', 'srv-b', ['GONE'])
  return {
    run: {
      seed: 1,
      hubId: 'the-hub',
      worlds: (['cloud-a', 'cloud-b', 'rack'] as const).map((name) => ({
        name,
        folder: `worlds/${name}`,
        kind: name === 'rack' ? 'rack' : 'cloud',
      })),
      foreignKeys: ['somebody-else/cloud-a'],
    },
    clients: clientLines(),
    watches: [...watch(story, 'watcher-1', 0), ...watch(story, 'watcher-2', 7)],
    listings: [...rest, ...listAll(story, 'end', endMs)],
    faults: [
      { at: startMs + 20_000, type: 'begin', id: 1, kind: 'kill:hub', target: 'hub-1' },
      {
        at: startMs + 22_000,
        type: 'end',
        id: 1,
        kind: 'kill:hub',
        target: 'hub-1',
        effective: true,
        evidence: 'gone',
      },
    ],
    processes: [
      { at: startMs, type: 'start', name: 'hub-1', pid: 10 },
      { at: startMs + 20_000, type: 'exit', name: 'hub-1', pid: 10, how: 'SIGKILL', because: 'fault 1 kill:hub' },
      { at: startMs + 22_000, type: 'start', name: 'hub-1', pid: 11 },
      { at: endMs + 1_000, type: 'exit', name: 'hub-1', pid: 11, how: 'SIGKILL', because: 'the end' },
    ],
    ledgers: ledgerFiles(),
  }
}

function listAll(story: Story, moment: Listing['moment'], at: number): Open<Listing>[] {
  return (['host', 'request', 'machine', 'event'] as const).map((kind) => ({
    at,
    by: 'clerk',
    type: 'listing',
    moment,
    kind,
    hub: 'hub-1',
    objects: story.all(kind),
  }))
}

/** The watches of one watcher. It begins after the first `missed` changes, is cut once, and resumes. */
function watch(story: Story, watcher: string, missed: number): Open<WatchFile>[] {
  return (['host', 'request', 'machine', 'event'] as const).map((kind) => {
    const name = `${watcher}-${kind}`
    const stamp = { at: startMs, by: name, kind }
    const own = story.told.map((change, place) => ({ ...change, place })).filter((change) => change.kind === kind)
    const early = own.filter(({ place }) => place < missed)
    const late = own.filter(({ place }) => place >= missed)
    const existing = new Map(early.map(({ seen }) => [seen.uid, seen]))
    const message = (place: number, synced: boolean, changes: WatchedChange[]): WatchLine => ({
      ...stamp,
      type: 'message',
      revision: `r${place}`,
      synced,
      changes,
    })
    const half = Math.ceil(late.length / 2)
    const told = late.map(({ change, seen, place }) => message(place, false, [{ change, seen: { ...seen } }]))
    const isEvent = kind === 'event'
    const cutAt = late[half - 1]?.place ?? missed
    const begin = [...existing.values()].map((seen): WatchedChange => ({ change: 'EXISTING', seen: { ...seen } }))
    const lines: WatchLine[] = [
      { ...stamp, type: 'start' },
      // A watch of events goes on from a list.
      ...(isEvent ? [message(missed, true, begin)] : []),
      { ...stamp, type: 'open', from: isEvent ? `r${missed}` : '', hub: 'hub-1' },
      ...(isEvent ? [] : [message(missed, true, begin)]),
      ...told.slice(0, half),
      { ...stamp, type: 'end', code: 'Unavailable', reason: '' },
      { ...stamp, type: 'open', from: `r${cutAt}`, hub: 'hub-2' },
      message(cutAt, false, []),
      ...told.slice(half),
    ]
    return { name, kind, lines: lines as Open<WatchLine>[] }
  })
}

function clientLines(): ClientLine[] {
  const lines: ClientLine[] = []
  let at = startMs
  let calls = 0
  const head = () => ({ at: (at += 100), by: 'client-1' })
  const invoke = (operation: Operation) => {
    const call = `client-1.1.${++calls}`
    lines.push({ ...head(), type: 'invoke', call, hub: 'hub-1', ...operation })
    return call
  }
  const ok = (call: string, seen: Seen) => lines.push({ ...head(), type: 'ok', call, seen })
  const refused = (call: string, type: 'fail' | 'info', code: string, reason: string) =>
    lines.push({ ...head(), type, call, code, reason, message: 'no' })
  const seenOf = (id: string, version: number, state: string, chaos = '0'): Seen => ({
    ...hostFields(id, 'machineClasses/cloud-a'),
    uid: `host-${id}`,
    version,
    state,
    labels: { chaos },
  })
  const order = (id: string, machineClass: string) => ({
    op: 'order' as const,
    key: `key-${id}`,
    host: hostName(id),
    want: want(id, machineClass),
  })
  // Answered at once, and asked for again much later.
  ok(invoke(order('a', 'machineClasses/cloud-a')), seenOf('a', 1, 'ORDERED'))
  ok(invoke({ op: 'get', host: hostName('a'), uid: 'host-a' }), seenOf('a', 4, 'BOOTSTRAPPING'))
  // Nobody knows, and the same key tells; the second call of the two is cut for good.
  refused(invoke(order('b', 'machineClasses/cloud-b')), 'info', 'Unavailable', '')
  ok(invoke(order('b', 'machineClasses/cloud-b')), seenOf('b', 1, 'ORDERED'))
  ok(invoke(order('r', 'machineClasses/metal')), seenOf('r', 1, 'ORDERED'))
  refused(
    invoke({ ...order('a', 'machineClasses/cloud-a'), op: 'reuse' }),
    'fail',
    'AlreadyExists',
    'IDEMPOTENCY_KEY_REUSED',
  )
  ok(invoke({ op: 'label', host: hostName('a'), uid: 'host-a', value: '7' }), seenOf('a', 6, 'READY', '7'))
  ok(invoke({ op: 'get', host: hostName('a'), uid: 'host-a' }), seenOf('a', 6, 'READY', '7'))
  const power = {
    op: 'power' as const,
    key: 'power-a',
    machine: 'machines/a',
    host: hostName('a'),
    action: 'reboot' as const,
  }
  refused(invoke(power), 'info', 'DeadlineExceeded', '')
  ok(invoke(power), { uid: 'machine-a', name: 'machines/a', version: 2, state: 'ACTIVE' })
  ok(invoke(order('a', 'machineClasses/cloud-a')), seenOf('a', 1, 'ORDERED'))
  ok(invoke({ op: 'release', host: hostName('r'), uid: 'host-r' }), seenOf('r', 7, 'RELEASING'))
  for (const id of ['a', 'b']) {
    at = restMs + 1_000
    const call = `clerk.1.${id}`
    lines.push({
      at,
      by: 'clerk',
      type: 'invoke',
      call,
      hub: 'hub-1',
      op: 'release',
      host: hostName(id),
      uid: `host-${id}`,
    })
    lines.push({ at: at + 10, by: 'clerk', type: 'ok', call, seen: seenOf(id, 7, 'RELEASING') })
  }
  return lines
}

function ledgerFiles(): Example['ledgers'] {
  const server = (id: string, ownershipKey: string, at: number): Omit<LedgerLine, 'seq'> => ({
    atMs: at,
    fact: 'server.created',
    id,
    name: id,
    ownershipKey,
    call: 'create',
  })
  const gone = (id: string, at: number): Omit<LedgerLine, 'seq'> => ({
    atMs: at,
    fact: 'server.deleted',
    id,
    goneAtMs: at + 100,
    call: 'delete',
  })
  const numbered = (name: string, kind: LedgerFile['kind'], lines: readonly Omit<LedgerLine, 'seq'>[]) => ({
    name,
    kind,
    lines: lines.map((line, index): Open<LedgerLine> => ({ seq: index + 1, ...line })),
  })
  return [
    numbered('cloud-a', 'cloud', [
      server('srv-x', 'somebody-else/cloud-a', startMs),
      server('srv-a', ownerOf('request-a'), startMs + 500),
      { atMs: startMs + 3_000, fact: 'server.powered', id: 'srv-a', wish: 'reboot', call: 'power' },
      gone('srv-a', restMs + 5_000),
    ]),
    numbered('cloud-b', 'cloud', [
      server('srv-b', ownerOf('request-b'), startMs + 1_000),
      { atMs: startMs + 9_000, fact: 'server.vanished', id: 'srv-b' },
      { atMs: restMs + 5_000, fact: 'call.refused', code: 'not-found', call: 'delete', subject: 'srv-b' },
    ]),
    numbered('rack', 'rack', [
      { atMs: startMs, fact: 'machine.wiped', serial: 'R-1' },
      { atMs: startMs + 1_500, fact: 'machine.provisioned', serial: 'R-1', binding: ownerOf('request-r') },
      { atMs: startMs + 9_000, fact: 'machine.released', serial: 'R-1', binding: ownerOf('request-r') },
      { atMs: startMs + 9_500, fact: 'machine.wiped', serial: 'R-1', binding: ownerOf('request-r') },
    ]),
  ]
}

/** As the rules take it. */
export function asHistories(example: Example): Histories {
  return example
}
