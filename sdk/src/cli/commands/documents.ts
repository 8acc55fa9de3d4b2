import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fromJson, toJson, type DescMessage, type JsonObject, type JsonValue } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { LineCounter, parseAllDocuments, stringify } from 'yaml'
import type { SlipwayClient } from '../../client/client.js'
import { SlipwayError } from '../../client/errors.js'
import { CliError, exitCodes, usageError } from '../failure.js'
import type { Common, ResourceType } from '../resource-type.js'
import { resourceType } from '../resources.js'
import type { Session } from '../session.js'
import { readStdin } from '../terminal.js'

// Documents: YAML or JSON, each `{kind, name, …}` with the fields of the API in camel case.

interface Document {
  readonly type: ResourceType
  readonly id: string
  readonly name: string
  readonly fields: JsonObject
  readonly message: Common
  /** `file:line`, for complaints. */
  readonly at: string
}

const kinds: Readonly<Record<string, { readonly schema: DescMessage; readonly mutable: readonly string[] }>> = {
  Provider: {
    schema: hub.ProviderSchema,
    mutable: [
      'config',
      'credentials',
      'credentialsSecret',
      'labels',
      'annotations',
      'autoAcceptMachines',
      'draining',
      'orphanPolicy',
      'owner',
      'region',
      'residency',
      'pool',
    ],
  },
  ProviderPool: {
    schema: hub.ProviderPoolSchema,
    mutable: [
      'displayName',
      'claimOn',
      'organizations',
      'workspaceSelector',
      'includedHosts',
      'trial',
      'idleRelease',
      'unlessOwn',
      'labels',
      'annotations',
    ],
  },
  Quota: { schema: hub.QuotaSchema, mutable: ['displayName', 'maxHosts', 'maxVcpus', 'maxMemoryMib', 'budget'] },
  PriceList: { schema: hub.PriceListSchema, mutable: ['displayName', 'isDefault', 'entries'] },
  BillingAgreement: {
    schema: hub.BillingAgreementSchema,
    mutable: ['displayName', 'priceList', 'discountBasisPoints', 'entries', 'startTime', 'endTime'],
  },
  Secret: { schema: hub.SecretSchema, mutable: ['description', 'data', 'labels', 'annotations'] },
  MachineClass: {
    schema: hub.MachineClassSchema,
    mutable: ['displayName', 'shape', 'offerings', 'machineSelector', 'bootstrap', 'labels', 'annotations'],
  },
  Host: { schema: hub.HostSchema, mutable: ['labels', 'annotations', 'protected', 'expireTime'] },
  HostSet: {
    schema: hub.HostSetSchema,
    mutable: ['replicas', 'template', 'spread', 'rollout', 'repair', 'labels', 'annotations'],
  },
}

/** Reads all documents of a file, a folder or standard input. Nothing is sent before all of them are understood. @throws CliError. */
async function readDocuments(session: Session, source: string): Promise<Document[]> {
  const files =
    source === '-'
      ? [['stdin', await readStdin(session.surroundings)] as const]
      : (statSync(source).isDirectory()
          ? readdirSync(source)
              .filter((file) => /\.(ya?ml|json)$/.test(file))
              .sort()
              .map((file) => join(source, file))
          : [source]
        ).map((file) => [file, readFileSync(file, 'utf8')] as const)
  return files.flatMap(([file, text]) => parseDocuments(file, text, session.workspace))
}

function parseDocuments(file: string, text: string, workspace: string): Document[] {
  const lines = new LineCounter()
  const found: Document[] = []
  for (const parsed of parseAllDocuments(text, { lineCounter: lines, strict: true, uniqueKeys: true })) {
    const [broken] = parsed.errors
    if (broken !== undefined)
      throw usageError(`${file}:${lines.linePos(broken.pos[0]).line}: ${broken.message.split('\n')[0] ?? ''}`)
    const value = parsed.toJS({ maxAliasCount: 50 }) as unknown
    if (value === null || value === undefined) continue
    const line = lines.linePos(parsed.contents?.range?.[0] ?? 0).line
    found.push(toDocument(value, `${file}:${line}`, workspace, (key) => lineOf(text, line, key, file)))
  }
  return found
}

