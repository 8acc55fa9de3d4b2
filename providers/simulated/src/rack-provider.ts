import {
  type StaticDefinition,
  ProviderError,
  type Context,
  type DiscoveredMachine,
  type Hardware,
  type MachineSpec,
  type ObservedMachine,
  type StaticMachine,
  type WorkContext,
} from '@slipway/sdk'
import { showConsole } from './console.js'
import {
  credentialsSchema,
  rackConfigSchema,
  rackDataSchema,
  rackSimulations,
  type Credentials,
  type RackConfig,
  type RackData,
} from './config.js'
import { toProviderError } from './errors.js'
import { Rack, type HostOrder, type MachineView } from './rack.js'
import type { RackState } from './rack-state.js'
import { refuseBeyondEffect, type ProviderSettings } from './settings.js'
import type { Worlds } from './worlds.js'

type Ctx = Context<RackConfig, Credentials>
type Work = WorkContext<RackConfig, Credentials>

/** Work on one item is waiting for the most part. */
const itemsAtOnce = 50
const pollPace = { initialDelayMs: 100, maxDelayMs: 2_000 }

/** The provider of the simulated rack: family `simulated-rack`, static. */
export function rackProvider(
  worlds: Worlds<RackState>,
  settings: ProviderSettings,
): StaticDefinition<RackConfig, Credentials, RackData> {
  const rackFor = (context: Ctx) => openRack(worlds, settings, context)
  return {
    family: 'simulated-rack',
    kind: 'static',
    version: settings.version,
    config: rackConfigSchema,
    credentials: credentialsSchema,
    data: rackDataSchema,
    capacity: itemsAtOnce,
    effectTimeoutMs: settings.effectTimeoutMs,
    listIntervalMs: settings.listIntervalMs,
    ...(settings.apiBudget !== undefined && { budgets: { api: settings.apiBudget } }),

    async check(context) {
      refuseBeyondEffect(settings, context.config.latency, context.config.answerTimeoutMs)
      worlds.open(settings.worldFor(context.config.world), context.log).noteConfig(context.config)
      await rackFor(context).ping(context.signal)
    },
    async validate({ config }, { data }) {
      if (config.images.includes(data.image)) return []
      const description = `there is no image ${data.image}; choose one of ${config.images.join(', ')}`
      return [{ field: 'spec.provider_data.image', description }]
    },
    async *discover(context) {
      for (const machine of await rackFor(context).listMachines(context.signal)) yield discoveredOf(machine)
    },
    async verify(context, { externalId }) {
      if (await rackFor(context).verify(externalId, context.signal)) return
      throw new ProviderError('UNAVAILABLE', `the management controller of ${externalId} refuses the login`)
    },
    async inspect(context, { externalId }) {
      const machine = await rackFor(context).inspect(externalId, context.signal)
      if (machine === undefined) throw missing(externalId)
      return hardwareOf(machine)
    },
    async observe(context, { externalId }) {
      const machine = await rackFor(context).getMachine(externalId, context.signal)
      return machine && observedOf(machine)
    },
    power: (context, { externalId }, wish) => switchPower(context, rackFor(context), externalId, wish),
    provision: (context, machine, spec) => provision(context, rackFor(context), machine.externalId, spec),
    reinstall: (context, { externalId, reinstall }, spec) =>
      provision(context, rackFor(context), externalId, spec, reinstall),
    deprovision: (context, machine) => deprovision(context, rackFor(context), machine),
    clean: (context, { externalId }) => clean(context, rackFor(context), externalId),
    async *console(context, { externalId }, wish) {
      const isKnown = (await rackFor(context).getMachine(externalId, context.signal)) !== undefined
      yield* showConsole(settings.worldFor(context.config.world), externalId, isKnown, wish, context.signal)
    },
  }
}

async function provision(
  context: Work,
  rack: Rack,
  serial: string,
  spec: MachineSpec<RackData>,
  mark = 0,
): Promise<ObservedMachine> {
  const order = { ...orderOf(spec), ...(mark > 0 && { mark }) }
  const isIt = (host: MachineView['host']) => host?.binding === order.binding && host.mark === mark
  await context.step('start-installation', {
    find: async (signal) => {
      const machine = await rack.getMachine(serial, signal)
      return isIt(machine?.host) ? { binding: order.binding } : undefined
    },
    run: async (signal) => {
      await rack.provision(serial, order, signal)
      return { binding: order.binding }
    },
  })
  await context.report({ externalId: serial, attributes: { binding: order.binding } })
  const { actionTimeoutMs } = context.config
  const before = await rack.getMachine(serial, context.signal)
  const isStuck = before?.host?.isInstalling === true && before.host.installsForMs > actionTimeoutMs
  // A host that had a system before is not given up for the lack of a new one.
  if (isStuck || (mark > 0 && before?.host?.failure !== undefined)) {
    context.progress('the installation went wrong; starting it anew', 30)
    await rack.provision(serial, order, context.signal)
  }
  context.progress(`installing ${order.image} on ${serial}`, 50)
  const machine = await context.poll(
    async (signal) => {
      const seen = await rack.getMachine(serial, signal)
      if (seen === undefined) throw missing(serial)
      if (seen.host?.binding !== order.binding) throw takenAway(serial)
      if (seen.host.failure !== undefined) throw installationFailed(serial, seen.host.failure, mark > 0)
      return seen.host.isInstalling ? undefined : seen
    },
    { ...pollPace, timeoutMs: actionTimeoutMs, what: `the installation of ${serial}` },
  )
  return observedOf(machine)
}

