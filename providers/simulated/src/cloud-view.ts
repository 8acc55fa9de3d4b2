import {
  failureOf,
  isLive,
  isOver,
  powerOf,
  statusOf,
  type CloudState,
  type Server,
  type ServerStatus,
} from './cloud-state.js'

/** A server as the API shows it. */
export interface ServerView {
  readonly id: string
  readonly name: string
  readonly ownershipKey: string
  readonly type: string
  readonly location: string
  readonly image: string
  readonly labels: Readonly<Record<string, string>>
  readonly status: ServerStatus
  /** Absent while it is created. */
  readonly power?: 'on' | 'off'
  readonly addresses: readonly string[]
  readonly createdAtMs: number
  /** The mark of the system that was put on it last; 0: it has the one that it was created with. */
  readonly mark: number
  /** The latest piece of work on it. */
  readonly action: {
    readonly kind: 'create' | 'delete' | 'power' | 'reinstall'
    readonly isRunning: boolean
    readonly runsForMs: number
    readonly failure?: string
  }
}

export function viewOf(server: Server, nowMs: number): ServerView {
  const { id, name, type, location, image, labels, addresses, atMs } = server.created
  const status = statusOf(server, nowMs)
  return {
    id,
    name,
    ownershipKey: server.ownershipKey,
    type,
    location,
    image: server.system?.image ?? image,
    labels,
    status,
    ...(status !== 'creating' && { power: status === 'failed' ? 'off' : powerOf(server.power, 'on', nowMs) }),
    addresses: status === 'creating' ? [] : addresses,
    createdAtMs: atMs,
    mark: server.system?.mark ?? 0,
    action: actionOf(server, nowMs),
  }
}

function actionOf(server: Server, nowMs: number): ServerView['action'] {
  const { deletion, power, system } = server
  if (deletion !== undefined) return { kind: 'delete', isRunning: true, runsForMs: nowMs - deletion.startedAtMs }
  if (system !== undefined && (power === undefined || power.startedAtMs <= system.atMs)) {
    const isRunning = !isOver(system.installedAtMs, nowMs)
    const { failure } = system
    const runsForMs = nowMs - system.atMs
    return { kind: 'reinstall', isRunning, runsForMs, ...(!isRunning && failure !== undefined && { failure }) }
  }
  if (power !== undefined)
    return { kind: 'power', isRunning: !isOver(power.doneAtMs, nowMs), runsForMs: nowMs - power.startedAtMs }
  const isRunning = !isOver(server.runningAtMs, nowMs)
  const failure = isRunning ? undefined : failureOf(server)
  const runsForMs = nowMs - server.creationStartedAtMs
  return { kind: 'create', isRunning, runsForMs, ...(failure !== undefined && { failure }) }
}

/** Pages go by the number of the line that created a server, so that nothing is lost or doubled while others come and go. */
export function listPage(
  state: CloudState,
  nowMs: number,
  filter: { readonly ownershipKey?: string; readonly name?: string },
  after: number,
  pageSize: number,
): { readonly servers: readonly ServerView[]; readonly next: number | undefined } {
  const servers: ServerView[] = []
  for (const server of state.live.values()) {
    const { ownershipKey } = server
    const { seq, name, listedAtMs } = server.created
    if (seq <= after || listedAtMs > nowMs || !isLive(server, nowMs)) continue
    if (ownershipKey !== (filter.ownershipKey ?? ownershipKey) || name !== (filter.name ?? name)) continue
    // One more than fits: there is another page, from the last one that did fit.
    if (servers.length === pageSize) return { servers, next: state.servers.get(servers.at(-1)?.id ?? '')?.created.seq }
    servers.push(viewOf(server, nowMs))
  }
  return { servers, next: undefined }
}
