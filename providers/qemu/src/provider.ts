import { access } from 'node:fs/promises'
import { join } from 'node:path'
import {
  defineProvider,
  ProviderError,
  type Context,
  type DynamicDefinition,
  type MachineSpec,
  type ObservedMachine,
  type Provider,
  type Violation,
  type WorkContext,
} from '@slipway/sdk'
import { countFitting, hostBudget, makeOfferings } from './capacity.js'
import { configSchema, dataSchema, imageIdOf, type Config, type Data } from './config.js'
import { showConsole } from './console.js'
import { diskTooSmall, Machines, type MachineView } from './machines.js'
import { chooseAccelerator, type Accelerator } from './probe.js'
import { defaultPrograms, programVersion, type Programs } from './programs.js'
import { MachineStore } from './store.js'

export interface QemuProviderOptions {
  /** Where machines live unless the configuration says otherwise. */
  readonly defaultDirectory: string
  /** The folder that images are confined to. Default: they may lie anywhere. */
  readonly imageRoot?: string
  /** Default: those on the PATH. */
  readonly programs?: Programs
}

type QemuContext = Context<Config, Record<string, never>>
type QemuWork = WorkContext<Config, Record<string, never>>

/** How long writing a machine down may take until it has either happened or never will. */
const defineTimeoutMs = 10_000

/** A provider whose machines are QEMU processes of the host that it runs on. */
export function qemuProvider(options: QemuProviderOptions): Provider {
  return defineProvider(qemuDefinition(options))
}

/** The functions of that provider. */
export function qemuDefinition(options: QemuProviderOptions): DynamicDefinition<Config, Record<string, never>, Data> {
  const host = new Host(options)
  return {
    kind: 'dynamic',
    family: 'qemu',
    version: '0.1.0',
    config: configSchema,
    data: dataSchema,
    effectTimeoutMs: defineTimeoutMs,
    check: (context) => host.check(context),
    validate: (context, spec) => host.validate(context, spec),
    offerings: async (context) => {
      const { store, machines } = await host.open(context.config)
      return makeOfferings(store.directory, context.config.limits, context.config.types, await machines.existing())
    },
    create: (context, spec) => host.create(context, spec),
    observe: async (context, externalId) => {
      const { machines } = await host.open(context.config)
      const view = await machines.observe(externalId)
      return view === undefined ? undefined : observed(view)
    },
    delete: async (context, machine) => {
      const { machines } = await host.open(context.config)
      await machines.delete(machine.ownershipKey, context.signal)
    },
    async *list(context) {
      const { machines } = await host.open(context.config)
      for (const view of await machines.list())
        yield { ...observed(view), ownershipKey: view.ownershipKey, name: view.name }
    },
    power: async (context, externalId, wish) => {
      const { machines } = await host.open(context.config)
      if (wish === 'on') return machines.powerOn(externalId, context.signal)
      if (wish === 'off') return machines.powerOff(externalId, context.signal)
      return machines.reboot(externalId, context.signal)
    },
    async *console(context, { externalId }, wish) {
      const { store } = await host.open(context.config)
      yield* showConsole((await store.find(externalId))?.folder, wish, context.signal)
    },
  }
}

interface OpenHost {
  readonly store: MachineStore
  readonly machines: Machines
  readonly accelerator: Accelerator
}

/** The host under one configuration after another. */
class Host {
  readonly #options: QemuProviderOptions
  readonly #programs: Programs
  readonly #open = new WeakMap<Config, Promise<OpenHost>>()

  constructor(options: QemuProviderOptions) {
    this.#options = options
    this.#programs = options.programs ?? defaultPrograms
  }

