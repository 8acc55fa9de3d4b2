import {
  ConsoleRefused,
  defineProvider,
  ProviderError,
  type DiscoveredMachine,
  type Hardware,
  type Json,
  type MachineSpec,
  type Provider,
  type StaticDefinition,
  type StaticMachine,
  type Violation,
} from '@slipway/sdk'
import { configSchema, credentialsSchema, dataSchema, type Config, type Credentials, type Data } from './config.js'
import { showConsole } from './console.js'
import { AgentVisit, permissionOf, type Work } from './life/agent-visit.js'
import { clean } from './life/clean.js'
import { hardwareOf, labelsOf } from './life/hardware.js'
import { deprovision, imageOf, provision } from './life/provision.js'
import type { KnownMachine } from './machine-book.js'
import { keysProblem } from './seed.js'
import { Site, SiteHolder, type Ctx, type SiteOptions } from './site.js'

export interface BareMetalOptions extends SiteOptions {
  /** How often machines are listed. Default 10 000. */
  readonly listIntervalMs?: number
}

/** Work on one machine is waiting for the most part. */
const itemsAtOnce = 500
const defaultListIntervalMs = 10_000
/** Nothing here is begun without an agent that asks again, or a BMC that answers within this. */
const effectTimeoutMs = 30_000

type Definition = StaticDefinition<Config, Credentials, Data>

/** A provider of the machines of one datacenter or network segment. */
export function bareMetalProvider(options: BareMetalOptions): Provider {
  return defineProvider(bareMetalDefinition(options))
}

/** The functions of that provider. @param holder of the process's one site. */
export function bareMetalDefinition(options: BareMetalOptions, holder = new SiteHolder(options)): Definition {
  const open = (context: Ctx): Promise<Site> => holder.open(context)
  return {
    family: 'bare-metal',
    kind: 'static',
    version: '0.1.0',
    config: configSchema,
    credentials: credentialsSchema,
    data: dataSchema,
    capacity: itemsAtOnce,
    effectTimeoutMs,
    listIntervalMs: options.listIntervalMs ?? defaultListIntervalMs,

    check: (context) => Site.checkFiles(options, context.config),
    validate: (context, spec) => Promise.resolve(validate(context.config, spec)),
    async *discover(context) {
      const site = await open(context)
      for (const machine of site.book.list()) {
        // Found since the settings were taken into use.
        site.watch(machine, context.credentials)
        yield discoveredOf(site, machine)
      }
    },
    verify: async (context, target) => {
      const { site, machine } = await work(open, context, target)
      const { kind, vendor = '', model = '', firmware = '' } = await site.power.verify(machine.id, context.signal)
      await context.report({ attributes: { bmc: { kind, vendor, model, firmware } } })
    },
    adopt: async (context, target) => {
      const { site, machine } = await work(open, context, target)
      return adopt(site, context, machine)
    },
    inspect: async (context, target) => {
      const { site, machine } = await work(open, context, target)
      await leavePower(site, machine)
      return inspect(site, context, machine)
    },
    observe: async (context, target) => {
      const site = await open(context)
      const machine = site.book.take(target)
      if (machine === undefined) return undefined
      site.watch(machine, context.credentials)
      const power = await site.power.read(machine.id, context.signal)
      return { externalId: machine.id, ...(power !== undefined && { power }) }
    },
    power: async (context, target, wish) => {
      const { site, machine } = await work(open, context, target)
      refuseInUse(machine, `switched (${wish})`)
      restoreNetboot(site, context, machine)
      // A tenant's system is asked first, and has time to put its disks in order.
      await site.power.switch(machine.id, wish === 'off' ? 'soft-off' : wish, permissionOf(context))
      if (site.book.note(machine.id, { wanted: wish === 'off' ? 'off' : 'any' })) await site.save()
    },
    provision: async (context, target, spec) => {
      const { site, machine } = await work(open, context, target)
      refuseInUse(machine, 'made a host')
      await leavePower(site, machine)
      return provision(site, context, machine, spec)
    },
    deprovision: async (context, target) => {
      const site = await open(context)
      const machine = site.book.take(target)
      // What is not here any more has no host on it.
      if (machine === undefined) return
      refuseInUse(machine, 'taken off its host and switched off; take inUse away first')
      site.watch(machine, context.credentials)
      await deprovision(site, context, machine)
    },
    async *console(context, target, wish) {
      const site = await open(context)
      const machine = site.book.take(target)
      if (machine === undefined)
        throw new ConsoleRefused('not-found', `${target.externalId} is not in this provider's configuration`)
      site.watch(machine, context.credentials)
      yield* showConsole(site, context.config.console, machine.id, wish, context.signal)
    },
    clean: async (context, target) => {
      const { site, machine } = await work(open, context, target)
      await leavePower(site, machine)
      await clean(site, context, machine)
    },
  }
}

