import { isDeepStrictEqual } from 'node:util'
import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft, JsonObject } from '../domain/facts.js'
import { parseResourceName, parseSecretName, secretName } from '../domain/names.js'
import { parseLabelSelector } from '../domain/selector.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import { lockUsers, rotateUsers } from '../store/provider-credentials.js'
import {
  addSecretVersion,
  deleteSecret,
  destroyUnneededVersions,
  findSecret,
  insertSecret,
  listSecrets,
  lockSecret,
  openSecret,
  readSecretDetails,
  updateSecret,
  type SecretContent,
  type ShownSecret,
} from '../store/secrets.js'
import type { ProviderRow } from '../store/tables.js'
import { findOrganization } from '../store/tenancy.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  decodePageToken,
  maskedPaths,
  organizationFilter,
  pageSize,
  readPage,
  requireOrganization,
  visibleOrganizations,
  type ApiDeps,
} from './context.js'
import { checkedLabels, fromObject } from './convert.js'
import { RolledBack, rolledBack } from './dry-run.js'
import { checkAgainstSchema } from './provider-data.js'
import { organizationNotFound } from './not-found.js'
import { secretInUse, secretNotFound, toSecret } from './secret-resources.js'

const mutable = ['description', 'data', 'labels', 'annotations'] as const
/** Of the document, as JSON. */
const maxDataBytes = 256 * 1024

function event(row: ShownSecret, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: secretName(row.organization_name, row.name),
    reason,
    message,
    severity: 'INFO',
    organizationId: row.organization_id,
  }
}

function contentOf(given: hub.Secret): SecretContent {
  return {
    description: given.description,
    labels: checkedLabels(given.labels, 'secret.labels'),
    annotations: given.annotations,
  }
}

/** @throws HubError INVALID_FIELD. */
function dataOf(given: hub.Secret): JsonObject {
  const data = fromObject(given.data)
  if (Object.keys(data).length === 0) throw invalidField('secret.data', 'is missing; give at least one key')
  if (Buffer.byteLength(JSON.stringify(data)) > maxDataBytes)
    throw invalidField('secret.data', `is over ${maxDataBytes} bytes; keep what is large elsewhere`)
  return data
}

/** Whether the current version holds this already. Told apart here, because nobody can read it to tell. */
async function holdsAlready(deps: ApiDeps, tx: Tx, row: ShownSecret, data: JsonObject): Promise<boolean> {
  return isDeepStrictEqual(await openSecret(tx, deps.keyring, row, row.current_version), data)
}

/** @throws HubError PROVIDER_CONFIG_INVALID where a provider that uses a locked secret would not take this. */
async function checkWithUsers(tx: Tx, row: ShownSecret, data: JsonObject): Promise<void> {
  for (const { row: provider } of await lockUsers(tx, row)) {
    checkAgainstSchema(provider.credentials_schema, data, {
      field: 'secret.data',
      reason: 'PROVIDER_CONFIG_INVALID',
      provider: provider.name,
      known: provider.state !== 'PENDING' || provider.credentials_schema !== '',
    })
  }
}

/** Stores a new version of a locked secret and has its users use it. @returns the secret as it is now, and its users. */
async function rotate(
  deps: ApiDeps,
  tx: Tx,
  row: ShownSecret,
  data: JsonObject,
  cause: ReturnType<typeof causeOf>,
): Promise<{ readonly secret: ShownSecret; readonly users: readonly ProviderRow[] }> {
  await checkWithUsers(tx, row, data)
  const secret = await addSecretVersion(tx, deps.keyring, row, data, cause.actor)
  const users = await rotateUsers(tx, deps.keyring, secret)
  await destroyUnneededVersions(tx, [secret.id])
  const told = users.length === 0 ? '' : `, on its way to ${users.map((user) => user.name).join(', ')}`
  await appendEvents(tx, cause, [
    event(secret, 'SecretRotated', `Version ${secret.current_version}${told}`),
    ...users.map((user): EventDraft => ({
      subject: `providers/${user.name}`,
      related: [secretName(secret.organization_name, secret.name)],
      reason: 'ProviderUpdated',
      message: `Changed: configuration version ${user.config_version}, version ${secret.current_version} of its secret`,
      severity: 'INFO',
      providerId: user.id,
    })),
  ])
  return { secret, users }
}

async function withDetails(deps: ApiDeps, rows: readonly ShownSecret[]): Promise<hub.Secret[]> {
  const details = await readSecretDetails(deps.db, rows)
  return rows.map((row) => toSecret(row, details.get(row.id)))
}

