import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { create, type JsonObject } from '@bufbuild/protobuf'
import { durationFromMs, timestampDate } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { PowerState, ProviderKind } from '@slipway/proto/provider/v1'
import { parse } from 'yaml'
import { CliError, exitCodes, usageError } from '../failure.js'
import { parseSpan } from '../format.js'
import type { ResourceType } from '../resource-type.js'
import { machineType, parseReference, resourceType } from '../resources.js'
import type { Session } from '../session.js'
import { parseGoal, parseTimeout, waitFor } from '../waiting.js'
import { confirm } from './confirm.js'
import { readSecret } from './login.js'

// What people do to machines, requests and providers.

const machines = machineType as unknown as ResourceType
const lookEveryMs = 200

export interface WaitFlags {
  readonly for: readonly string[]
  readonly timeout: string
}

/** `wait REF… --for GOAL…`: all goals of all references. */
export async function wait(session: Session, references: readonly string[], flags: WaitFlags): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const goals = flags.for.map(parseGoal)
  const deadline = performance.now() + timeoutMs
  const targets = references.map((reference) => parseReference(reference, session.workspace))
  const met = await Promise.all(targets.map((target) => waitFor(session, { ...target, goals, deadline, timeoutMs })))
  const text = targets
    .map(({ type, name }) => `${type.singular}/${name.slice(name.lastIndexOf('/') + 1)} ${flags.for.join(', ')}\n`)
    .join('')
  session.printValue(
    targets.map(({ name }, index) => ({ name, met: flags.for, exists: met[index] !== undefined })),
    session.output === 'name' ? targets.map(({ name }) => `${name}\n`).join('') : text,
  )
}

export interface DeleteFlags {
  readonly yes?: boolean
  readonly wait?: boolean
  readonly timeout: string
}

/** `delete RESOURCE NAME`. Hosts are released by it. */
export async function remove(session: Session, word: string, name: string, flags: DeleteFlags): Promise<void> {
  const type = resourceType(word)
  const full = type.fullName(name, session.workspace)
  const timeoutMs = parseTimeout(flags.timeout)
  await confirm(session, `Delete ${type.singular} ${name}`, flags.yes ?? false)
  const client = await session.client()
  if (type.kind === 'Provider') await client.providers.deleteProvider({ name: full })
  else if (type.kind === 'ProviderPool') await client.providerPools.deleteProviderPool({ name: full })
  else if (type.kind === 'Quota') await client.quotas.deleteQuota({ name: full })
  else if (type.kind === 'PriceList') await client.priceLists.deletePriceList({ name: full })
  else if (type.kind === 'BillingAgreement') await client.billingAgreements.deleteBillingAgreement({ name: full })
  else if (type.kind === 'Secret') await client.secrets.deleteSecret({ name: full })
  else if (type.kind === 'MachineClass') await client.machineClasses.deleteMachineClass({ name: full })
  else if (type.kind === 'Machine') await client.machines.deleteMachine({ name: full })
  else if (type.kind === 'Host') await client.hosts.deleteHost({ name: full })
  else if (type.kind === 'HostSet') await client.hostSets.deleteHostSet({ name: full })
  else if (type.kind === 'Organization') await client.organizations.deleteOrganization({ name: full })
  else if (type.kind === 'Workspace') await client.workspaces.deleteWorkspace({ name: full })
  else if (type.kind === 'Principal') await client.principals.deletePrincipal({ name: full })
  else if (type.kind === 'RoleBinding') await client.roleBindings.deleteRoleBinding({ name: full })
  else if (type.kind === 'Token') await client.tokens.revokeToken({ name: full })
  else
    throw usageError(
      type.kind === 'Orphan'
        ? `an orphan is no record of the hub's: \`slipway orphan remove ${name}\` removes what it stands for`
        : `a ${type.singular} cannot be deleted: it ends with its host. \`slipway machinerequest forget\` ends one that is stuck`,
    )
  if (flags.wait === true)
    await waitFor(session, {
      type,
      name: full,
      goals: [parseGoal('deleted')],
      deadline: performance.now() + timeoutMs,
      timeoutMs,
    })
  session.printValue(
    { name: full, result: 'deleted' },
    session.output === 'name'
      ? `${full}\n`
      : `${type.singular}/${name} ${type.kind === 'Host' && flags.wait !== true ? 'releasing' : 'deleted'}\n`,
  )
}

const actions: Readonly<Record<string, hub.PowerAction>> = {
  on: hub.PowerAction.ON,
  off: hub.PowerAction.OFF,
  reboot: hub.PowerAction.REBOOT,
}

