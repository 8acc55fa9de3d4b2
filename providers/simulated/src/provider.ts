import {
  type DynamicDefinition,
  ProviderError,
  type Context,
  type MachineSpec,
  type ObservedMachine,
  type Offering,
  type OwnedMachine,
  type RescueWish,
  type Violation,
  type WorkContext,
} from '@slipway/sdk'
import { Cloud, type ServerOrder, type ServerView, type TypeView } from './cloud.js'
import type { CloudState } from './cloud-state.js'
import { showConsole } from './console.js'
import {
  cloudConfigSchema,
  cloudDataSchema,
  cloudSimulations,
  credentialsSchema,
  type CloudConfig,
  type CloudData,
  type CloudSimulation,
  type Credentials,
} from './config.js'
import { adoptFunctions } from './adopt.js'
import { isRefusal, toProviderError } from './errors.js'
import { observedOf } from './observed.js'
import { pause } from './pause.js'
import { refuseBeyond, refuseBeyondEffect, type ProviderSettings } from './settings.js'
import type { Worlds } from './worlds.js'

type Ctx = Context<CloudConfig, Credentials>
type Work = WorkContext<CloudConfig, Credentials>

/** Work on one item is waiting for the most part. */
const itemsAtOnce = 50
const pollPace = { initialDelayMs: 100, maxDelayMs: 2_000 }

/** The provider of the simulated cloud: family `simulated`, dynamic. */
export function cloudProvider(
  worlds: Worlds<CloudState>,
  settings: ProviderSettings,
): DynamicDefinition<CloudConfig, Credentials, CloudData> {
  const cloudFor = (context: Ctx) => openCloud(worlds, settings, context)
  return {
    family: 'simulated',
    kind: 'dynamic',
    version: settings.version,
    config: cloudConfigSchema,
    credentials: credentialsSchema,
    data: cloudDataSchema,
    capacity: itemsAtOnce,
    listingLagMs: settings.listingLagMs,
    effectTimeoutMs: settings.effectTimeoutMs,
    listIntervalMs: settings.listIntervalMs,
    offeringsIntervalMs: settings.offeringsIntervalMs,
    ...(settings.apiBudget !== undefined && { budgets: { api: settings.apiBudget } }),

    async check(context) {
      const { listingLagMs, latency, answerTimeoutMs } = context.config
      refuseBeyond('--listing-lag-ms', settings.listingLagMs, 'config.listingLagMs', listingLagMs)
      refuseBeyondEffect(settings, latency.create, answerTimeoutMs)
      worlds.open(settings.worldFor(context.config.world), context.log).noteConfig(context.config)
      await cloudFor(context).listTypes(context.signal)
    },
    async validate(context, spec, reinstall) {
      if (reinstall !== undefined) return imageViolations(context.config, spec)
      return violationsOf(await cloudFor(context).listTypes(context.signal), context.config, spec)
    },
    async offerings(context) {
      return (await cloudFor(context).listTypes(context.signal)).map(offeringOf)
    },
    create: (context, spec) => createServer(context, cloudFor(context), spec),
    async observe(context, externalId) {
      const server = await cloudFor(context).getServer(externalId, context.signal)
      return server && observedOf(server)
    },
    delete: (context, machine) => deleteServers(context, cloudFor(context), machine),
    async *list(context) {
      for await (const server of cloudFor(context).listServers({}, context.signal))
        if (server.ownershipKey !== '') yield ownedOf(server)
    },
    power: (context, externalId, wish) => powerServer(context, cloudFor(context), externalId, wish),
    reinstall: (context, machine, spec) => reinstallServer(context, cloudFor(context), machine, spec),
    adopt: adoptFunctions(cloudFor),
    rescue: (context, externalId, wish) => rescueServer(context, cloudFor(context), externalId, wish),
    console(context, { externalId }, wish) {
      const dir = settings.worldFor(context.config.world)
      const isKnown = worlds.open(dir, context.log).settled().servers.has(externalId)
      return showConsole(dir, externalId, isKnown, wish, context.signal)
    },
  }
}

async function createServer(context: Work, cloud: Cloud, spec: MachineSpec<CloudData>): Promise<ObservedMachine> {
  const order = orderOf(spec)
  const { id } = await context.step('create-server', {
    find: (signal) => findServer(cloud, spec.ownershipKey, signal),
    run: (signal) => createOnce(context, cloud, order, signal),
  })
  await context.report({ externalId: id })
  const { actionTimeoutMs, idempotency } = context.config
  const before = await cloud.getServer(id, context.signal)
  if (before?.action.kind === 'create' && before.action.isRunning && before.action.runsForMs > actionTimeoutMs) {
    context.progress('the creation is stuck; starting it anew', 30)
    await cloud.retryCreation(id, context.signal)
  }
  context.progress(`waiting for server ${id} to run`, 50)
  const server = await context.poll(
    async (signal) => {
      const seen = await cloud.getServer(id, signal)
      if (seen === undefined) throw vanished(id)
      if (seen.action.failure !== undefined) throw failed(id, seen.action.failure)
      return seen.status === 'creating' ? undefined : seen
    },
    { ...pollPace, timeoutMs: actionTimeoutMs, what: `the creation of server ${id}` },
  )
  // Where nothing out there prevents a second server, a lost answer may have left one.
  if (idempotency === 'none') await removeExtras(context, cloud, spec.ownershipKey, id)
  return observedOf(server)
}

