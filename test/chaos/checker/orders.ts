import type { Seen, WatchKind } from '../history.js'
import { callsOf, linesOf, type Call } from './calls.js'
import { vanishedServers } from './clouds.js'
import { groupBy, listingOf, text, type Histories, type Violation } from './histories.js'

type OrderCall = Call & { readonly invocation: { readonly op: 'order' | 'reuse'; readonly key: string } }

function ordersOf(histories: Histories, op: 'order' | 'reuse'): readonly OrderCall[] {
  return callsOf(histories).filter((call): call is OrderCall => call.invocation.op === op)
}

/** I8, S8: one key, one order, one host, for all callers and for ever. */
export function sameKeySameHost(histories: Histories): readonly Violation[] {
  const byKey = groupBy(ordersOf(histories, 'order'), ({ invocation }) => invocation.key)
  return [...byKey].flatMap(([key, calls]) => {
    const done = calls.filter(({ outcome }) => outcome?.type === 'ok')
    const [first] = done
    const other = done.find((call) => uidOf(call) !== uidOf(first))
    if (other !== undefined) return [{ rule: 'S8', message: `key ${key} gave two hosts`, lines: linesOf(first, other) }]
    const refused = calls.find(
      ({ outcome, invocation }) =>
        outcome?.type === 'fail' && first?.outcome !== undefined && invocation.at > first.outcome.at,
    )
    if (refused === undefined) return []
    return [{ rule: 'S8', message: `key ${key} was accepted, and later refused`, lines: linesOf(first, refused) }]
  })
}

/** I8: the key of an order that was accepted, with another order, is refused. */
export function otherOrderRefused(histories: Histories): readonly Violation[] {
  return ordersOf(histories, 'reuse').flatMap((call) => {
    const { outcome } = call
    if (outcome === undefined || outcome.type === 'info') return []
    if (outcome.type === 'fail' && outcome.reason === 'IDEMPOTENCY_KEY_REUSED') return []
    const what = outcome.type === 'ok' ? 'accepted' : `refused with ${outcome.reason}`
    return [{ rule: 'I8', message: `another order under key ${call.invocation.key} was ${what}`, lines: linesOf(call) }]
  })
}

/** S13: what was acknowledged is there, as it was ordered; what is not known is there wholly or not at all; and nothing is there that nobody ordered. */
export function acknowledgedOrdersExist(histories: Histories): readonly Violation[] {
  const listing = listingOf(histories, 'end', 'host') ?? listingOf(histories, 'rest', 'host')
  if (listing === undefined) return []
  const byUid = new Map(listing.objects.map((host) => [host.uid, host]))
  const told = new Set(listingOf(histories, listing.moment, 'event')?.objects.flatMap(orderedHost) ?? [])
  const violations: Violation[] = []
  const explained = new Set<string>()
  const calls = ordersOf(histories, 'order')
  for (const call of calls) {
    if (call.outcome?.type !== 'ok') continue
    const host = byUid.get(call.outcome.seen.uid)
    explained.add(call.outcome.seen.uid)
    if (host === undefined) {
      violations.push({ rule: 'S13', message: `an acknowledged order is lost: ${nameOf(call)}`, lines: linesOf(call) })
    } else violations.push(...notWhole(call, host, told))
  }
  const doubtful = new Map(calls.map((call) => [nameOf(call), call]))
  for (const host of listing.objects) {
    if (explained.has(host.uid)) continue
    const call = doubtful.get(host.name)
    if (call === undefined)
      violations.push({ rule: 'S13', message: `a host is there that nobody ordered: ${host.name}`, lines: [host] })
    else violations.push(...notWhole(call, host, told))
  }
  return violations
}

function orderedHost(event: Seen): readonly string[] {
  return event.state === 'HostOrdered' ? [text(event['subject'])] : []
}