/** `machine power NAME on|off|reboot`. */
export async function power(
  session: Session,
  name: string,
  word: string,
  flags: { readonly wait?: boolean; readonly timeout: string },
): Promise<void> {
  const action = actions[word]
  if (action === undefined) throw usageError(`power is on, off or reboot, and not «${word}»`)
  const timeoutMs = parseTimeout(flags.timeout)
  const client = await session.client()
  const full = machines.fullName(name, session.workspace)
  let { machine } = await client.machines.setMachinePower({ name: full, action, requestId: randomUUID() })
  const wanted = action === hub.PowerAction.OFF ? PowerState.OFF : PowerState.ON
  const reboots = machine?.reboots ?? 0n
  if (flags.wait === true)
    machine = await untilMachine(session, full, machine, {
      isSo: (seen) => seen.power === wanted && seen.rebootsDone >= reboots,
      describe: (seen) => `power of ${full} is ${PowerState[seen?.power ?? 0]}`,
      timeout: flags.timeout,
      timeoutMs,
    })
  if (machine !== undefined) session.printOne(machines, machine)
}

export interface RescueFlags {
  readonly sshKey?: readonly string[]
  readonly sshKeyFile?: readonly string[]
  readonly leave?: boolean
  readonly wait?: boolean
  readonly timeout: string
}

/** `machine rescue NAME [--leave]`. */
export async function rescue(session: Session, name: string, flags: RescueFlags): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const enabled = flags.leave !== true
  const sshKeys = [...(flags.sshKey ?? [])]
  const sshPublicKeys = (flags.sshKeyFile ?? []).map((file) => readFileSync(file, 'utf8').trim())
  const given = sshKeys.length + sshPublicKeys.length
  if (enabled && given === 0)
    throw usageError('give --ssh-key or --ssh-key-file: the rescue system is entered by SSH key alone')
  if (!enabled && given > 0) throw usageError('--leave takes no keys')
  const client = await session.client()
  const full = machines.fullName(name, session.workspace)
  const request = { name: full, enabled, sshKeys, sshPublicKeys, requestId: randomUUID() }
  let { machine } = await client.machines.setMachineRescue(request)
  if (flags.wait === true)
    machine = await untilMachine(session, full, machine, {
      isSo: (seen) => seen.rescue === enabled,
      describe: (seen) => `${full} runs its ${seen?.rescue === true ? 'rescue' : 'own'} system`,
      timeout: flags.timeout,
      timeoutMs,
    })
  if (machine !== undefined) session.printOne(machines, machine)
}

/** Looks at a machine until something is so. @throws CliError where it is not in time, or the wait is broken off. */
async function untilMachine(
  session: Session,
  name: string,
  first: hub.Machine | undefined,
  wait: {
    readonly isSo: (machine: hub.Machine) => boolean
    readonly describe: (machine: hub.Machine | undefined) => string
    readonly timeout: string
    readonly timeoutMs: number
  },
): Promise<hub.Machine | undefined> {
  const client = await session.client()
  const deadline = performance.now() + wait.timeoutMs
  const { signal } = session.surroundings
  let machine = first
  while (machine === undefined || !wait.isSo(machine)) {
    if (signal.aborted) throw new CliError(exitCodes.interrupted, 'stopped waiting; what was asked for goes on')
    if (performance.now() > deadline) {
      const error = machine?.lastError === undefined ? '' : `; last error: ${machine.lastError.message}`
      throw new CliError(exitCodes.timedOut, `${wait.describe(machine)} after ${wait.timeout}${error}`)
    }
    await sleep(lookEveryMs, undefined, { signal }).catch(() => undefined)
    machine = (await client.machines.getMachine({ name })).machine
  }
  return machine
}

/** `machine accept|retry|cordon|uncordon`. */
export async function operateMachine(
  session: Session,
  name: string,
  what: 'accept' | 'retry' | 'cordon' | 'uncordon',
): Promise<void> {
  const client = await session.client()
  const full = machines.fullName(name, session.workspace)
  const update = async (fields: { cordoned: boolean }) =>
    (
      await client.machines.updateMachine({
        machine: { name: full, ...fields },
        updateMask: { paths: Object.keys(fields) },
      })
    ).machine
  const doings: Readonly<Record<typeof what, () => Promise<hub.Machine | undefined>>> = {
    accept: async () => (await client.machines.acceptMachine({ name: full })).machine,
    retry: async () => (await client.machines.retryMachine({ name: full })).machine,
    cordon: () => update({ cordoned: true }),
    uncordon: () => update({ cordoned: false }),
  }
  const machine = await doings[what]()
  if (machine !== undefined) session.printOne(machines, machine)
}

/** `machinerequest retry|forget`. */
export async function operateRequest(
  session: Session,
  name: string,
  what: { readonly retry: true } | { readonly forget: string; readonly yes: boolean },
): Promise<void> {
  const client = await session.client()
  const type = resourceType('machinerequest')
  const full = type.fullName(name, session.workspace)
  if ('retry' in what) {
    const { machineRequest } = await client.machineRequests.retryMachineRequest({ name: full })
    if (machineRequest !== undefined) session.printOne(type, machineRequest)
    return
  }
  await confirm(session, `Forget ${name}, though its machine may still exist and cost money`, what.yes)
  const { machineRequest } = await client.machineRequests.forgetMachineRequest({ name: full, reason: what.forget })
  if (machineRequest !== undefined) session.printOne(type, machineRequest)
}