/** The line of a key at or after a document's first line. */
function lineOf(text: string, from: number, key: string, file: string): string {
  const index = text
    .split('\n')
    .findIndex((line, at) => at + 1 >= from && new RegExp(`(^|[\\s{,"'-])${key}["']?\\s*:`).test(line))
  return `${file}:${index < 0 ? from : index + 1}`
}

function toDocument(value: unknown, at: string, workspace: string, where: (key: string) => string): Document {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw usageError(`${at}: a document must be an object with kind and name`)
  const { kind: given, name, ...fields } = value as Record<string, JsonValue>
  const kind = typeof given === 'string' ? given : ''
  const known = kinds[kind]
  if (known === undefined)
    throw usageError(`${at}: kind must be one of ${Object.keys(kinds).join(', ')}, but is «${kind}»`)
  if (typeof name !== 'string' || name === '') throw usageError(`${at}: name is missing`)
  const type = resourceType(kind)
  const full = type.fullName(name, workspace)
  try {
    const message = fromJson(known.schema, { ...fields, name: full }, { ignoreUnknownFields: false }) as Common
    return { type, id: full.slice(full.lastIndexOf('/') + 1), name: full, fields, message, at }
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    const key = /key "([^"]+)"|field \S+\.(\w+)/.exec(text)
    const place = key === null ? at : where(key[1] ?? key[2] ?? '')
    throw usageError(
      `${place}: ${text.replace(/^cannot decode message \S+ from JSON: /, '').replace(/^cannot decode field \S+?\.(\w+) from JSON/, '$1')}`,
    )
  }
}

/** Whether a wanted value is what is there; objects may hold more than what is wanted. */
export function holds(there: JsonValue | undefined, wanted: JsonValue, exact = false): boolean {
  if (typeof wanted !== 'object' || wanted === null)
    return there === undefined
      ? wanted === null || wanted === '' || wanted === false || wanted === 0 || wanted === '0'
      : typeof there !== 'object' && `${there}` === `${wanted}`
  if (Array.isArray(wanted)) {
    if (there === undefined) return wanted.length === 0
    return (
      Array.isArray(there) && there.length === wanted.length && wanted.every((item, index) => holds(there[index], item))
    )
  }
  const object = there === undefined ? {} : there
  if (typeof object !== 'object' || object === null || Array.isArray(object)) return false
  if (exact && Object.keys(object).some((key) => wanted[key] === undefined)) return false
  return Object.entries(wanted).every(([key, value]) => holds(object[key], value))
}

/** The given fields that differ from what the hub has. Maps and provider data are taken whole. */
function differences(document: Document, current: Common): string[] {
  const kind = kinds[document.type.kind]
  if (kind === undefined) return []
  const there = toJson(kind.schema, current) as JsonObject
  const wanted = toJson(kind.schema, document.message) as JsonObject
  return Object.keys(document.fields).filter((key) => {
    // Credentials are never read back: whether they differ cannot be told. The hub can tell it of a secret, and keeps its version where they do not.
    if (key === 'credentials' || key === 'userData') return key === 'credentials'
    // It is reckoned from when the order was stored.
    if (document.type.kind === 'Host' && key === 'lifetime') return false
    if (document.type.kind === 'Secret' && key === 'data') return true
    return !holds(
      there[key],
      wanted[key] ?? document.fields[key] ?? null,
      ['labels', 'annotations', 'config'].includes(key),
    )
  })
}

async function findCurrent(client: SlipwayClient, document: Document): Promise<Common | undefined> {
  try {
    return await document.type.get(client, document.name)
  } catch (error) {
    if (error instanceof SlipwayError && error.notFound) return undefined
    throw error
  }
}

