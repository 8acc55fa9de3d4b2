import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { create, type JsonObject } from '@bufbuild/protobuf'
import { durationFromMs, timestampFromDate } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { parse } from 'yaml'
import { CliError, exitCodes, usageError } from '../failure.js'
import { formatMicros, formatSpan, formatTable, parseBytes, parseMicros, parseSpan } from '../format.js'
import { idOf, parsePriority, priceText, type Common, type ResourceType } from '../resource-type.js'
import { hostType } from '../resources.js'
import { jsonOf, type Session } from '../session.js'
import { readSshKeys } from '../ssh-keys.js'
import { mayRedraw } from '../terminal.js'
import { parseGoal, parseTimeout, waitFor } from '../waiting.js'
import { confirm } from './confirm.js'
import { readSecret } from './login.js'

export interface OrderFlags {
  readonly class?: string
  readonly cpus?: string
  /** The same. */
  readonly vcpus?: string
  readonly memory?: string
  readonly disk?: string
  readonly arch?: string
  readonly hostname?: string
  readonly provider?: readonly string[]
  readonly family?: readonly string[]
  readonly location?: readonly string[]
  readonly region?: readonly string[]
  readonly residency?: readonly string[]
  readonly near?: readonly string[]
  readonly apart?: readonly string[]
  readonly preferNear?: readonly string[]
  readonly preferApart?: readonly string[]
  readonly spreadOver?: readonly string[]
  readonly maxPrice?: string
  readonly priority?: string
  readonly data?: readonly string[]
  readonly dataFile?: string
  readonly userDataFile?: string
  readonly sshKey?: readonly string[]
  readonly label?: readonly string[]
  readonly lifetime?: string
  readonly explain?: boolean
  readonly dryRun?: boolean
  readonly wait: boolean
  readonly timeout: string
}

const type = hostType as unknown as ResourceType

/** `host order`: the plan with its price, then the host on its way, until it is READY. */
export async function order(session: Session, name: string, flags: OrderFlags): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const host = await hostOf(session, flags)
  const client = await session.client()
  const request = { parent: `workspaces/${session.workspace}`, hostId: name, host }
  const plan = await client.hosts.createHost({ ...request, validateOnly: true })
  if (flags.dryRun === true || flags.explain === true) {
    session.printValue(jsonOf(hub.CreateHostResponseSchema, plan), planTable(plan))
    return
  }
  const chosen = plan.candidates.find((candidate) => candidate.chosen)
  if (!session.structured)
    session.note(
      chosen === undefined ? `Nothing can be had right now; ${name} will wait.` : `${name}: ${placeText(chosen)}`,
    )
  for (const warning of plan.warnings) session.note(`note: ${warning}`)
  const ordered = await client.hosts.createHost({ ...request, requestId: randomUUID() })
  if (ordered.host === undefined) throw new CliError(exitCodes.failure, 'the hub gave no host')
  if (!flags.wait) {
    session.printOne(type, ordered.host)
    if (!session.structured) session.note(`Follow it with: slipway wait host/${name} --for ready`)
    return
  }
  const resource = await followHost(session, ordered.host.name, 'ready', timeoutMs)
  if (resource !== undefined) session.printOne(type, resource)
}

function placeText(candidate: hub.PlacementCandidate): string {
  const where = [
    idOf(candidate.provider),
    candidate.typeId === '' ? idOf(candidate.machine) : candidate.typeId,
    candidate.location,
  ]
    .filter((part) => part !== '')
    .join(', ')
  const { price } = candidate
  if (price === undefined) return `${where}; price not known`
  const parts = [priceText(price)]
  if (price.monthlyMicros > 0n) parts.push(`${formatMicros(price.monthlyMicros, price.currency)} a month at most`)
  if (price.setupMicros > 0n) parts.push(`${formatMicros(price.setupMicros, price.currency)} once`)
  return `${where}; ${parts.join(', ')}`
}