/** The machine of a piece of work; from now on it is no stranger. */
async function work(
  open: (context: Ctx) => Promise<Site>,
  context: Work,
  target: StaticMachine,
): Promise<{ readonly site: Site; readonly machine: KnownMachine }> {
  const site = await open(context)
  const machine = site.book.take(target)
  if (machine === undefined)
    throw new ProviderError('INTERNAL', `${target.externalId} is not in the provider's configuration any more`, {
      retryable: true,
    })
  site.watch(machine, context.credentials)
  if (site.book.note(machine.id, { claimed: true })) await site.save()
  return { site, machine }
}

/**
 * From here on it is no fault that the machine is on, and that is on disk before it is: a successor of this process that still believed it idle would switch it off, in
 * the middle of the work or under its tenant.
 */
async function leavePower(site: Site, machine: KnownMachine): Promise<void> {
  site.power.want(machine.id, 'any')
  if (site.book.note(machine.id, { wanted: 'any' })) await site.save()
}

/** A server that is taken over as it is: its controller is asked, and nothing is changed. What calls itself something else is not the one that is meant. */
async function adopt(site: Site, context: Work, machine: KnownMachine): Promise<Hardware> {
  const { vendor, model, serial } = await site.power.verify(machine.id, context.signal)
  if (serial !== undefined && machine.serial !== undefined && serial !== machine.serial)
    throw new ProviderError(
      'CONFLICT',
      `${machine.id} has the serial number ${machine.serial}, and its controller says ${serial}`,
      { retryable: false },
    )
  return {
    ...knownHardware(site, machine),
    ...(vendor !== undefined && { vendor }),
    ...(model !== undefined && { model }),
    ...(serial !== undefined && { serial }),
  }
}

/** What is known of a machine without looking at it. */
function knownHardware(site: Site, machine: KnownMachine): Hardware {
  const inventory = site.book.learned(machine.id)?.inventory
  return {
    ...(inventory !== undefined && hardwareOf(inventory)),
    ...(machine.serial !== undefined && { serial: machine.serial }),
    ...(machine.uuid !== undefined && { uuid: machine.uuid.toLowerCase() }),
    macs: machine.macs.slice(0, 64),
  }
}

/** A server in use is not started anew to be looked at: what is known of it has to do. */
async function inspect(site: Site, context: Work, machine: KnownMachine): Promise<Hardware> {
  if (machine.inUse) {
    const { vendor, model, serial } = await site.power.verify(machine.id, context.signal)
    return {
      ...(vendor !== undefined && { vendor }),
      ...(model !== undefined && { model }),
      ...((serial ?? machine.serial) !== undefined && { serial: serial ?? machine.serial ?? '' }),
    }
  }
  return AgentVisit.with(site, context, machine, context.config.timeouts.inspectMs, async (visit) =>
    hardwareOf(await visit.inventory()),
  )
}

function validate(config: Config, { data, bootstrap }: MachineSpec<Data>): readonly Violation[] {
  const violations: Violation[] = []
  if (data.netboot === undefined) {
    try {
      imageOf({ config }, data)
    } catch (error) {
      violations.push({ field: 'spec.provider_data.image', description: (error as Error).message })
    }
  } else if (config.netboot[data.netboot] === undefined) {
    const there = Object.keys(config.netboot).join(', ') || 'none'
    violations.push({
      field: 'spec.provider_data.netboot',
      description: `there is no netboot class ${data.netboot}; there are: ${there}`,
    })
  }
  const keys = keysProblem(config, data, bootstrap)
  if (keys !== undefined) violations.push({ field: 'spec.bootstrap.ssh_public_keys', description: keys })
  const { minGib, maxGib } = data.disk
  if (minGib !== undefined && maxGib !== undefined && minGib > maxGib)
    violations.push({ field: 'spec.provider_data.disk.maxGib', description: 'it must not be less than minGib' })
  return violations
}

/** Where the state folder was lost, the hub still knows what a machine boots from the network. */
function restoreNetboot(site: Site, context: Work, machine: KnownMachine): void {
  const { binding, netboot } = context.last.attributes ?? {}
  const plan = netboot as { readonly netboot?: unknown; readonly args?: unknown } | undefined
  if (typeof binding !== 'string' || typeof plan?.netboot !== 'string' || typeof plan.args !== 'string') return
  site.book.note(machine.id, { netboot: { netboot: plan.netboot, args: plan.args, binding } })
  site.openNetboot(machine, '0')
}

function refuseInUse(machine: KnownMachine, what: string): void {
  if (machine.inUse)
    throw new ProviderError('CONFLICT', `${machine.id} is a server in use by the configuration: it is not ${what}`, {
      retryable: false,
    })
}

function discoveredOf(site: Site, machine: KnownMachine): DiscoveredMachine {
  const inventory = site.book.learned(machine.id)?.inventory
  const power = site.power.seen(machine.id)
  const rule = site.book.acceptedBy(machine.id)
  return {
    externalId: machine.id,
    hardware: knownHardware(site, machine),
    inUse: machine.inUse,
    ...(rule !== undefined && { acceptedByRule: rule }),
    ...(power !== undefined && { power }),
    labels: { ...(inventory !== undefined && labelsOf(inventory)), ...machine.labels },
    providerData: site.book.providerData(machine) as { readonly [key: string]: Json },
  }
}