/** Powers the machine off, and takes off the host that this request put on it, and no other. */
async function deprovision(context: Work, rack: Rack, { externalId }: StaticMachine): Promise<void> {
  const machine = await rack.getMachine(externalId, context.signal)
  if (machine === undefined) return
  const binding = context.last.attributes?.['binding']
  const mine = typeof binding === 'string' ? binding : undefined
  if (machine.host !== undefined && mine !== undefined && machine.host.binding !== mine) return
  if (machine.power === 'on') await switchPower(context, rack, externalId, 'off')
  await rack.release(externalId, mine, context.signal)
}

async function clean(context: Work, rack: Rack, serial: string): Promise<void> {
  context.progress(`wiping ${serial}`)
  await rack.wipe(serial, context.signal)
  await context.poll(
    async (signal) => {
      const wipe = (await rack.getMachine(serial, signal))?.wipe
      if (wipe === undefined) throw missing(serial)
      if (wipe.outcome === 'failed') throw wipeFailed(serial)
      if (wipe.outcome === 'interrupted')
        throw new ProviderError('CONFLICT', `the wipe of ${serial} was interrupted: its power went away`)
      return wipe.outcome === 'running' ? undefined : true
    },
    { ...pollPace, timeoutMs: context.config.actionTimeoutMs, what: `the wipe of ${serial}` },
  )
}

async function switchPower(context: Work, rack: Rack, serial: string, wish: 'on' | 'off' | 'reboot'): Promise<void> {
  await rack.power(serial, wish, context.signal)
  const isDone = async (signal: AbortSignal) => {
    const machine = await rack.getMachine(serial, signal)
    if (machine === undefined) throw missing(serial)
    return machine.isPowerSwitching ? undefined : true
  }
  const { actionTimeoutMs } = context.config
  await context.poll(isDone, { ...pollPace, timeoutMs: actionTimeoutMs, what: `power ${wish} of ${serial}` })
}

function openRack(worlds: Worlds<RackState>, settings: ProviderSettings, context: Ctx): Rack {
  const world = worlds.open(settings.worldFor(context.config.world), context.log)
  return new Rack(world, context.config, {
    apiToken: context.credentials.apiToken,
    failure: toProviderError,
    ...(settings.apiBudget !== undefined && { beforeCall: () => context.budget('api') }),
  })
}

function orderOf({ ownershipKey, data, bootstrap, host }: MachineSpec<RackData>): HostOrder {
  const simulate = data.simulate ?? rackSimulations.find((simulation) => simulation === host.labels['simulate'])
  const { hostname, phoneHomeUrl, phoneHomeToken: token, sshPublicKeys } = bootstrap
  return {
    binding: ownershipKey,
    host: host.host,
    image: data.image,
    ...(sshPublicKeys.length > 0 && { sshPublicKeys }),
    ...(phoneHomeUrl !== '' && { boot: { hostname, phoneHomeUrl, token } }),
    ...(simulate !== undefined && { simulate }),
  }
}

function discoveredOf(machine: MachineView): DiscoveredMachine {
  const { serial, labels, power } = machine
  return { externalId: serial, hardware: hardwareOf(machine), power, labels, addresses: addressesOf(machine) }
}

function observedOf(machine: MachineView): ObservedMachine {
  const { serial, power, host } = machine
  const binding = host?.binding
  return {
    externalId: serial,
    power,
    addresses: addressesOf(machine),
    attributes: binding === undefined ? {} : { binding },
  }
}

function addressesOf({ address }: MachineView) {
  return [{ type: 'private' as const, ip: address }]
}

function hardwareOf({ serial, model }: MachineView): Hardware {
  const { vendor, model: name, vcpus, memoryMib, diskGib, diskClass, architecture } = model
  return { vendor, model: name, serial, shape: { vcpus, memoryMib, diskGib, diskClass, architecture } }
}

function missing(serial: string): ProviderError {
  return new ProviderError('INTERNAL', `${serial} is not in the rack any more`, { externalCode: 'not-found' })
}

function takenAway(serial: string): ProviderError {
  return new ProviderError('CONFLICT', `the host was taken off ${serial} while it was installed`, { retryable: false })
}

function installationFailed(serial: string, why: string, retryable: boolean): ProviderError {
  return new ProviderError('INTERNAL', `the installation of ${serial} failed: ${why}`, {
    retryable,
    externalCode: 'installation-failed',
  })
}

/** Disks that can't be wiped are for a person to see to. */
function wipeFailed(serial: string): ProviderError {
  return new ProviderError('INTERNAL', `the wipe of ${serial} failed: data may be left on its disks`, {
    retryable: false,
    externalCode: 'wipe-failed',
  })
}
