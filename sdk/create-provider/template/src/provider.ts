import {
  defineProvider,
  ProviderError,
  type Context,
  type MachineSpec,
  type ObservedMachine,
  type Violation,
  type WorkContext,
} from '@slipway/sdk'
import { Client, type ServerType } from './client.js'
import { configSchema, credentialsSchema, dataSchema, type Config, type Credentials, type Data } from './config.js'
import { keyLabel, observedOf, offeringOf, orderOf, ownedOf } from './map.js'

type Ctx = Context<Config, Credentials>
type Work = WorkContext<Config, Credentials>

/** The longest that a create can be under way without having happened: the client's own time-out, and some more. */
const effectTimeoutMs = 15_000
const pace = { initialDelayMs: 200, maxDelayMs: 5_000 }

/** The provider of the family my-cloud. */
export const provider = defineProvider<Config, Credentials, Data>({
  family: 'my-cloud',
  kind: 'dynamic',
  version: '0.1.0',
  config: configSchema,
  credentials: credentialsSchema,
  data: dataSchema,
  effectTimeoutMs,
  // Tests are in more of a hurry than clouds should be asked to be.
  listIntervalMs: Number(process.env['LIST_INTERVAL_MS'] ?? 30_000),
  offeringsIntervalMs: Number(process.env['LIST_INTERVAL_MS'] ?? 60_000),

  async check(context) {
    await clientOf(context).types(context.signal)
  },
  async validate(context, spec) {
    return violationsOf(await clientOf(context).types(context.signal), context.config, spec)
  },
  async offerings(context) {
    return (await clientOf(context).types(context.signal)).map((type) => offeringOf(type, context.config))
  },
  create: createServer,
  async observe(context, externalId) {
    const server = await clientOf(context).get(externalId, context.signal)
    return server && observedOf(server)
  },
  delete: deleteServers,
  async *list(context) {
    for await (const server of clientOf(context).list(undefined, context.signal)) {
      const owned = ownedOf(server)
      if (owned !== undefined) yield owned
    }
  },
  async power(context, externalId, wish) {
    // The SDK looks until the power is seen as it was wished.
    await clientOf(context).power(externalId, wish, context.signal)
  },
})

function clientOf({ config, credentials }: Ctx): Client {
  return new Client(config, credentials)
}

/** The servers of a request: those that carry its key, and no others, whatever they are called. */
function ownServers(context: Ctx, ownershipKey: string, signal = context.signal) {
  return clientOf(context).list(`${keyLabel}=${ownershipKey}`, signal)
}

/** Makes a server. It may be called again at any time, by any instance, with the steps that are stored so far. */
async function createServer(context: Work, spec: MachineSpec<Data>): Promise<ObservedMachine> {
  const client = clientOf(context)
  const id = await context.step('create-server', {
    // Asked before `run` wherever an earlier try may have been lost.
    find: async (signal) => {
      for await (const server of ownServers(context, spec.ownershipKey, signal))
        if (server.status !== 'deleting') return server.id
      return undefined
    },
    run: async (signal) => (await client.create(orderOf(spec, context.config), signal)).id,
  })
  // Before anything is waited for: whoever goes on must know it.
  await context.report({ externalId: id })
  const server = await context.poll(
    async (signal) => {
      const seen = await client.get(id, signal)
      if (seen === undefined) throw new ProviderError('INTERNAL', `server ${id} has vanished`, { retryable: false })
      if (seen.status === 'failed')
        throw new ProviderError('INTERNAL', `the cloud could not start server ${id}`, { retryable: false })
      return seen.status === 'creating' ? undefined : seen
    },
    { ...pace, timeoutMs: context.config.createTimeoutMs, what: `server ${id} to run` },
  )
  return observedOf(server)
}

/** Deletes all that a request has brought into being, and returns when it was seen to be gone. Missing is success. */
async function deleteServers(context: Work, { ownershipKey }: { readonly ownershipKey: string }): Promise<void> {
  const client = clientOf(context)
  for await (const { id } of ownServers(context, ownershipKey)) await client.delete(id, context.signal)
  const areGone = async (): Promise<true | undefined> => {
    for await (const _left of ownServers(context, ownershipKey)) return undefined
    return true
  }
  await context.poll(areGone, { ...pace, what: 'the servers of the request to be gone' })
}

/** What is wrong with an order, before it costs money. */
function violationsOf(types: readonly ServerType[], config: Config, spec: MachineSpec<Data>): Violation[] {
  const violations: Violation[] = []
  const add = (field: string, description: string) => violations.push({ field, description })
  const type = types.find(({ id }) => id === spec.typeId)
  if (type === undefined)
    add('spec.type_id', `there is no type ${spec.typeId}; take one of ${types.map(({ id }) => id).join(', ')}`)
  else if (!type.images.includes(spec.data.image))
    add('spec.provider_data.image', `there is no image ${spec.data.image}; take one of ${type.images.join(', ')}`)
  if (spec.location !== config.location)
    add('spec.location', `this provider serves ${config.location} and not "${spec.location}"`)
  return violations
}