async function createSecret(
  deps: ApiDeps,
  request: hub.CreateSecretRequest,
  context: HandlerContext,
): Promise<hub.CreateSecretResponse> {
  const organization = parseResourceName('organization', request.parent, 'parent')
  const given = request.secret ?? create(hub.SecretSchema)
  const [content, data] = [contentOf(given), dataOf(given)]
  await requireOrganization(deps, context, organization, () => organizationNotFound(organization))
  const cause = causeOf(context)
  const work = async (tx: Tx) => {
    const organizationId = (await findOrganization(tx, organization))?.id
    if (organizationId === undefined) throw organizationNotFound(organization)
    if ((await findSecret(tx, organization, request.secretId)) !== undefined)
      throw new HubError('NAME_TAKEN', `secret_id: ${request.secretId} is in use; choose another name`, {
        violations: [{ field: 'secret_id', description: 'is in use; choose another name' }],
      })
    const row = await insertSecret(tx, deps.keyring, {
      ...content,
      ...{ organizationId, organizationName: organization, name: request.secretId, data, createdBy: cause.actor },
    })
    await appendEvents(tx, cause, [event(row, 'SecretCreated', 'Stored')])
    const details = await readSecretDetails(tx, [row])
    return create(hub.CreateSecretResponseSchema, { secret: toSecret(row, details.get(row.id)) })
  }
  if (request.validateOnly)
    return inTransaction(deps.db, async (tx) => {
      throw new RolledBack(await work(tx))
    }).catch(rolledBack<hub.CreateSecretResponse>)
  return createOnce(deps, context, {
    requestId: request.requestId,
    request: { schema: hub.CreateSecretRequestSchema, message: request },
    response: hub.CreateSecretResponseSchema,
    wake: [],
    db: deps.db,
    work,
  })
}

async function changeSecret(
  deps: ApiDeps,
  request: hub.UpdateSecretRequest,
  context: HandlerContext,
): Promise<hub.UpdateSecretResponse> {
  const given = request.secret ?? create(hub.SecretSchema)
  const { organization, id } = parseSecretName(given.name, 'secret.name')
  const paths = maskedPaths(request.updateMask?.paths, mutable)
  const sets = paths.has('data') && (given.data !== undefined || request.updateMask !== undefined)
  const data = sets ? dataOf(given) : undefined
  const content = contentOf(given)
  await requireOrganization(deps, context, organization, () => secretNotFound(given.name, 'secret.name'))
  const cause = causeOf(context)
  const { row, users } = await inTransaction(deps.db, async (tx) => {
    const locked = await lockSecret(tx, organization, id, 'change')
    if (locked === undefined) throw secretNotFound(given.name, 'secret.name')
    checkEtag(given.etag, locked, given.name)
    const isNew = data !== undefined && !(await holdsAlready(deps, tx, locked, data))
    if (request.validateOnly) {
      if (!isNew) return { row: locked, users: [] }
      await checkWithUsers(tx, locked, data)
      return {
        row: { ...locked, current_version: locked.current_version + 1, version: locked.version + 1 },
        users: [],
      }
    }
    const updated = await updateSecret(tx, locked, {
      description: paths.has('description') ? content.description : locked.description,
      labels: paths.has('labels') ? content.labels : locked.labels,
      annotations: paths.has('annotations') ? content.annotations : locked.annotations,
    })
    if (updated.version !== locked.version)
      await appendEvents(tx, cause, [event(updated, 'SecretUpdated', 'Changed; what it holds is the same')])
    if (!isNew) return { row: updated, users: [] }
    const rotated = await rotate(deps, tx, updated, data, cause)
    return { row: rotated.secret, users: rotated.users }
  })
  deps.wake.signal(...users.map((user) => ({ kind: 'provider' as const, providerId: user.id })), { kind: 'change' })
  const [secret] = await withDetails(deps, [row])
  return create(hub.UpdateSecretResponseSchema, secret === undefined ? {} : { secret })
}

export function secretService(deps: ApiDeps): ServiceImpl<typeof hub.SecretService> {
  return {
    createSecret: (request, context) => createSecret(deps, request, context),

    async getSecret(request, context) {
      const { organization, id } = parseSecretName(request.name)
      await requireOrganization(deps, context, organization, () => secretNotFound(request.name))
      const row = await findSecret(deps.db, organization, id)
      if (row === undefined) throw secretNotFound(request.name)
      const [secret] = await withDetails(deps, [row])
      return secret === undefined ? {} : { secret }
    },

    async listSecrets(request, context) {
      const organization = organizationFilter(request.parent)
      const labelSelector = request.filter?.labelSelector ?? ''
      parseLabelSelector(labelSelector)
      if (organization !== '')
        await requireOrganization(deps, context, organization, () => organizationNotFound(organization))
      const filter = {
        organization: organization === '' ? undefined : organization,
        organizationIds: await visibleOrganizations(deps, context),
        labelSelector,
      }
      const list = JSON.stringify(['secrets', organization, labelSelector])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        db: deps.db,
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) =>
          listSecrets(tx, filter, after === undefined ? undefined : [String(after[0]), String(after[1])], limit),
        keyOf: (row) => [row.organization_name, row.name],
      })
      return { secrets: await withDetails(deps, page.rows), nextPageToken: page.nextPageToken }
    },

    updateSecret: (request, context) => changeSecret(deps, request, context),

    async deleteSecret(request, context) {
      const { organization, id } = parseSecretName(request.name)
      await requireOrganization(deps, context, organization, () => secretNotFound(request.name))
      await inTransaction(deps.db, async (tx) => {
        const locked = await lockSecret(tx, organization, id, 'change')
        if (locked === undefined) {
          if (request.allowMissing) return
          throw secretNotFound(request.name)
        }
        checkEtag(request.etag, locked, request.name)
        const uses = (await readSecretDetails(tx, [locked])).get(locked.id)?.uses ?? []
        if (uses.length > 0) throw secretInUse(request.name, uses)
        await deleteSecret(tx, locked)
        await appendEvents(tx, causeOf(context), [event(locked, 'SecretDeleted', 'Destroyed with all of its versions')])
      })
      deps.wake.signal({ kind: 'change' })
      return {}
    },
  }
}
