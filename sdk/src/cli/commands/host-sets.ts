import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { usageError } from '../failure.js'
import type { ResourceType } from '../resource-type.js'
import { hostSetType } from '../resources.js'
import type { Session } from '../session.js'
import { parseGoal, parseTimeout, waitFor } from '../waiting.js'
import { confirm } from './confirm.js'
import { hostOf, type OrderFlags } from './hosts.js'

// Sets of like hosts: what people do with them beside `apply` and `get`.

const type = hostSetType as unknown as ResourceType

export interface SetFlags extends OrderFlags {
  readonly replicas: string
  readonly spread?: string
  readonly maxSurge?: string
  readonly maxUnavailable?: string
  readonly protect?: boolean
}

const spreads: Readonly<Record<string, hub.Spread>> = {
  none: hub.Spread.NONE,
  provider: hub.Spread.PROVIDER,
  location: hub.Spread.LOCATION,
  'failure-domain': hub.Spread.FAILURE_DOMAIN,
}

function wholeNumber(text: string, flag: string): number {
  if (!/^\d{1,4}$/.test(text)) throw usageError(`${flag} ${text} must be a whole number`)
  return Number(text)
}

/** `hostset create NAME`. */
export async function createSet(session: Session, name: string, flags: SetFlags): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const spread = spreads[flags.spread ?? 'none']
  if (spread === undefined) throw usageError(`--spread is one of ${Object.keys(spreads).join(', ')}`)
  const host = await hostOf(session, flags)
  const { machineClass, shape, placement, providerData, userData, sshPublicKeys, labels, lifetime } = host
  const hostSet = create(hub.HostSetSchema, {
    replicas: wholeNumber(flags.replicas, '--replicas'),
    spread,
    rollout: {
      ...(flags.maxSurge !== undefined && { maxSurge: wholeNumber(flags.maxSurge, '--max-surge') }),
      ...(flags.maxUnavailable !== undefined && {
        maxUnavailable: wholeNumber(flags.maxUnavailable, '--max-unavailable'),
      }),
    },
    template: {
      machineClass,
      labels,
      userData,
      sshPublicKeys,
      protected: flags.protect === true,
      ...(shape !== undefined && { shape }),
      ...(placement !== undefined && { placement }),
      ...(providerData !== undefined && { providerData }),
      ...(lifetime !== undefined && { lifetime }),
    },
  })
  const client = await session.client()
  const dryRun = flags.dryRun === true
  const made = await client.hostSets.createHostSet({
    parent: `workspaces/${session.workspace}`,
    hostSetId: name,
    hostSet,
    ...(dryRun ? { validateOnly: true } : { requestId: randomUUID() }),
  })
  for (const warning of made.warnings) session.note(`note: ${warning}`)
  if (made.hostSet === undefined) return
  if (dryRun || !flags.wait) return session.printOne(type, made.hostSet)
  await showWhenReady(session, made.hostSet.name, timeoutMs)
}

/** Shows how a set is coming along, until it is READY. */
async function showWhenReady(session: Session, name: string, timeoutMs: number): Promise<void> {
  let last = ''
  const resource = await waitFor(session, {
    type,
    name,
    goals: [parseGoal('ready')],
    deadline: performance.now() + timeoutMs,
    timeoutMs,
    seen: (seen) => {
      const set = seen as unknown as hub.HostSet
      const text = `${hub.HostSetState[set.state]}  ${set.stateMessage}`
      if (text !== last && !session.structured) session.note(text)
      last = text
    },
  })
  if (resource !== undefined) session.printOne(type, resource)
}

/** `hostset scale NAME REPLICAS`. */
export async function scaleSet(
  session: Session,
  name: string,
  replicas: string,
  flags: { readonly wait?: boolean; readonly timeout: string },
): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const full = hostSetType.fullName(name, session.workspace)
  const { hostSet } = await (
    await session.client()
  ).hostSets.updateHostSet({
    hostSet: { name: full, replicas: wholeNumber(replicas, 'REPLICAS') },
    updateMask: { paths: ['replicas'] },
  })
  if (flags.wait === true) return showWhenReady(session, full, timeoutMs)
  if (hostSet !== undefined) session.printOne(type, hostSet)
}

/** `hostset status NAME`: how a rollout is coming along, until it is done. */
export async function setStatus(
  session: Session,
  name: string,
  flags: { readonly watch?: boolean; readonly timeout: string },
): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const full = hostSetType.fullName(name, session.workspace)
  if (flags.watch === true) return showWhenReady(session, full, timeoutMs)
  session.printOne(type, await hostSetType.get(await session.client(), full))
}

/** `hostset pause NAME`, `hostset resume NAME`. */
export async function setPaused(session: Session, name: string, paused: boolean): Promise<void> {
  const { hostSets } = await session.client()
  const request = { name: hostSetType.fullName(name, session.workspace) }
  const { hostSet } = await (paused ? hostSets.pauseHostSet(request) : hostSets.resumeHostSet(request))
  if (hostSet !== undefined) session.printOne(type, hostSet)
}

/** `hostset delete NAME`: without `--cascade`, its members stay. */
export async function deleteSet(
  session: Session,
  name: string,
  flags: { readonly cascade?: boolean; readonly yes?: boolean; readonly wait?: boolean; readonly timeout: string },
): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const full = hostSetType.fullName(name, session.workspace)
  const cascade = flags.cascade === true
  await confirm(
    session,
    cascade
      ? `Delete host set ${name}, and lose the data of all its members`
      : `Delete host set ${name}; its members stay`,
    flags.yes ?? false,
  )
  const { hostSet } = await (await session.client()).hostSets.deleteHostSet({ name: full, cascade })
  if (flags.wait === true)
    await waitFor(session, {
      type,
      name: full,
      goals: [parseGoal('deleted')],
      deadline: performance.now() + timeoutMs,
      timeoutMs,
    })
  const result = hostSet === undefined || flags.wait === true ? 'deleted' : 'deleting'
  session.printValue({ name: full, result }, session.output === 'name' ? `${full}\n` : `hostset/${name} ${result}\n`)
}
