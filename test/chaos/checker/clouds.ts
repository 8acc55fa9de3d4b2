import {
  groupBy,
  listingOf,
  text,
  type Histories,
  type LedgerFile,
  type LedgerLine,
  type Violation,
} from './histories.js'

// What the clouds' own ledgers tell about money.

interface Server {
  readonly created: LedgerLine
  readonly deletions: readonly LedgerLine[]
  readonly fromMs: number
  /** Infinity: it lives. */
  readonly toMs: number
  readonly end?: LedgerLine
}

/** Every server that a cloud ever had. */
export function serversOf(ledger: LedgerFile): readonly Server[] {
  const byId = groupBy(
    ledger.lines.filter(({ id, fact }) => id !== undefined && fact.startsWith('server.')),
    ({ id }) => id ?? '',
  )
  return [...byId.values()].flatMap((lines) => {
    const created = lines.find(({ fact }) => fact === 'server.created')
    if (created === undefined) return []
    const deletions = lines.filter(({ fact }) => fact === 'server.deleted')
    const deletion = deletions.at(-1)
    const vanished = lines.find(({ fact }) => fact === 'server.vanished')
    const toMs = Math.min(deletion?.goneAtMs ?? Infinity, vanished?.atMs ?? Infinity)
    const end = vanished?.atMs === toMs ? vanished : deletion
    return [{ created, deletions, fromMs: created.atMs, toMs, ...(end && { end }) }]
  })
}

/** The ids of those that vanished: nothing can be done with them any more but to let go of them. */
export function vanishedServers(histories: Histories): ReadonlySet<string> {
  const lines = cloudsOf(histories).flatMap((ledger) => ledger.lines)
  return new Set(lines.flatMap(({ fact, id }) => (fact === 'server.vanished' && id !== undefined ? [id] : [])))
}

function cloudsOf({ ledgers }: Histories): readonly LedgerFile[] {
  return ledgers.filter(({ kind }) => kind === 'cloud')
}

/** S1, I1: at every instant at most one server lives under one ownership key, over all clouds. */
export function oneServerForEachRequest(histories: Histories): readonly Violation[] {
  const servers = cloudsOf(histories).flatMap(serversOf)
  const byOwner = groupBy(servers, ({ created }) => text(created.ownershipKey))
  return [...byOwner].flatMap(([owner, own]) => {
    const inOrder = own.toSorted((one, other) => one.fromMs - other.fromMs)
    for (const [index, server] of inOrder.entries()) {
      const earlier = inOrder.slice(0, index).find((candidate) => candidate.toMs > server.fromMs)
      if (earlier === undefined) continue
      const lines = [earlier.created, server.created, ...(earlier.end ? [earlier.end] : [])]
      return [{ rule: 'S1', message: `two servers lived at once for ${owner}`, lines }]
    }
    return []
  })
}

/** S4: what belongs to somebody else is never touched. */
export function nothingForeignTouched(histories: Histories): readonly Violation[] {
  return cloudsOf(histories).flatMap((ledger) => {
    const foreign = serversOf(ledger).filter(({ created }) => !isOurs(histories, created))
    return foreign.flatMap(({ created }) => {
      const touched = ledger.lines.filter(
        ({ id, fact, call }) => id === created.id && fact !== 'server.created' && call !== undefined,
      )
      return touched.slice(0, 1).map((line) => ({
        rule: 'S4',
        message: `${line.call ?? ''} of server ${created.id ?? ''}, which belongs to somebody else`,
        lines: [created, line],
      }))
    })
  })
}