async function createOnce(
  context: Work,
  cloud: Cloud,
  order: ServerOrder,
  signal: AbortSignal,
): Promise<{ id: string }> {
  try {
    return { id: await cloud.createServer(order, signal) }
  } catch (thrown) {
    if (!isRefusal(thrown, 'name-taken')) throw thrown
    // Taken by ourselves, most likely: by an earlier create that no listing shows yet.
    const deadlineMs = performance.now() + context.config.listingLagMs
    for (;;) {
      const isLate = performance.now() >= deadlineMs
      const found = await findServer(cloud, order.ownershipKey, signal)
      if (found !== undefined) return found
      if (isLate) throw thrown
      await pause(100, signal)
    }
  }
}

/** The oldest server with a key, so that all who look agree. */
async function findServer(
  cloud: Cloud,
  ownershipKey: string,
  signal: AbortSignal,
): Promise<{ id: string } | undefined> {
  for await (const { id, status } of cloud.listServers({ ownershipKey }, signal))
    if (status !== 'deleting') return { id }
  return undefined
}

async function removeExtras(context: Work, cloud: Cloud, ownershipKey: string, keepId: string): Promise<void> {
  for await (const { id, status } of cloud.listServers({ ownershipKey }, context.signal)) {
    if (id === keepId || status === 'deleting') continue
    context.log.warn({ server: id, kept: keepId }, 'removing a second server of the same request')
    await cloud.deleteServer(id, context.signal)
  }
}

async function deleteServers(
  context: Work,
  cloud: Cloud,
  { externalId, ownershipKey }: { readonly externalId?: string; readonly ownershipKey: string },
): Promise<void> {
  const { signal } = context
  const ids = new Set(externalId === undefined ? [] : [externalId])
  for await (const { id } of cloud.listServers({ ownershipKey }, signal)) ids.add(id)
  for (const id of ids) {
    context.progress(`deleting server ${id}`)
    await cloud.deleteServer(id, signal)
  }
  for (const id of ids) {
    const isGone = async () => ((await cloud.getServer(id, signal)) === undefined ? true : undefined)
    await context.poll(isGone, {
      ...pollPace,
      timeoutMs: context.config.actionTimeoutMs,
      what: `the deletion of server ${id}`,
    })
  }
}

async function powerServer(context: Work, cloud: Cloud, id: string, wish: 'on' | 'off' | 'reboot'): Promise<void> {
  await cloud.powerServer(id, wish, context.signal)
  await powerIsSwitched(context, cloud, id, `power ${wish}`)
}

async function powerIsSwitched(context: Work, cloud: Cloud, id: string, what: string): Promise<void> {
  const isDone = async (signal: AbortSignal) => {
    const server = await cloud.getServer(id, signal)
    if (server === undefined) throw vanished(id)
    return server.action.isRunning ? undefined : true
  }
  const { actionTimeoutMs } = context.config
  await context.poll(isDone, { ...pollPace, timeoutMs: actionTimeoutMs, what: `${what} of server ${id}` })
}

async function reinstallServer(
  context: Work,
  cloud: Cloud,
  { externalId: id, reinstall: mark }: { readonly externalId: string; readonly reinstall: number },
  spec: MachineSpec<CloudData>,
): Promise<ObservedMachine> {
  const { image, boot, sshPublicKeys, simulate } = orderOf(spec)
  const order = {
    mark,
    image,
    ...(sshPublicKeys !== undefined && { sshPublicKeys }),
    ...(boot !== undefined && { boot }),
    ...(simulate !== undefined && { simulate }),
  }
  await context.step('reinstall-server', {
    find: async (signal) => ((await cloud.getServer(id, signal))?.mark === mark ? { mark } : undefined),
    run: async (signal) => {
      await cloud.reinstallServer(id, order, signal)
      return { mark }
    },
  })
  const { actionTimeoutMs } = context.config
  const before = (await cloud.getServer(id, context.signal))?.action
  const isStuck = before?.isRunning === true && before.runsForMs > actionTimeoutMs
  if (before?.kind === 'reinstall' && (isStuck || before.failure !== undefined)) {
    context.progress('the reinstall went wrong; starting it anew', 30)
    await cloud.reinstallServer(id, order, context.signal)
  }
  context.progress(`waiting for server ${id} to run ${image}`, 50)
  const server = await context.poll(
    async (signal) => {
      const seen = await cloud.getServer(id, signal)
      if (seen === undefined) throw vanished(id)
      if (seen.status === 'failed') throw reinstallFailed(id, seen.action.failure ?? 'it does not start')
      return seen.status === 'reinstalling' ? undefined : seen
    },
    { ...pollPace, timeoutMs: actionTimeoutMs, what: `the reinstall of server ${id}` },
  )
  return observedOf(server)
}

