import { randomUUID } from 'node:crypto'
import { CliError, exitCodes } from '../failure.js'
import type { ResourceType } from '../resource-type.js'
import { hostType, resourceType } from '../resources.js'
import type { Session } from '../session.js'
import { parseTimeout } from '../waiting.js'
import { followHost, pairs } from './hosts.js'

const type = hostType as unknown as ResourceType

export interface AdoptFlags {
  readonly provider: string
  readonly id: string
  readonly class: string
  readonly type?: string
  readonly location?: string
  readonly hostname?: string
  readonly label?: readonly string[]
  readonly dryRun?: boolean
  /** The same. */
  readonly validateOnly?: boolean
  readonly wait: boolean
  readonly timeout: string
}

/** `host adopt NAME --provider P --id ID --class C`: makes a host of a server that exists already, untouched. */
export async function adopt(session: Session, name: string, flags: AdoptFlags): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const full = hostType.fullName(name, session.workspace)
  const isTrial = flags.dryRun === true || flags.validateOnly === true
  const client = await session.client()
  const { host, warnings } = await client.hosts.adoptHost({
    parent: `workspaces/${session.workspace}`,
    hostId: name,
    provider: resourceType('provider').fullName(flags.provider, ''),
    externalId: flags.id,
    machineClass: resourceType('machineclass').fullName(flags.class, ''),
    typeId: flags.type ?? '',
    location: flags.location ?? '',
    hostname: flags.hostname ?? '',
    labels: pairs(flags.label ?? [], '--label'),
    ...(isTrial ? { validateOnly: true } : { requestId: randomUUID() }),
  })
  for (const warning of warnings) session.note(`note: ${warning}`)
  if (host === undefined) throw new CliError(exitCodes.failure, 'the hub gave no host')
  if (isTrial || !flags.wait) {
    session.printOne(type, host)
    if (!session.structured && !isTrial) session.note(`Follow it with: slipway wait host/${name} --for ready`)
    return
  }
  const resource = await followHost(session, full, 'ready', timeoutMs)
  if (resource !== undefined) session.printOne(type, resource)
}
