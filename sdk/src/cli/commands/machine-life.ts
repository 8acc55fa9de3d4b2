import type * as hub from '@slipway/proto/hub/v1'
import { usageError } from '../failure.js'
import type { ResourceType } from '../resource-type.js'
import { machineType, resourceType } from '../resources.js'
import type { Session } from '../session.js'
import { parseGoal, parseTimeout, waitFor } from '../waiting.js'
import { confirm } from './confirm.js'

// What people do to a machine's life beyond its own work: they have it left alone, make a host of what is in use, and put it under another provider.

const machines = machineType as unknown as ResourceType

function show(session: Session, machine: hub.Machine | undefined): void {
  if (machine !== undefined) session.printOne(machines, machine)
}

/** `machine maintenance NAME on|off`. */
export async function maintenance(
  session: Session,
  name: string,
  word: string,
  flags: { readonly reason?: string },
): Promise<void> {
  if (word !== 'on' && word !== 'off') throw usageError(`maintenance is on or off, and not «${word}»`)
  if (word === 'off' && flags.reason !== undefined) throw usageError('--reason is for `maintenance NAME on`')
  const client = await session.client()
  const { machine } = await client.machines.setMachineMaintenance({
    name: machines.fullName(name, session.workspace),
    enabled: word === 'on',
    reason: flags.reason ?? '',
  })
  show(session, machine)
}

/** `machine hold NAME --reason TEXT`. */
export async function hold(session: Session, name: string, flags: { readonly reason: string }): Promise<void> {
  const client = await session.client()
  const full = machines.fullName(name, session.workspace)
  show(session, (await client.machines.holdMachine({ name: full, reason: flags.reason })).machine)
}

/** `machine unhold NAME`. */
export async function unhold(session: Session, name: string): Promise<void> {
  const client = await session.client()
  show(session, (await client.machines.unholdMachine({ name: machines.fullName(name, session.workspace) })).machine)
}

export interface AdoptFlags {
  readonly host?: string
  readonly hostname: string
  readonly class?: string
  readonly wait?: boolean
  readonly timeout: string
}

/** `machine adopt NAME --hostname H`. The host is printed. */
export async function adopt(session: Session, name: string, flags: AdoptFlags): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const client = await session.client()
  const { host } = await client.machines.adoptMachine({
    name: machines.fullName(name, session.workspace),
    parent: `workspaces/${session.workspace}`,
    hostId: flags.host ?? flags.hostname.toLowerCase().split('.')[0] ?? '',
    hostname: flags.hostname,
    machineClass: flags.class === undefined ? '' : resourceType('machineclass').fullName(flags.class, ''),
  })
  if (host === undefined) return
  const type = resourceType('host')
  const ready =
    flags.wait === true
      ? await waitFor(session, {
          type,
          name: host.name,
          goals: [parseGoal('ready')],
          deadline: performance.now() + timeoutMs,
          timeoutMs,
        })
      : undefined
  session.printOne(type, ready ?? host)
}

/** `machine move NAME --to PROVIDER`. */
export async function move(
  session: Session,
  name: string,
  flags: { readonly to: string; readonly yes?: boolean },
): Promise<void> {
  await confirm(session, `Put machine ${name} under provider ${flags.to}`, flags.yes ?? false)
  const client = await session.client()
  const { machine } = await client.machines.moveMachine({
    name: machines.fullName(name, session.workspace),
    provider: resourceType('provider').fullName(flags.to, ''),
  })
  show(session, machine)
}