async function rescueServer(context: Work, cloud: Cloud, id: string, wish: RescueWish): Promise<void> {
  await cloud.rescueServer(id, wish.enabled ? [...wish.sshKeys, ...wish.sshPublicKeys] : undefined, context.signal)
  await powerIsSwitched(context, cloud, id, wish.enabled ? 'the rescue system' : 'its own system')
}

function openCloud(worlds: Worlds<CloudState>, settings: ProviderSettings, context: Ctx): Cloud {
  const world = worlds.open(settings.worldFor(context.config.world), context.log)
  return new Cloud(world, context.config, {
    apiToken: context.credentials.apiToken,
    failure: toProviderError,
    ...(settings.apiBudget !== undefined && { beforeCall: () => context.budget('api') }),
  })
}

function violationsOf(offered: readonly TypeView[], config: CloudConfig, spec: MachineSpec<CloudData>): Violation[] {
  const { typeId, location } = spec
  const places = offered.filter(({ type }) => type.id === typeId).map((entry) => entry.location)
  const violations: Violation[] = []
  if (places.length === 0) {
    const types = [...new Set(offered.map(({ type }) => type.id))]
    violations.push({
      field: 'spec.type_id',
      description: `there is no type ${typeId}; choose one of ${types.join(', ')}`,
    })
  } else if (!places.includes(location)) {
    const description = `${typeId} is not to be had in "${location}"; choose one of ${places.join(', ')}`
    violations.push({ field: 'spec.location', description })
  }
  return [...violations, ...imageViolations(config, spec)]
}

function imageViolations({ images }: CloudConfig, { data }: MachineSpec<CloudData>): Violation[] {
  if (images.includes(data.image)) return []
  const description = `there is no image ${data.image}; choose one of ${images.join(', ')}`
  return [{ field: 'spec.provider_data.image', description }]
}

function orderOf({ name, ownershipKey, typeId, location, data, bootstrap, host }: MachineSpec<CloudData>): ServerOrder {
  const labelled = cloudSimulations.find((simulation) => simulation === host.labels['simulate'])
  const simulate: CloudSimulation | undefined = data.simulate ?? labelled
  const { hostname, phoneHomeUrl, phoneHomeToken: token, sshPublicKeys } = bootstrap
  return {
    name,
    ownershipKey,
    type: typeId,
    location,
    image: data.image,
    ...(sshPublicKeys.length > 0 && { sshPublicKeys }),
    labels: { ...host.labels, host: host.host, workspace: host.workspace, class: host.machineClass },
    ...(phoneHomeUrl !== '' && { boot: { hostname, phoneHomeUrl, token } }),
    ...(simulate !== undefined && { simulate }),
    ...(data.vanishAfterMs !== undefined && { vanishAfterMs: data.vanishAfterMs }),
  }
}

function ownedOf(server: ServerView): OwnedMachine {
  return { ...observedOf(server), ownershipKey: server.ownershipKey, name: server.name, kind: 'server' }
}

function offeringOf({ type, location, remaining }: TypeView): Offering {
  const { id, vcpus, memoryMib, diskGib, diskClass, architecture, price } = type
  return {
    typeId: id,
    location,
    shape: { vcpus, memoryMib, diskGib, diskClass, architecture },
    available: remaining !== 0,
    ...(remaining !== undefined && { remaining }),
    ...(price !== undefined && {
      price: {
        currency: price.currency,
        hourlyMicros: BigInt(price.hourlyMicros),
        ...(price.monthlyMicros !== undefined && { monthlyMicros: BigInt(price.monthlyMicros) }),
        ...(price.setupMicros !== undefined && { setupMicros: BigInt(price.setupMicros) }),
      },
    }),
  }
}

/** Trying again finds the same stored id, and nothing behind it: only a new request helps. */
function vanished(id: string): ProviderError {
  return new ProviderError('INTERNAL', `server ${id} has vanished`, { retryable: false, externalCode: 'not-found' })
}

/** The next try starts it anew: what is on the disk is lost anyway. */
function reinstallFailed(id: string, why: string): ProviderError {
  return new ProviderError('INTERNAL', `the reinstall of server ${id} failed: ${why}`, {
    externalCode: 'reinstall-failed',
  })
}

function failed(id: string, why: string): ProviderError {
  return new ProviderError('INTERNAL', `the creation of server ${id} failed: ${why}`, {
    retryable: false,
    externalCode: 'creation-failed',
  })
}