  /** What works on machines under a configuration; made once, and again where that failed. */
  open(config: Config): Promise<OpenHost> {
    const known = this.#open.get(config)
    if (known !== undefined) return known
    const opening = this.#make(config)
    this.#open.set(config, opening)
    opening.catch(() => this.#open.delete(config))
    return opening
  }

  async check(context: QemuContext): Promise<void> {
    const { config } = context
    const versions = {
      qemu: await programVersion(this.#programs, 'qemu'),
      qemuImg: await programVersion(this.#programs, 'qemuImg'),
      flock: await programVersion(this.#programs, 'flock'),
    }
    if (config.network.kind === 'bridge') await checkBridge(config.network.bridge)
    if (config.defaultImage !== undefined && config.images[config.defaultImage] === undefined) {
      throw new ProviderError(
        'INVALID_SPEC',
        `defaultImage is "${config.defaultImage}", which is none of images: ${Object.keys(config.images).join(', ')}`,
      )
    }
    const { store, accelerator } = await this.open(config)
    context.log.info({ directory: store.directory, accelerator, versions }, 'the host is ready for machines')
  }

  async validate(context: QemuContext, spec: MachineSpec<Data>): Promise<readonly Violation[]> {
    const { config } = context
    const violations: Violation[] = []
    const add = (field: string, description: string): void => void violations.push({ field, description })
    const type = config.types[spec.typeId]
    if (type === undefined)
      add('spec.type_id', `there is no type "${spec.typeId}" here: take one of ${Object.keys(config.types).join(', ')}`)
    else if (countFitting(hostBudget(config.limits), [], type) < 1)
      add('spec.type_id', `"${spec.typeId}" is larger than all that machines may take of this host`)
    if (spec.location !== '') add('spec.location', 'this provider has only one location: leave it empty')
    const architecture = spec.shape.architecture ?? ''
    if (architecture !== '' && architecture !== 'amd64')
      add('spec.shape.architecture', `this host runs amd64 and not ${architecture}`)
    if (spec.bootstrap.phoneHomeUrl !== '' && config.network.kind === 'user' && config.network.isolated) {
      add(
        'spec.bootstrap.phone_home_url',
        'machines here are cut off from all networks and cannot phone home: take a class that does not ask for it',
      )
    }
    const imageProblem = await this.#imageProblem(context, spec.data, type?.diskGib)
    if (imageProblem !== undefined) add('spec.provider_data.image', imageProblem)
    return violations
  }

  async create(context: QemuWork, spec: MachineSpec<Data>): Promise<ObservedMachine> {
    const { machines } = await this.open(context.config)
    const name = await context.step('define', {
      timeoutMs: defineTimeoutMs,
      find: () => machines.findDefined(spec.ownershipKey),
      run: async () =>
        machines.define({
          ...spec,
          image: requiredImage(context.config, spec.data),
          hostname: spec.bootstrap.hostname,
        }),
    })
    await context.report({ externalId: name })
    // These may be repeated at any time: they go on from the files and the process that they find, under a lock of the kernel.
    await context.step('prepare', async (signal) => {
      await machines.prepare(name, spec.bootstrap, signal)
      return true
    })
    await context.step('boot', async (signal) => {
      await machines.boot(name, signal)
      return true
    })
    const view = await machines.observe(name)
    if (view === undefined)
      throw new ProviderError('CONFLICT', `the machine ${name} was deleted while it was being made`)
    return observed(view)
  }

  async #make(config: Config): Promise<OpenHost> {
    const store = await MachineStore.open(config.directory ?? this.#options.defaultDirectory)
    const accelerator = await chooseAccelerator(config, this.#programs, store.directory)
    const { imageRoot } = this.#options
    return {
      store,
      accelerator,
      machines: new Machines({ store, config, programs: this.#programs, accelerator, imageRoot }),
    }
  }

  async #imageProblem(context: QemuContext, data: Data, diskGib: number | undefined): Promise<string | undefined> {
    const id = imageIdOf(context.config, data)
    if (id === undefined) return noImage(context.config)
    try {
      const { machines } = await this.open(context.config)
      const atLeastGib = await machines.inspect(id, context.signal)
      return diskGib !== undefined && diskGib < atLeastGib ? diskTooSmall(id, atLeastGib, diskGib) : undefined
    } catch (error) {
      if (error instanceof ProviderError && error.code === 'INVALID_SPEC') return error.message
      throw error
    }
  }
}

function observed(view: MachineView): ObservedMachine {
  return { externalId: view.name, power: view.power, addresses: view.addresses, attributes: view.attributes }
}

function requiredImage(config: Config, data: Data): string {
  const id = imageIdOf(config, data)
  if (id === undefined) throw new ProviderError('INVALID_SPEC', noImage(config))
  return id
}

function noImage(config: Config): string {
  return `name an image, one of ${Object.keys(config.images).join(', ')}, or have the provider configured with a defaultImage`
}

async function checkBridge(bridge: string): Promise<void> {
  const isBridge = await access(join('/sys/class/net', bridge, 'bridge')).then(
    () => true,
    () => false,
  )
  if (!isBridge)
    throw new ProviderError(
      'UNAVAILABLE',
      `the host has no bridge ${bridge}: make it, and allow it in /etc/qemu/bridge.conf`,
    )
}