async function createDocument(client: SlipwayClient, document: Document, validateOnly: boolean): Promise<void> {
  const requestId = randomUUID()
  const { message, id } = document
  const parent = document.name.split('/').slice(0, 2).join('/')
  if (document.type.kind === 'Provider')
    await client.providers.createProvider({
      providerId: id,
      provider: message as hub.Provider,
      requestId,
      validateOnly,
    })
  else if (document.type.kind === 'ProviderPool')
    await client.providerPools.createProviderPool({
      providerPoolId: id,
      providerPool: message as hub.ProviderPool,
      requestId,
      validateOnly,
    })
  else if (document.type.kind === 'Quota')
    await client.quotas.createQuota({ parent, quotaId: id, quota: message as hub.Quota, requestId, validateOnly })
  else if (document.type.kind === 'PriceList')
    await client.priceLists.createPriceList({
      priceListId: id,
      priceList: message as hub.PriceList,
      requestId,
      validateOnly,
    })
  else if (document.type.kind === 'BillingAgreement')
    await client.billingAgreements.createBillingAgreement({
      parent,
      billingAgreementId: id,
      billingAgreement: message as hub.BillingAgreement,
      requestId,
      validateOnly,
    })
  else if (document.type.kind === 'Secret')
    await client.secrets.createSecret({
      parent,
      secretId: id,
      secret: message as hub.Secret,
      requestId,
      validateOnly,
    })
  else if (document.type.kind === 'MachineClass')
    await client.machineClasses.createMachineClass({
      machineClassId: id,
      machineClass: message as hub.MachineClass,
      requestId,
      validateOnly,
    })
  else if (document.type.kind === 'HostSet')
    await client.hostSets.createHostSet({
      parent,
      hostSetId: id,
      hostSet: message as hub.HostSet,
      requestId,
      validateOnly,
    })
  else await client.hosts.createHost({ parent, hostId: id, host: message as hub.Host, requestId, validateOnly })
}

/** @returns whether it made a difference, as far as the hub tells. */
async function updateDocument(
  client: SlipwayClient,
  document: Document,
  current: Common,
  changed: readonly string[],
  validateOnly: boolean,
): Promise<boolean> {
  const kind = kinds[document.type.kind]
  const fixed = changed.find((key) => kind?.mutable.includes(key) !== true)
  if (fixed !== undefined)
    throw new CliError(
      exitCodes.failure,
      `${document.at}: ${fixed} of ${document.type.singular}/${document.id} cannot be changed; make a new one instead`,
    )
  const updateMask = { paths: changed.map((key) => key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)) }
  if (document.type.kind === 'Provider')
    await client.providers.updateProvider({ provider: document.message as hub.Provider, updateMask, validateOnly })
  else if (document.type.kind === 'ProviderPool')
    await client.providerPools.updateProviderPool({
      providerPool: document.message as hub.ProviderPool,
      updateMask,
      validateOnly,
    })
  else if (document.type.kind === 'Quota')
    await client.quotas.updateQuota({ quota: document.message as hub.Quota, updateMask, validateOnly })
  else if (document.type.kind === 'PriceList')
    await client.priceLists.updatePriceList({ priceList: document.message as hub.PriceList, updateMask, validateOnly })
  else if (document.type.kind === 'BillingAgreement')
    await client.billingAgreements.updateBillingAgreement({
      billingAgreement: document.message as hub.BillingAgreement,
      updateMask,
      validateOnly,
    })
  else if (document.type.kind === 'Secret') {
    const { secret } = await client.secrets.updateSecret({
      secret: document.message as hub.Secret,
      updateMask,
      validateOnly,
    })
    return secret?.etag !== current.etag
  } else if (document.type.kind === 'HostSet') {
    const { hostSet } = await client.hostSets.updateHostSet({
      hostSet: document.message as hub.HostSet,
      updateMask,
      validateOnly,
    })
    // Whether the user-data of a template differs, the hub alone can tell.
    return validateOnly || hostSet?.etag !== current.etag
  } else if (document.type.kind === 'MachineClass')
    await client.machineClasses.updateMachineClass({
      machineClass: document.message as hub.MachineClass,
      updateMask,
      validateOnly,
    })
  else await client.hosts.updateHost({ host: document.message as hub.Host, updateMask, validateOnly })
  return true
}