function planTable(plan: hub.CreateHostResponse): string {
  const rows = plan.candidates.map((candidate) => [
    candidate.chosen ? '*' : '',
    idOf(candidate.provider),
    candidate.typeId === '' ? idOf(candidate.machine) : candidate.typeId,
    candidate.location,
    priceText(candidate.price),
    verdictOf(candidate),
  ])
  return (
    formatTable(['CHOSEN', 'PROVIDER', 'TYPE', 'LOCATION', 'PRICE', 'VERDICT'], rows) +
    plan.warnings.map((warning) => `note: ${warning}\n`).join('')
  )
}

function verdictOf({ chosen, rejectedReason, message }: hub.PlacementCandidate): string {
  if (rejectedReason !== '') return `${rejectedReason}: ${message}`
  const what = chosen ? 'chosen' : 'would do'
  return message === '' ? what : `${what}: ${message}`
}

/** What a host is to be, by the flags of its order. @throws CliError. */
export async function hostOf(session: Session, flags: OrderFlags): Promise<hub.Host> {
  const sized = (flags.cpus ?? flags.vcpus) !== undefined || flags.memory !== undefined
  if ((flags.class === undefined) === !sized) throw usageError('give --class, or --cpus and --memory, and not both')
  return create(hub.HostSchema, {
    hostname: flags.hostname ?? '',
    ...(flags.class !== undefined && {
      machineClass: flags.class.includes('/') ? flags.class : `machineClasses/${flags.class}`,
    }),
    ...(sized && { shape: shapeOf(flags) }),
    placement: {
      providers: (flags.provider ?? []).map((provider) =>
        provider.includes('/') ? provider : `providers/${provider}`,
      ),
      families: [...(flags.family ?? [])],
      locations: [...(flags.location ?? [])],
      regions: [...(flags.region ?? [])],
      residency: [...(flags.residency ?? [])],
      affinities: affinitiesOf(flags),
      spread: (flags.spreadOver ?? []).map((text) => {
        const { domain, labelSelector } = domainAndLabels('--spread-over', text)
        return { domain, labelSelector }
      }),
      maxHourlyMicros:
        flags.maxPrice === undefined
          ? 0n
          : required(parseMicros(flags.maxPrice), `--max-price ${flags.maxPrice} must be an amount like 0.05`),
    },
    providerData: { ...dataFile(flags.dataFile), ...pairs(flags.data ?? [], '--data') },
    userData: flags.userDataFile === undefined ? '' : await readSecret(session, flags.userDataFile, 'user-data'),
    sshPublicKeys: readSshKeys(flags.sshKey ?? []),
    labels: pairs(flags.label ?? [], '--label'),
    ...(flags.lifetime !== undefined && { lifetime: lifetimeOf(flags.lifetime) }),
    ...(flags.priority !== undefined && { priority: parsePriority(flags.priority) }),
  })
}

const domains: Readonly<Record<string, hub.FailureDomain>> = {
  provider: hub.FailureDomain.PROVIDER,
  location: hub.FailureDomain.LOCATION,
  rack: hub.FailureDomain.RACK,
}

function affinitiesOf(flags: OrderFlags) {
  const { NEAR, APART } = hub.AffinitySide
  const given = [
    { flag: '--near', texts: flags.near, side: NEAR, required: true },
    { flag: '--apart', texts: flags.apart, side: APART, required: true },
    { flag: '--prefer-near', texts: flags.preferNear, side: NEAR, required: false },
    { flag: '--prefer-apart', texts: flags.preferApart, side: APART, required: false },
  ]
  return given.flatMap(({ flag, texts = [], side, required }) =>
    texts.map((text) => {
      const { domain, labelSelector } = domainAndLabels(flag, text)
      if (labelSelector === '') throw usageError(`${flag} ${text} must name labels, as in ${text}:app=web`)
      return { side, domain, labelSelector, required }
    }),
  )
}