export interface AddProviderFlags {
  readonly family: string
  readonly kind: string
  readonly configFile?: string
  readonly credentialsFile?: string
  readonly credentialsSecret?: string
  readonly autoAccept?: boolean
  readonly owner?: string
  readonly pool?: string
  readonly region?: string
  readonly residency?: readonly string[]
}

function objectIn(text: string, what: string): JsonObject {
  const value = parse(text) as unknown
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw usageError(`${what} must hold an object, as JSON or YAML`)
  return value as JsonObject
}

/** `provider add`. */
export async function addProvider(session: Session, name: string, flags: AddProviderFlags): Promise<void> {
  const kinds: Readonly<Record<string, ProviderKind>> = { static: ProviderKind.STATIC, dynamic: ProviderKind.DYNAMIC }
  const kind = kinds[flags.kind]
  if (kind === undefined) throw usageError(`--kind must be static or dynamic, and not «${flags.kind}»`)
  const provider = create(hub.ProviderSchema, {
    family: flags.family,
    kind,
    ...(flags.configFile !== undefined && {
      config: objectIn(readFileSync(flags.configFile, 'utf8'), flags.configFile),
    }),
    ...(flags.credentialsFile !== undefined && {
      credentials: objectIn(await readSecret(session, flags.credentialsFile, 'credentials'), 'credentials'),
    }),
    ...(flags.credentialsSecret !== undefined && {
      credentialsSecret: resourceType('secret').fullName(flags.credentialsSecret, ''),
    }),
    autoAcceptMachines: flags.autoAccept ?? false,
    owner: flags.owner ?? '',
    pool: flags.pool === undefined ? '' : resourceType('providerpool').fullName(flags.pool, ''),
    region: flags.region ?? '',
    residency: [...(flags.residency ?? [])],
  })
  const response = await (
    await session.client()
  ).providers.createProvider({ providerId: name, provider, requestId: randomUUID() })
  if (response.provider !== undefined) session.printOne(resourceType('provider'), response.provider)
  if (!session.structured) session.note(`Let an instance in with a token: slipway provider token ${name}`)
}

/** `provider token`: the token alone on standard output, so that it can go straight into a file. */
export async function providerToken(session: Session, name: string, ttl: string): Promise<void> {
  const ttlMs = parseSpan(ttl)
  if (ttlMs === undefined) throw usageError(`--ttl ${ttl} is no time; write it like 30m or 1h`)
  const response = await (
    await session.client()
  ).providers.createJoinToken({ provider: resourceType('provider').fullName(name, ''), ttl: durationFromMs(ttlMs) })
  const until = response.expireTime === undefined ? '' : timestampDate(response.expireTime).toISOString()
  session.printValue(
    { joinToken: response.joinToken, expireTime: until, gatewayAddress: response.gatewayAddress },
    `${response.joinToken}\n`,
  )
  session.note(`Good for one instance until ${until}. Instances connect to ${response.gatewayAddress}.`)
}

/** `provider release-holds NAME`. */
export async function releaseHolds(
  session: Session,
  name: string,
  flags: { readonly type?: string; readonly location?: string },
): Promise<void> {
  const { released } = await (
    await session.client()
  ).providers.releaseHolds({
    name: resourceType('provider').fullName(name, ''),
    typeId: flags.type ?? '',
    location: flags.location ?? '',
  })
  session.printValue({ released }, released === 0 ? 'Nothing was held back.\n' : `Offered again: ${released}.\n`)
}

/** `provider claim POOL --for WORKSPACE`. */
export async function claimProvider(session: Session, pool: string, workspace: string): Promise<void> {
  const { provider } = await (
    await session.client()
  ).providerPools.claimProvider({
    name: resourceType('providerpool').fullName(pool, ''),
    workspace: resourceType('workspace').fullName(workspace, ''),
  })
  if (provider !== undefined) session.printOne(resourceType('provider'), provider)
}

/** `provider release NAME`. */
export async function releaseProvider(session: Session, name: string): Promise<void> {
  const { provider } = await (
    await session.client()
  ).providerPools.releaseProvider({ name: resourceType('provider').fullName(name, '') })
  if (provider !== undefined) session.printOne(resourceType('provider'), provider)
}

/** `provider drain|undrain`. */
export async function drainProvider(session: Session, name: string, draining: boolean): Promise<void> {
  const type = resourceType('provider')
  const response = await (
    await session.client()
  ).providers.updateProvider({
    provider: { name: type.fullName(name, ''), draining },
    updateMask: { paths: ['draining'] },
  })
  if (response.provider !== undefined) session.printOne(type, response.provider)
}