export interface ApplyFlags {
  readonly filename: string
  readonly dryRun?: boolean
  readonly exitCode?: boolean
}

/** `apply -f`: makes what is missing, changes what differs, and says of each which it was. @returns the exit code. */
export async function apply(session: Session, flags: ApplyFlags): Promise<number> {
  const documents = await readDocuments(session, flags.filename)
  if (documents.length === 0) throw usageError(`${flags.filename}: there is nothing to apply`)
  const client = await session.client()
  const dryRun = flags.dryRun ?? false
  const results: { name: string; result: string; changed?: readonly string[] }[] = []
  for (const document of documents) {
    const current = await findCurrent(client, document)
    const changed = current === undefined ? [] : differences(document, current)
    if (current === undefined) await createDocument(client, document, dryRun)
    else if (changed.length > 0 && !(await updateDocument(client, document, current, changed, dryRun)))
      changed.length = 0
    const result = current === undefined ? 'created' : changed.length > 0 ? 'configured' : 'unchanged'
    const name = `${document.type.singular}/${document.id}`
    results.push({ name, result, ...(changed.length > 0 && { changed }) })
    if (!session.structured)
      session.print(
        session.output === 'name' ? `${document.name}\n` : `${name} ${result}${dryRun ? ' (dry run)' : ''}\n`,
      )
  }
  if (session.structured) session.printValue(results, '')
  return flags.exitCode === true && results.some(({ result }) => result !== 'unchanged')
    ? exitCodes.changes
    : exitCodes.ok
}

/** `create -f`: makes what the documents say, and refuses what is there already. */
export async function createAll(session: Session, flags: ApplyFlags): Promise<number> {
  const documents = await readDocuments(session, flags.filename)
  const client = await session.client()
  for (const document of documents) {
    await createDocument(client, document, flags.dryRun ?? false)
    const name = `${document.type.singular}/${document.id}`
    session.printValue({ name, result: 'created' }, `${name} created${flags.dryRun === true ? ' (dry run)' : ''}\n`)
  }
  return exitCodes.ok
}

/** `diff -f`: what `apply` would change. @returns 7 where there is something. */
export async function diff(session: Session, flags: ApplyFlags): Promise<number> {
  const documents = await readDocuments(session, flags.filename)
  const client = await session.client()
  const found: { name: string; field: string; current: JsonValue | null; wanted: JsonValue | null }[] = []
  for (const document of documents) {
    const name = `${document.type.singular}/${document.id}`
    const current = await findCurrent(client, document)
    if (current === undefined) {
      found.push({ name, field: '', current: null, wanted: document.fields })
      continue
    }
    const there = toJson(document.type.schema, current) as JsonObject
    for (const field of differences(document, current)) {
      if (field !== 'credentials' && !(document.type.kind === 'Secret' && field === 'data'))
        found.push({ name, field, current: there[field] ?? null, wanted: document.fields[field] ?? null })
    }
  }
  const text = found
    .map(({ name, field, current, wanted }) =>
      field === '' ? `${name} does not exist\n` : `${name} ${field}\n${prefixed('-', current)}${prefixed('+', wanted)}`,
    )
    .join('')
  session.printValue(found, text)
  return found.length === 0 ? exitCodes.ok : exitCodes.changes
}

function prefixed(sign: string, value: JsonValue): string {
  return stringify(value)
    .trimEnd()
    .split('\n')
    .map((line) => `${sign} ${line}\n`)
    .join('')
}