/** `rack:app=web`. @throws CliError. */
function domainAndLabels(flag: string, text: string) {
  const colon = text.indexOf(':')
  const domain = domains[(colon < 0 ? text : text.slice(0, colon)).toLowerCase()]
  if (domain === undefined) throw usageError(`${flag} ${text} must begin with provider, location or rack`)
  return { domain, labelSelector: colon < 0 ? '' : text.slice(colon + 1) }
}

function lifetimeOf(text: string) {
  return durationFromMs(required(parseSpan(text), `--lifetime ${text} must be a time like 8h or 30d`))
}

export interface ExtendFlags {
  readonly lifetime?: string
  readonly until?: string
  readonly never?: boolean
}

/** `host extend`: moves the time at which a host is released by itself. */
export async function extend(session: Session, name: string, flags: ExtendFlags): Promise<void> {
  const given = [flags.lifetime, flags.until, flags.never].filter((flag) => flag !== undefined)
  if (given.length !== 1) throw usageError('give one of --lifetime, --until and --never')
  const until = flags.until === undefined ? undefined : new Date(flags.until)
  if (until !== undefined && Number.isNaN(until.getTime()))
    throw usageError(`--until ${flags.until ?? ''} must be a time like 2030-01-31T18:00:00Z`)
  const { host } = await (
    await session.client()
  ).hosts.updateHost({
    host: {
      name: hostType.fullName(name, session.workspace),
      ...(flags.lifetime !== undefined && { lifetime: lifetimeOf(flags.lifetime) }),
      ...(until !== undefined && { expireTime: timestampFromDate(until) }),
    },
    updateMask: { paths: [flags.lifetime === undefined ? 'expire_time' : 'lifetime'] },
  })
  if (host !== undefined) session.printOne(type, host)
}

function shapeOf(flags: OrderFlags) {
  const bytes = (text: string | undefined, flag: string) =>
    text === undefined ? 0n : required(parseBytes(text), `${flag} ${text} must be a size like 4Gi`)
  const given = flags.cpus ?? flags.vcpus
  const vcpus = Number(given)
  if (!Number.isInteger(vcpus) || vcpus < 1) throw usageError(`--cpus ${given ?? ''} must be a whole number above 0`)
  return {
    vcpus,
    memoryMib: bytes(flags.memory, '--memory') / 1024n ** 2n,
    diskGib: bytes(flags.disk, '--disk') / 1024n ** 3n,
    architecture: flags.arch ?? '',
  }
}

function required<T>(value: T | undefined, message: string): T {
  if (value === undefined) throw usageError(message)
  return value
}

/** @throws CliError for what is not KEY=VALUE. */
export function pairs(texts: readonly string[], flag: string): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf('=')
      if (at < 1) throw usageError(`${flag} ${text} must be KEY=VALUE`)
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}

function dataFile(file: string | undefined): JsonObject {
  if (file === undefined) return {}
  const value = parse(readFileSync(file, 'utf8')) as unknown
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw usageError(`${file} must hold an object`)
  return value as JsonObject
}

/** Shows a host on its way: one line that is redrawn on a terminal, and a line for each change off it. */
export async function followHost(
  session: Session,
  name: string,
  goal: string,
  timeoutMs: number,
): Promise<Common | undefined> {
  const { stderr } = session.surroundings
  const redraws = mayRedraw(session.surroundings)
  const started = performance.now()
  let last = ''
  const show = (resource: Common) => {
    const host = resource as unknown as hub.Host
    const text = [
      hub.HostState[host.state],
      host.progress?.message ?? host.stateMessage,
      host.lastError === undefined ? '' : `last error: ${host.lastError.message} (attempt ${host.lastError.attempts})`,
    ]
      .filter((part) => part !== '')
      .join('  ')
    if (redraws) stderr.write(`\r\u001b[K${idOf(name)}  ${text}  ${formatSpan(performance.now() - started)}`)
    else if (text !== last) stderr.write(`${idOf(name)}  ${text}\n`)
    last = text
  }
  try {
    return await waitFor(session, {
      type,
      name,
      goals: [parseGoal(goal)],
      deadline: performance.now() + timeoutMs,
      timeoutMs,
      seen: show,
    })
  } catch (error) {
    if (error instanceof CliError && error.exitCode === exitCodes.interrupted) {
      throw new CliError(
        exitCodes.interrupted,
        `stopped watching; it goes on. Follow it with: slipway wait host/${idOf(name)} --for ${goal}`,
      )
    }
    throw error
  } finally {
    if (redraws) stderr.write('\n')
  }
}