function notWhole(call: OrderCall, host: Seen, told: ReadonlySet<string>): readonly Violation[] {
  if (call.invocation.op !== 'order') return []
  const { want } = call.invocation
  const differs =
    host['hostname'] !== want.hostname ||
    host['machineClass'] !== want.machineClass ||
    JSON.stringify(host['data']) !== JSON.stringify(want.providerData)
  const lines = [...linesOf(call), host]
  if (differs) return [{ rule: 'S13', message: `${host.name} is not what was ordered`, lines }]
  if (told.size > 0 && !told.has(host.name))
    return [{ rule: 'S13', message: `${host.name} is there without the event that tells of its order`, lines }]
  return []
}

/** I4, L1: at rest every accepted order is READY, or ERROR with a reason, or RELEASED; requests and power are as wished. */
export function everyOrderArrives(histories: Histories): readonly Violation[] {
  const hosts = listingOf(histories, 'rest', 'host')
  const requests = listingOf(histories, 'rest', 'request')
  if (hosts === undefined || requests === undefined)
    return [{ rule: 'L1', message: 'the run did not come to rest', lines: [] }]
  const stuck = hosts.objects.filter(({ state }) => !['READY', 'ERROR', 'RELEASED'].includes(state))
  const mute = hosts.objects.filter((host) => host.state === 'ERROR' && text(host['error']) === '')
  const vanished = vanishedServers(histories)
  // What is wished of a server that has vanished waits for its release.
  const isAsWished = (request: Seen) =>
    request['observed'] === request['generation'] || vanished.has(text(request['externalId']))
  const open = requests.objects.filter(
    (request) => request.state !== 'GONE' && !(request.state === 'PROVISIONED' && isAsWished(request)),
  )
  return [
    ...stuck.map((host) => ({ rule: 'I4', message: `${host.name} is stuck in ${host.state}`, lines: [host] })),
    ...mute.map((host) => ({ rule: 'I4', message: `${host.name} is in ERROR without a reason`, lines: [host] })),
    ...open.map((request) => ({
      rule: 'L7',
      message: `${request.name} is stuck in ${request.state}`,
      lines: [request],
    })),
  ]
}

/** L3: at rest every reboot that was wished for is done, but of servers that have vanished. */
export function powerAsWished(histories: Histories): readonly Violation[] {
  const machines = listingOf(histories, 'rest', 'machine')?.objects ?? []
  const vanished = vanishedServers(histories)
  return machines
    .filter((machine) => machine.state !== 'GONE' && machine['reboots'] !== machine['rebootsDone'])
    .filter((machine) => !vanished.has(text(machine['externalId'])))
    .map((machine) => ({ rule: 'L3', message: `${machine.name} was not rebooted as wished`, lines: [machine] }))
}

/** I5: what was released is RELEASED at rest; at the end everything is, and every request is GONE. */
export function releasesArrive(histories: Histories): readonly Violation[] {
  return [
    ...releasedAtRest(histories),
    ...endedAs(histories, 'host', 'RELEASED'),
    ...endedAs(histories, 'request', 'GONE'),
  ]
}

function releasedAtRest(histories: Histories): readonly Violation[] {
  const rest = new Map(listingOf(histories, 'rest', 'host')?.objects.map((host) => [host.uid, host]))
  const found = new Map<string, Violation>()
  for (const call of callsOf(histories)) {
    const { invocation, outcome } = call
    if (invocation.op !== 'release' || invocation.by === 'clerk' || outcome?.type !== 'ok') continue
    const host = rest.get(invocation.uid)
    if (host === undefined || host.state === 'RELEASED') continue
    const message = `${host.name} was released, and is ${host.state}`
    found.set(host.uid, { rule: 'I5', message, lines: [...linesOf(call), host] })
  }
  return [...found.values()]
}

function endedAs(histories: Histories, kind: WatchKind, state: string): readonly Violation[] {
  const objects = listingOf(histories, 'end', kind)?.objects ?? []
  return objects
    .filter((object) => object.state !== state)
    .map((object) => ({ rule: 'I5', message: `${object.name} is ${object.state} at the end`, lines: [object] }))
}

function uidOf(call: Call | undefined): string {
  return call?.outcome?.type === 'ok' ? call.outcome.seen.uid : ''
}

function nameOf({ invocation }: Call): string {
  return 'host' in invocation ? invocation.host : ''
}
