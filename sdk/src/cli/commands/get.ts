import { create, toJsonString } from '@bufbuild/protobuf'
import { timestampDate } from '@bufbuild/protobuf/wkt'
import { stringify } from 'yaml'
import * as hub from '@slipway/proto/hub/v1'
import { ConditionStatus } from '@slipway/proto/provider/v1'
import { clean, formatSpan, formatTable, parseSpan } from '../format.js'
import { usageError } from '../failure.js'
import { idOf, noFilter, type Common, type ListOptions, type ResourceType } from '../resource-type.js'
import { parseReference, resourceType, resourceTypes } from '../resources.js'
import { jsonOf, type Session } from '../session.js'
import { sshKeyRows } from '../ssh-keys.js'
import { coloured } from '../terminal.js'

export interface GetFlags {
  readonly state?: readonly string[]
  readonly provider?: string
  readonly class?: string
  readonly selector?: string
  readonly limit?: string
  readonly all?: boolean
  readonly allWorkspaces?: boolean
  readonly watch?: boolean
}

function listOptions(session: Session, flags: GetFlags): ListOptions {
  return {
    ...noFilter,
    workspace: session.workspace,
    allWorkspaces: flags.allWorkspaces ?? false,
    states: flags.state ?? [],
    provider: flags.provider ?? '',
    machineClass: flags.class ?? '',
    selector: flags.selector ?? '',
    all: flags.all ?? false,
  }
}

/** `get RESOURCE [NAME…]`: one by one where they are named, else all that the filters let through. */
export async function get(session: Session, word: string, names: readonly string[], flags: GetFlags): Promise<void> {
  if (/^events?$/.test(word))
    return events(session, names[0], {
      watch: flags.watch ?? false,
      ...(flags.limit !== undefined && { limit: flags.limit }),
    })
  const type = resourceType(word)
  if (flags.watch === true) return watch(session, type, names, flags)
  const client = await session.client()
  if (names.length > 0) {
    const found: Common[] = []
    for (const name of names) found.push(await type.get(client, type.fullName(name, session.workspace)))
    const [only] = found
    if (found.length === 1 && only !== undefined) session.printOne(type, only)
    else session.printMany(type, found)
    return
  }
  const limit = flags.limit === undefined ? Number.POSITIVE_INFINITY : Number(flags.limit)
  if (!(limit > 0)) throw usageError(`--limit ${flags.limit ?? ''} must be a whole number above 0`)
  const rows: Common[] = []
  for await (const page of type.pages(client, listOptions(session, flags))) {
    rows.push(...page)
    if (rows.length >= limit) break
  }
  if (rows.length === 0 && !session.structured) session.note(`no ${type.plural}`)
  else session.printMany(type, rows.slice(0, limit))
}

/** Rows as they change: a table that grows, or a line of JSON each. */
export async function watch(
  session: Session,
  type: ResourceType,
  names: readonly string[],
  flags: GetFlags,
): Promise<void> {
  if (type.watch === undefined)
    throw usageError(`${type.plural} cannot be watched; \`slipway events --watch\` tells what becomes of them`)
  if (names.length > 1) throw usageError('--watch follows one, or all: give one name at most')
  const client = await session.client()
  const name = names[0] === undefined ? '' : type.fullName(names[0], session.workspace)
  let first = true
  for await (const update of type.watch(
    client,
    { ...listOptions(session, flags), name },
    session.surroundings.signal,
  )) {
    if (update.change === undefined) continue
    const { type: change, resource } = update.change
    if (session.output === 'json')
      session.print(`${JSON.stringify({ type: hub.ChangeType[change], object: jsonOf(type.schema, resource) })}\n`)
    else if (session.output === 'yaml')
      session.print(`---\n${stringify({ type: hub.ChangeType[change], object: jsonOf(type.schema, resource) })}`)
    else session.printMany(type, [resource], { headings: first })
    first = false
  }
}

const conditionText: Readonly<Record<ConditionStatus, string>> = {
  [ConditionStatus.UNSPECIFIED]: 'Unknown',
  [ConditionStatus.TRUE]: 'True',
  [ConditionStatus.FALSE]: 'False',
}

/** `describe RESOURCE NAME`: all of it for people, with its timeline. */
export async function describe(session: Session, word: string, name: string): Promise<void> {
  const type = resourceType(word)
  const client = await session.client()
  const resource = await type.get(client, type.fullName(name, session.workspace))
  const timeline = await listEvents(session, resource.name, 30)
  const json = jsonOf(type.schema, resource) as Record<string, unknown>
  const {
    conditions: _conditions,
    lastError: _lastError,
    attempts: _attempts,
    configSchema: _configSchema,
    dataSchema: _dataSchema,
    sshPublicKeys: _sshPublicKeys,
    ...rest
  } = json
  if (session.structured) {
    session.printValue({ ...json, events: timeline.map((event) => jsonOf(hub.EventSchema, event)) }, '')
    return
  }
  const keys = sshKeysOf(resource)
  if (keys.length > 0 && typeof rest['template'] === 'object')
    rest['template'] = { ...rest['template'], sshPublicKeys: undefined }
  session.print(stringify(rest))
  if (keys.length > 0) {
    session.print('\nSSH keys:\n')
    session.print(formatTable(['TYPE', 'FINGERPRINT', 'COMMENT'], sshKeyRows(keys)))
  }
  if (resource.conditions !== undefined && resource.conditions.length > 0) {
    session.print('\nConditions:\n')
    session.print(
      formatTable(
        ['TYPE', 'STATUS', 'REASON', 'SINCE', 'MESSAGE'],
        resource.conditions.map((condition) => [
          condition.type,
          conditionText[condition.status],
          condition.reason,
          ago(session, condition.lastTransitionTime),
          condition.message,
        ]),
      ),
    )
  }
  if (resource.lastError !== undefined) session.print(`\nLast error: ${errorText(session, resource.lastError)}\n`)
  if ('attempts' in resource && Array.isArray(resource.attempts) && resource.attempts.length > 0) {
    session.print('\nPlaces that were tried:\n')
    for (const attempt of resource.attempts as hub.PlacementAttempt[]) {
      session.print(
        `  ${idOf(attempt.provider)} ${attempt.typeId} ${attempt.location}: ${attempt.error === undefined ? '' : errorText(session, attempt.error)}\n`,
      )
    }
  }
  session.print('\nEvents:\n')
  printEvents(session, timeline)
}

