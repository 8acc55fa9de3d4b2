import { ProviderError, type DynamicDefinition, type MachineSpec, type Violation } from '@slipway/sdk'
import { adoptFunctions } from './adopt.js'
import { answer, type Api } from './api/client.js'
import { isApiError } from './api/errors.js'
import { Clouds, type Ctx } from './cloud.js'
import { configSchema, credentialsSchema, dataSchema, type Config, type Credentials, type Data } from './config.js'
import { createServer } from './create.js'
import { deleteMachine } from './delete.js'
import { listOwned } from './list.js'
import { observedOf } from './observed.js'
import { locationsOf, offeringsOf } from './offerings.js'
import { planServer } from './order.js'
import { switchPower } from './power.js'
import { reinstallServer, reinstallViolations } from './reinstall.js'
import { switchRescue } from './rescue.js'
import type { Settings } from './settings.js'

/** Work on one item is waiting for the most part. */
const itemsAtOnce = 50
/** An id that no thing has: what is asked of it is refused, one way or another. */
const nobody = Number.MAX_SAFE_INTEGER

/** The provider of a project of the Hetzner Cloud. */
export function hetznerCloudProvider(settings: Settings): DynamicDefinition<Config, Credentials, Data> {
  const clouds = new Clouds()
  return {
    family: 'hetzner-cloud',
    kind: 'dynamic',
    version: '0.1.0',
    config: configSchema,
    credentials: credentialsSchema,
    data: dataSchema,
    capacity: itemsAtOnce,
    ...settings,

    rateBudgets: () => [clouds.rateBudget],
    check: (context) => check(context, clouds, settings),
    validate: (context, spec, reinstall) =>
      reinstall === undefined
        ? validate(context, clouds, spec)
        : reinstallViolations(context, clouds.for(context), spec, { ...reinstall, id: idOf(reinstall.externalId) }),
    async offerings(context) {
      const offer = await clouds.for(context).catalogue.offer(context.signal)
      return offeringsOf(offer, context.config, Date.now())
    },
    create: (context, spec) => createServer(context, clouds.for(context), spec, settings),
    async observe(context, externalId) {
      const server = await clouds.for(context).server(idOf(externalId), 'normal', context.signal)
      return server && observedOf(server)
    },
    delete: (context, machine) => deleteMachine(context, clouds.for(context), machine),
    list: (context) => listOwned(clouds.for(context), context.signal),
    power: (context, externalId, wish) => switchPower(context, clouds.for(context), idOf(externalId), wish),
    reinstall: (context, { externalId }, spec) => reinstallServer(context, clouds.for(context), idOf(externalId), spec),
    adopt: adoptFunctions((context) => clouds.for(context)),
    rescue: (context, externalId, wish) => switchRescue(context, clouds.for(context), idOf(externalId), wish),
  }
}

/** Proves that the token may read and write, and that the configuration names locations that there are. */
async function check(context: Ctx, clouds: Clouds, { effectTimeoutMs }: Settings): Promise<void> {
  const { config, signal } = context
  if (2 * config.callTimeoutMs > effectTimeoutMs)
    refuse(
      `config.callTimeoutMs: a call may take ${config.callTimeoutMs} ms, and this process declares that a create takes ${effectTimeoutMs} ms: ` +
        `start it with --effect-timeout-ms of at least twice as much, or set less`,
    )
  const client = clouds.for(context).api.as('urgent')
  const { locations } = await answer(client.GET('/locations', { params: { query: { per_page: 50 } }, signal }))
  const known = locations.map(({ name }) => name)
  const unknown = config.locations?.filter((name) => !known.includes(name)) ?? []
  if (unknown.length > 0) refuse(`config.locations: there is no ${unknown.join(', ')}: choose of ${known.join(', ')}`)
  if (locationsOf({ locations }, config).length === 0)
    refuse(
      `config.networkZone: no location is in ${config.networkZone}: choose one of ${[...new Set(locations.map((each) => each.network_zone))].join(', ')}`,
    )
  await mayWrite(client, signal)
}

/** There is no call that tells a token's rights. This one would change nothing even if there were such a thing. @throws ProviderError of code CREDENTIALS. */
async function mayWrite(client: ReturnType<Api['as']>, signal: AbortSignal): Promise<void> {
  try {
    await answer(client.PUT('/placement_groups/{id}', { params: { path: { id: nobody } }, body: {}, signal }))
  } catch (thrown) {
    if (!isApiError(thrown, 'not_found')) throw thrown
  }
}

async function validate(context: Ctx, clouds: Clouds, spec: MachineSpec<Data>): Promise<readonly Violation[]> {
  const cloud = clouds.for(context)
  const { name, ownershipKey } = spec
  const [planned, named] = await Promise.all([
    planServer(cloud, context.config, spec, context.signal),
    // Before there is a request there is no name either.
    name === '' ? undefined : cloud.serverNamed(name, ownershipKey, 'normal', context.signal),
  ])
  const violations = 'violations' in planned ? planned.violations : []
  if (named !== 'foreign') return violations
  const description = `the project has a server ${name} already, which is not ours`
  return [...violations, { field: 'spec.name', description }]
}

/** @throws ProviderError for what was never an id of ours. */
function idOf(externalId: string): number {
  if (/^[1-9]\d{0,15}$/.test(externalId)) return Number(externalId)
  throw new ProviderError('INTERNAL', `"${externalId}" is no id of a server`, { retryable: false })
}

function refuse(message: string): never {
  throw new ProviderError('INVALID_SPEC', message, { retryable: false })
}