export interface ReleaseFlags {
  readonly yes?: boolean
  readonly wait?: boolean
  readonly timeout: string
}

/** `host release`: gives a host back; its machine is deleted, or wiped. */
export async function release(session: Session, name: string, flags: ReleaseFlags): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const full = hostType.fullName(name, session.workspace)
  await confirm(session, `Release host ${name}, and lose its data`, flags.yes ?? false)
  const client = await session.client()
  const { host } = await client.hosts.deleteHost({ name: full })
  if (flags.wait === true) {
    await followHost(session, full, 'released', timeoutMs)
    session.printValue(
      { name: full, result: 'released' },
      session.output === 'name' ? `${full}\n` : `host/${idOf(full)} released\n`,
    )
  } else if (host !== undefined) session.printOne(type, host)
}

export interface ReinstallFlags {
  readonly data?: readonly string[]
  readonly dataFile?: string
  readonly userDataFile?: string
  readonly dryRun?: boolean
  readonly yes?: boolean
  readonly wait: boolean
  readonly timeout: string
}

/** `host reinstall`: a new system on the machine that a host has; what is on its disks is lost. */
export async function reinstall(session: Session, name: string, flags: ReinstallFlags): Promise<void> {
  const timeoutMs = parseTimeout(flags.timeout)
  const full = hostType.fullName(name, session.workspace)
  const userData =
    flags.userDataFile === undefined ? undefined : await readSecret(session, flags.userDataFile, 'user-data')
  const request = {
    name: full,
    providerData: { ...dataFile(flags.dataFile), ...pairs(flags.data ?? [], '--data') },
    ...(userData !== undefined && { userData }),
  }
  const client = await session.client()
  const dryRun = flags.dryRun === true
  if (!dryRun) await confirm(session, `Reinstall host ${name}, and lose its data`, flags.yes ?? false)
  const answer = await client.hosts.reinstallHost({
    ...request,
    ...(dryRun ? { validateOnly: true } : { requestId: randomUUID() }),
  })
  for (const warning of answer.warnings) session.note(`note: ${warning}`)
  if (answer.host === undefined) throw new CliError(exitCodes.failure, 'the hub gave no host')
  if (dryRun || !flags.wait) {
    session.printOne(type, answer.host)
    if (!session.structured && !dryRun) session.note(`Follow it with: slipway wait host/${name} --for ready`)
    return
  }
  const resource = await followHost(session, full, 'ready', timeoutMs)
  if (resource !== undefined) session.printOne(type, resource)
}

/** `host protect NAME on|off`. */
export async function protect(session: Session, name: string, wish: string): Promise<void> {
  if (wish !== 'on' && wish !== 'off') throw usageError(`say on or off, not ${wish}`)
  const client = await session.client()
  const { host } = await client.hosts.updateHost({
    host: { name: hostType.fullName(name, session.workspace), protected: wish === 'on' },
    updateMask: { paths: ['protected'] },
  })
  if (host !== undefined) session.printOne(type, host)
}

/** `host retry`: leads a host out of ERROR. */
export async function retry(session: Session, name: string): Promise<void> {
  const { host } = await (await session.client()).hosts.retryHost({ name: hostType.fullName(name, session.workspace) })
  if (host !== undefined) session.printOne(type, host)
}