/** Of a host, or of what a set's members are ordered as. */
function sshKeysOf(resource: Common): readonly string[] {
  if (resource.$typeName === hub.HostSchema.typeName) return (resource as unknown as hub.Host).sshPublicKeys
  if (resource.$typeName !== hub.HostSetSchema.typeName) return []
  return (resource as unknown as hub.HostSet).template?.sshPublicKeys ?? []
}

function errorText(session: Session, error: hub.LastError): string {
  const next =
    error.nextAttemptTime === undefined ? '' : `, next try ${timestampDate(error.nextAttemptTime).toISOString()}`
  const text = `${clean(error.message)} (attempt ${error.attempts}, ${ago(session, error.time)} ago${next})`
  return coloured(session.surroundings, text, 'red')
}

function ago(session: Session, time: Parameters<typeof timestampDate>[0] | undefined): string {
  return time === undefined ? '' : formatSpan(session.surroundings.now() - timestampDate(time).getTime())
}

async function listEvents(session: Session, subject: string, limit: number, since?: Date): Promise<hub.Event[]> {
  const client = await session.client()
  const filter = create(hub.EventFilterSchema, {
    subject,
    ...(since !== undefined && { since: { seconds: BigInt(Math.floor(since.getTime() / 1000)), nanos: 0 } }),
  })
  const found: hub.Event[] = []
  let pageToken = ''
  do {
    const page = await client.events.listEvents({ pageSize: Math.min(limit, 500), pageToken, filter })
    found.push(...page.events)
    pageToken = page.nextPageToken
  } while (pageToken !== '' && found.length < limit)
  return found.slice(0, limit).reverse()
}

function printEvents(session: Session, events: readonly hub.Event[], headings = true): void {
  session.print(
    formatTable(
      ['TIME', 'SUBJECT', 'REASON', 'MESSAGE'],
      events.map((event) => [
        event.time === undefined ? '' : timestampDate(event.time).toISOString(),
        subjectText(event.subject),
        event.reason,
        event.count > 1n
          ? `${event.message} (${event.count} times, last ${ago(session, event.lastTime)} ago)`
          : event.message,
      ]),
      { headings },
    ),
  )
}

/** `host/web-1` for a resource name. */
function subjectText(subject: string): string {
  const parts = subject.split('/')
  const collection = (parts.at(-2) ?? '').toLowerCase()
  const type = resourceTypes.find((candidate) => candidate.plural === collection)
  return `${type?.singular ?? collection}/${parts.at(-1) ?? ''}`
}

export interface EventFlags {
  readonly watch?: boolean
  readonly since?: string
  readonly limit?: string
}

/** `events [RESOURCE/NAME]`: the timeline, oldest first. */
export async function events(session: Session, reference: string | undefined, flags: EventFlags): Promise<void> {
  const subject = reference === undefined ? '' : parseReference(reference, session.workspace).name
  const sinceMs = flags.since === undefined ? undefined : parseSpan(flags.since)
  if (flags.since !== undefined && sinceMs === undefined)
    throw usageError(`--since ${flags.since} is no time; write it like 90s, 10m or 1h30m`)
  const since = sinceMs === undefined ? undefined : new Date(session.surroundings.now() - sinceMs)
  const found = await listEvents(session, subject, flags.limit === undefined ? 1_000 : Number(flags.limit), since)
  if (session.output === 'json' && flags.watch !== true)
    session.printValue(
      found.map((event) => jsonOf(hub.EventSchema, event)),
      '',
    )
  else if (session.output === 'yaml' && flags.watch !== true)
    session.printValue(
      found.map((event) => jsonOf(hub.EventSchema, event)),
      '',
    )
  else if (session.output === 'name') for (const event of found) session.print(`${event.name}\n`)
  else if (session.output === 'json')
    for (const event of found) session.print(`${toJsonString(hub.EventSchema, event)}\n`)
  else if (found.length === 0 && flags.watch !== true) session.note('no events')
  else printEvents(session, found)
  if (flags.watch !== true) return
  const client = await session.client()
  const stream = client.events.watchEvents(
    { filter: { subject } },
    { signal: session.surroundings.signal, timeoutMs: 0 },
  )
  for await (const message of stream) {
    for (const event of message.events) {
      if (session.output === 'json') session.print(`${toJsonString(hub.EventSchema, event)}\n`)
      else printEvents(session, [event], false)
    }
  }
}
