import { randomUUID } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { StaticDefinition, StaticMachine } from '@slipway/sdk'
import type { Test } from 'tap'
import { configSchema, type Config, type Credentials, type Data } from '../src/config.js'
import { bareMetalDefinition } from '../src/provider.js'
import { SiteHolder, type Site, type SiteOptions } from '../src/site.js'
import { TestItem, type Held } from './item.js'
import { SimMachine, type SimMachineOptions } from './sim-machine.js'
import { SimPower } from './sim-power.js'

export const password = 'sesame'

/** Files that machines are served, good enough for machines that are simulated. */
export function makeFiles(folder: string): { readonly filesDir: string; readonly ipxeDir: string } {
  const [filesDir, ipxeDir] = [join(folder, 'files'), join(folder, 'ipxe')]
  for (const name of ['agent', 'images', 'netboot', 'tls']) mkdirSync(join(filesDir, name), { recursive: true })
  mkdirSync(ipxeDir, { recursive: true })
  for (const name of [
    'agent/vmlinuz',
    'agent/initrd.img',
    'images/debian.raw',
    'netboot/vmlinuz',
    'netboot/initrd.img',
  ])
    writeFileSync(join(filesDir, name), `this stands for ${name}`)
  for (const name of ['undionly.kpxe', 'snponly.efi']) writeFileSync(join(ipxeDir, name), `this stands for ${name}`)
  return { filesDir, ipxeDir }
}

export const images = { debian: { file: 'debian.raw', format: 'raw', sha256: 'a'.repeat(64) } }

/** Settings for machines that are simulated: everything on a free port of this host, no DHCP, short waits. */
export function simConfig(overrides: Record<string, unknown> = {}, port = 0): Config {
  return configSchema.parse({
    boot: { address: '127.0.0.1', port, tftpPort: 0, dhcp: { mode: 'off' } },
    images,
    timeouts: { bootMs: 30_000, silenceMs: 30_000, idleMs: 60_000 },
    ...overrides,
  })
}

export function machineEntry(machine: SimMachine, overrides: Record<string, unknown> = {}): Record<string, unknown> {
  return { id: machine.options.id, macs: [machine.mac], bmc: { kind: 'ipmi', address: '192.0.2.1' }, ...overrides }
}

/** A segment of simulated machines, and processes of the provider that serve it one after another. */
export class Scene {
  readonly folder = mkdtempSync(join(tmpdir(), 'slipway-bare-metal-'))
  readonly machines = new Map<string, SimMachine>()
  /** By the id that the provider gives them. */
  readonly names = new Map<string, SimMachine>()
  endpoints: string[] = []
  port = 0
  readonly #running = new Set<RunningProvider>()

  constructor(test: Test) {
    test.teardown(() => this.close())
  }

  machine(id: string, options: Partial<SimMachineOptions> = {}): SimMachine {
    const number = this.machines.size + 1
    const machine = new SimMachine({
      id,
      mac: `52:54:00:00:00:${String(number).padStart(2, '0')}`,
      uuid: randomUUID(),
      serial: `SN-${id}`,
      endpoints: () => this.endpoints,
      ...options,
    })
    this.machines.set(id, machine)
    this.names.set(id, machine)
    return machine
  }

  /** Starts a process of the provider. It keeps the port of the one before. */
  async start(
    overrides: Record<string, unknown> = {},
    stateDir = join(this.folder, 'state'),
  ): Promise<RunningProvider> {
    const provider = await RunningProvider.start(this, simConfig(overrides, this.port), stateDir)
    this.#running.add(provider)
    this.port = Number(new URL(provider.site.boot.url).port)
    this.endpoints = [provider.site.boot.url]
    return provider
  }

  async close(): Promise<void> {
    for (const provider of this.#running) await provider.close()
    for (const machine of this.machines.values()) await machine.end()
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

/** One process of the provider, without a hub: functions are called as the SDK calls them. */
export class RunningProvider {
  readonly config: Config
  credentials: Credentials = { bmc: { default: { username: 'admin', password } } }
  readonly power: SimPower
  readonly definition: StaticDefinition<Config, Credentials, Data>
  site!: Site
  readonly #holder: SiteHolder

  private constructor(scene: Scene, config: Config, stateDir: string) {
    this.config = config
    this.power = new SimPower((id) => scene.names.get(id), password)
    const options: SiteOptions = { stateDir, ...makeFiles(scene.folder), supervise: () => this.power }
    this.#holder = new SiteHolder(options)
    this.definition = bareMetalDefinition(options, this.#holder)
  }

  static async start(scene: Scene, config: Config, stateDir: string): Promise<RunningProvider> {
    const provider = new RunningProvider(scene, config, stateDir)
    provider.site = await provider.#holder.open(
      new TestItem('machines', 'observe').claim(config, provider.credentials).context(),
    )
    return provider
  }

  claim(item: TestItem): Held {
    return item.claim(this.config, this.credentials)
  }

  /** Does one operation of a machine's own, as a hub and the SDK would. */
  async operate(item: TestItem, operation: 'verify' | 'inspect' | 'clean', target: StaticMachine) {
    const context = this.claim(item.begin(operation)).context()
    if (operation === 'verify') return this.definition.verify?.(context, target)
    if (operation === 'inspect') return this.definition.inspect?.(context, target)
    return this.definition.clean(context, target)
  }

  async list() {
    const context = this.claim(new TestItem('machines', 'observe')).context()
    const found = []
    for await (const machine of this.definition.discover(context)) found.push(machine)
    return found
  }

  close(): Promise<void> {
    return this.#holder.close()
  }
}

/** A machine as a hub hands it over: by what the provider's own listing said. */
export function targetOf(
  item: TestItem,
  externalId: string,
  providerData: StaticMachine['providerData'] = {},
): StaticMachine {
  return { machineId: item.id, externalId, providerData }
}

/** Waits for something that is to come about. */
export async function until(what: string, check: () => boolean | Promise<boolean>, timeoutMs = 60_000): Promise<void> {
  const deadlineMs = performance.now() + timeoutMs
  while (!(await check())) {
    if (performance.now() > deadlineMs) throw new Error(`${what} did not come within ${timeoutMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