/** S4: nothing is deleted but what somebody let go of, or what its hub had given up. */
export function nothingDeletedThatIsKept(histories: Histories): readonly Violation[] {
  const requests = new Map<string, { host: string; givenUp: boolean }>()
  const observed = [
    ...histories.watches.flatMap(({ lines }) =>
      lines.flatMap((line) =>
        line.type === 'message' && line.kind === 'request' ? line.changes.map(({ seen }) => seen) : [],
      ),
    ),
    ...histories.listings.filter(({ kind }) => kind === 'request').flatMap(({ objects }) => objects),
  ]
  for (const seen of observed) {
    const owner = text(seen['ownershipKey'])
    const known = requests.get(owner) ?? { host: text(seen['host']), givenUp: false }
    known.givenUp ||= seen.state === 'FAILED' || text(seen['error']) !== ''
    requests.set(owner, known)
  }
  const released = new Map<string, number>()
  for (const line of histories.clients) {
    if (line.type !== 'invoke' || line.op !== 'release') continue
    released.set(line.host, Math.min(line.at, released.get(line.host) ?? Infinity))
  }
  return cloudsOf(histories)
    .flatMap(serversOf)
    .flatMap(({ created, deletions }) => {
      const [deletion] = deletions
      const request = requests.get(text(created.ownershipKey))
      if (deletion === undefined || !isOurs(histories, created)) return []
      const lines = [created, deletion]
      if (request === undefined)
        return [{ rule: 'S4', message: `a server was deleted whose request nobody ever saw`, lines }]
      const releasedAt = released.get(request.host)
      if (request.givenUp || (releasedAt !== undefined && releasedAt <= deletion.atMs)) return []
      const message = `the server of ${request.host} was deleted, and nobody had let go of it before`
      return [{ rule: 'S4', message, lines }]
    })
}

/** I2: at rest, and at the end, no server lives without a request that wants it; and a host that is READY has one. */
export function noServerWithoutHost(histories: Histories): readonly Violation[] {
  const servers = cloudsOf(histories)
    .flatMap(serversOf)
    .filter(({ created }) => isOurs(histories, created))
  return (['rest', 'end'] as const).flatMap((moment) => {
    const requests = listingOf(histories, moment, 'request')
    const hosts = listingOf(histories, moment, 'host')
    if (requests === undefined || hosts === undefined) return []
    const owners = new Map(requests.objects.map((request) => [text(request['ownershipKey']), request]))
    // What was created or deleted while the clerk was listing proves nothing.
    const live = servers.filter(({ fromMs, toMs }) => fromMs < requests.at - 1_000 && toMs > hosts.at)
    const leaked = live.filter(({ created }) => {
      const request = owners.get(text(created.ownershipKey))
      return request === undefined || request.state === 'GONE'
    })
    return leaked.map(({ created }) => ({
      rule: 'I2',
      message: `server ${created.id ?? ''} lives at ${moment === 'end' ? 'the end' : 'rest'}, and no request wants it`,
      lines: [created, owners.get(text(created.ownershipKey)) ?? 'no request'],
    }))
  })
}

/** I2, L2: at the end, when everything was released, no server of ours lives. */
export function nothingLeftAtTheEnd(histories: Histories): readonly Violation[] {
  const end = listingOf(histories, 'end', 'host')
  if (end === undefined) return [{ rule: 'L2', message: 'the run did not come to its end', lines: [] }]
  const ours = cloudsOf(histories).flatMap(serversOf)
  const left = ours.filter(({ created, toMs }) => isOurs(histories, created) && toMs > end.at + 1_000)
  return left.map(({ created, deletions }) => ({
    rule: 'L2',
    message: `server ${created.id ?? ''} is still there, though every host was released`,
    lines: [created, ...deletions],
  }))
}

/** I10 of the cloud's own: somebody else's servers are there at the end. */
export function foreignServersLeft(histories: Histories): readonly Violation[] {
  const servers = cloudsOf(histories).flatMap(serversOf)
  return histories.run.foreignKeys.flatMap((key) => {
    const own = servers.filter(({ created }) => created.ownershipKey === key)
    const gone = own.find(({ toMs }) => toMs !== Infinity)
    return gone === undefined
      ? []
      : [{ rule: 'S4', message: `the server of ${key} is gone`, lines: [gone.created, gone.end ?? 'no line'] }]
  })
}

export function isOurs({ run }: Histories, { ownershipKey }: LedgerLine): boolean {
  return text(ownershipKey).startsWith(`${run.hubId}/`)
}
