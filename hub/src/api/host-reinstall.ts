import { create, fromBinary } from '@bufbuild/protobuf'
import type { HandlerContext } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { makeBootstrapSecrets } from '../auth/bootstrap-secrets.js'
import type { HubError } from '../domain/error/errors.js'
import { riseConditions } from '../domain/host/conditions.js'
import { moveToReinstall, type ReinstallView } from '../domain/host/reinstall.js'
import { hostName, parseHostName } from '../domain/names.js'
import { layProviderData } from '../domain/placement/placement.js'
import type { Tx } from '../store/database.js'
import { appendEvents, type Cause } from '../store/events.js'
import {
  findHostOnMachine,
  findHostUserData,
  lockHostOnMachine,
  storeReinstall,
  type HostOnMachine,
} from '../store/host-reinstall.js'
import { findAnswer } from '../store/idempotency.js'
import { findProvider } from '../store/providers.js'
import type { HostRow, ProviderRow } from '../store/tables.js'
import { causeOf, checkEtag, createOnce, databaseOf, idempotencyKey, mayChangeHost, type ApiDeps } from './context.js'
import { fromObject } from './convert.js'
import { checkWithProvider } from './provider-check.js'
import { toHost } from './resources.js'

const asked = 'A reinstall was asked for'

/** Puts a new system on a host's machine: everything that can be checked is checked first, and then the wish is stored. */
export async function reinstallHost(
  deps: ApiDeps,
  context: HandlerContext,
  request: hub.ReinstallHostRequest,
  notFound: (name: string) => HubError,
): Promise<hub.ReinstallHostResponse> {
  const { workspace, id } = parseHostName(request.name)
  const keyed = {
    requestId: request.requestId,
    request: { schema: hub.ReinstallHostRequestSchema, message: request },
  }
  const key = idempotencyKey(deps, context, keyed)
  // Asked before anything is checked: what was accepted once stays so, whatever has become of the host since.
  const own = databaseOf(deps, context)
  const before = key === undefined || request.validateOnly ? undefined : await findAnswer(own, key)
  if (before !== undefined) return fromBinary(hub.ReinstallHostResponseSchema, before)
  // A tenant sees the host, and what is beneath it; its work, and its provider, are the hub's.
  const seen = await findHostOnMachine(own, workspace, id)
  if (seen === undefined || !(await mayChangeHost(deps, context, { workspace, id }))) throw notFound(request.name)
  checkEtag(request.etag, seen.host, request.name)
  const provider = await providerOf(deps, seen)
  moveToReinstall(viewOf(seen, provider))
  const warnings = await askProvider(deps, seen, provider, request)
  if (request.validateOnly) return create(hub.ReinstallHostResponseSchema, { host: toHost(seen.host), warnings })
  return createOnce(deps, context, {
    ...keyed,
    db: deps.db,
    response: hub.ReinstallHostResponseSchema,
    wake: [{ kind: 'host' }, ...(provider === undefined ? [] : [{ kind: 'work' as const, providerId: provider.id }])],
    work: async (tx) => {
      const locked = await lockHostOnMachine(tx, workspace, id)
      if (locked === undefined || locked.host.id !== seen.host.id) throw notFound(request.name)
      checkEtag(request.etag, locked.host, request.name)
      const host = await wish(deps, tx, locked, provider, request, causeOf(context))
      return create(hub.ReinstallHostResponseSchema, { host: toHost(host), warnings })
    },
  })
}

async function providerOf(deps: ApiDeps, { host }: HostOnMachine): Promise<ProviderRow | undefined> {
  return host.provider_name === null ? undefined : findProvider(deps.db, host.provider_name)
}

function viewOf({ host, request, machine }: HostOnMachine, provider: ProviderRow | undefined): ReinstallView {
  return {
    host,
    provider: provider ?? null,
    request:
      request === undefined
        ? null
        : {
            state: request.state,
            operation: request.operation,
            desiredPresence: request.desired_presence,
            presence: request.presence,
            externalId: request.external_id,
          },
    machine: machine ?? null,
  }
}

async function askProvider(
  deps: ApiDeps,
  { host, request: of }: HostOnMachine,
  provider: ProviderRow | undefined,
  request: hub.ReinstallHostRequest,
): Promise<string[]> {
  if (provider === undefined || of === undefined) return []
  const order = {
    typeId: of.type_id,
    location: of.location,
    shape: of.spec.shape,
    providerData: layProviderData(of.spec.providerData, fromObject(request.providerData)),
    hostname: of.spec.hostname,
    hostName: hostName(host.workspace_name, host.name),
    workspace: host.workspace_name,
    machineClass: host.class_name,
    labels: host.labels,
    sshPublicKeys: host.ssh_public_keys,
    reinstall: { externalId: of.external_id ?? '', providerData: of.spec.providerData },
  }
  return checkWithProvider(deps, provider, order, '')
}

async function wish(
  deps: ApiDeps,
  tx: Tx,
  locked: HostOnMachine,
  provider: ProviderRow | undefined,
  request: hub.ReinstallHostRequest,
  cause: Cause,
): Promise<HostRow> {
  const moves = moveToReinstall(viewOf(locked, provider))
  const { host, request: of } = locked
  if (of === undefined) throw new Error(`host ${host.name} has no machine request to reinstall`)
  const { bootstrap } = host.class_spec
  const now = new Date()
  const given = fromObject(request.providerData)
  const userData = await userDataOf(deps, tx, host, request.userData)
  const moved = await storeReinstall(tx, locked, {
    moves,
    hostData: layProviderData(host.provider_data, given),
    requestData: layProviderData(of.spec.providerData, given),
    userDataSealed: sealGiven(deps, host, request.userData),
    secrets: makeBootstrapSecrets(deps.keyring, {
      requestId: of.id,
      hostname: host.hostname,
      bootstrap,
      userData,
      publicUrl: deps.publicUrl(),
      now,
    }),
    conditions: riseConditions(
      host.conditions,
      { reached: 'Created', reason: 'Provisioning', message: asked, phoneHome: bootstrap.phoneHome },
      now,
    ),
    message: asked,
  })
  await appendEvents(tx, cause, [
    {
      subject: hostName(host.workspace_name, host.name),
      related: [`machineRequests/${of.name}`, `providers/${of.provider_name}`],
      reason: 'HostReinstalling',
      message: changesOf(request),
      severity: 'INFO',
      organizationId: host.organization_id,
      providerId: of.provider_id,
    },
  ])
  return moved
}

/** What the new system is set up with: what is given now, else what the order brought along, else what its class says. */
async function userDataOf(deps: ApiDeps, tx: Tx, host: HostRow, given: string | undefined): Promise<string> {
  const ofClass = host.class_spec.bootstrap.userData
  if (given !== undefined) return given === '' ? ofClass : given
  const sealed = await findHostUserData(tx, host)
  return sealed === undefined ? ofClass : deps.keyring.open('host.user-data', host.id, sealed).toString('utf8')
}

function sealGiven(deps: ApiDeps, host: HostRow, given: string | undefined): Buffer | null | undefined {
  if (given === undefined) return undefined
  return given === '' ? null : deps.keyring.seal('host.user-data', host.id, given)
}

/** Keys alone: values are the tenant's own, and user-data may hold secrets. */
function changesOf(request: hub.ReinstallHostRequest): string {
  const keys = Object.keys(fromObject(request.providerData))
  const changes = [...keys, ...(request.userData === undefined ? [] : ['user-data'])]
  return changes.length === 0 ? asked : `${asked}, with other ${changes.join(', ')}`
}
