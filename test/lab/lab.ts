import { copyFileSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { ensureAgentImage } from '@slipway/provider-bare-metal/agent'
import type { Test } from 'tap'
import { Slipway, temporaryFolder, type Process } from '../tools/processes.js'
import { LabBmc } from './bmc.js'
import type { LabController, StartController } from './controller.js'
import { LabMachine, type MachineOptions } from './machine.js'
import { LabNetwork, providerAddress } from './network.js'
import { makeOsImage, type OsImage } from './os-image.js'
import { cacheDir } from './places.js'

export const provider = 'iron'
const program = 'providers/bare-metal/dist/src/main.js'
/** Longer than elsewhere in tests: a machine without KVM may take seconds from its question whether an order stands to what it does. */
const leases = { SLIPWAY_LEASE: '15s', SLIPWAY_HEARTBEAT: '2s' }
/** Where the hub is reached from the machines' segment. */
const publicPort = 8099

export interface MachineJson {
  readonly name: string
  readonly externalId: string
  readonly state: string
  readonly power?: string
  readonly host?: string
  readonly hardware?: { readonly serial?: string; readonly shape?: { readonly memoryMib?: string } }
  readonly conditions?: readonly {
    readonly type: string
    readonly status: string
    readonly reason?: string
    readonly message?: string
  }[]
  readonly lastError?: { readonly code?: string; readonly externalCode?: string; readonly message?: string }
}

/** A hub, and a datacenter of machines that really boot. */
export class Lab<Controller extends LabController = LabController> {
  readonly slipway: Slipway
  readonly network: LabNetwork
  readonly machines: readonly LabMachine[]
  readonly bmcs: readonly Controller[]
  readonly os: OsImage
  readonly #files: string
  #provider: Process | undefined

  private constructor(
    parts: Pick<Lab<Controller>, 'slipway' | 'network' | 'machines' | 'bmcs' | 'os'> & { readonly files: string },
  ) {
    this.slipway = parts.slipway
    this.network = parts.network
    this.machines = parts.machines
    this.bmcs = parts.bmcs
    this.os = parts.os
    this.#files = parts.files
  }

  /** With controllers that speak IPMI. */
  static start(t: Test, machines: readonly Omit<MachineOptions, 'number'>[]): Promise<Lab<LabBmc>> {
    return Lab.startWith(t, machines, LabBmc.start)
  }

  static async startWith<Controller extends LabController>(
    t: Test,
    machines: readonly Omit<MachineOptions, 'number'>[],
    startController: StartController<Controller>,
  ): Promise<Lab<Controller>> {
    const folder = temporaryFolder(t)
    const slipway = await Slipway.start(t, {
      ...leases,
      SLIPWAY_PUBLIC_URL: `http://${providerAddress}:${publicPort}`,
    })
    const network = await LabNetwork.start(t, folder, machines.length)
    await network.openWay('127.0.0.1', portOf(slipway.gateway), portOf(slipway.gateway))
    await network.openWay(providerAddress, publicPort, portOf(slipway.url))
    const files = join(folder, 'files')
    for (const name of ['agent', 'images', 'netboot']) mkdirSync(join(files, name), { recursive: true })
    const agent = await ensureAgentImage({ flavour: 'cloud', cacheDir })
    copyFileSync(agent.kernel, join(files, 'agent/vmlinuz'))
    copyFileSync(agent.initrd, join(files, 'agent/initrd.img'))
    const os = await makeOsImage(join(files, 'images/lab-os.raw'), cacheDir, `TENANTSECRET${process.pid}`)
    const built = machines.map((options, index) => new LabMachine(network, folder, { ...options, number: index + 1 }))
    const bmcs: Controller[] = []
    for (const machine of built) bmcs.push(await startController(t, network, folder, machine))
    t.teardown(() => {
      if (t.passing()) return
      for (const machine of built)
        t.comment(`machine ${machine.number}: ${machine.console().split('\n').slice(-30).join('\n')}`)
      for (const bmc of bmcs) t.comment(`BMC ${bmc.machine.number} was told: ${bmc.told.join(', ')}`)
    })
    return new Lab({ slipway, network, machines: built, bmcs, os, files })
  }

  /** The provider's configuration, with these machines listed, each under its UUID. */
  config(listed: readonly number[]): object {
    return {
      boot: {
        address: providerAddress,
        console: 'ttyS0,115200',
        // Without KVM the kernel's check of its timers fails on a machine that is busy.
        kernelArgs: 'no_timer_check',
      },
      // An emulated machine says something within one or two minutes of power on, however busy the processors are. One whose firmware gave the network up is started
      // anew before a test's patience is over.
      timeouts: { bootMs: 240_000 },
      machines: listed.map((number) => {
        const { machine, settings } = this.#controller(number)
        return {
          id: machine.uuid,
          uuid: machine.uuid,
          macs: [machine.mac],
          bootMode: machine.firmware,
          bmc: settings,
          labels: { rack: `r${number}` },
        }
      }),
      images: { 'lab-os': { file: 'lab-os.raw', format: 'raw', sha256: this.os.sha256 } },
    }
  }

  /** The logins of all BMCs. @param passwords other ones than they take, by machine. */
  credentials(passwords: Readonly<Record<string, string>> = {}): object {
    const login = ({ machine: { uuid }, login }: Controller) => ({
      ...login,
      password: passwords[uuid] ?? login.password,
    })
    return { bmc: Object.fromEntries(this.bmcs.map((bmc) => [bmc.machine.uuid, login(bmc)])) }
  }

  /** Adds the provider, and starts it in the machines' segment. */
  async startProvider(listed: readonly number[], env: NodeJS.ProcessEnv = {}): Promise<Process> {
    await this.slipway.addProvider(provider, 'bare-metal', 'static', {
      config: this.config(listed),
      credentials: this.credentials(),
    })
    await this.slipway.apply({
      kind: 'MachineClass',
      name: 'metal',
      shape: { vcpus: 1, memoryMib: 256, diskGib: 1 },
      machineSelector: { provider: `providers/${provider}` },
      bootstrap: { phoneHome: true },
    })
    this.#provider = await this.slipway.startProvider(provider, program, [], {
      within: this.network.inside,
      env: { SLIPWAY_BARE_METAL_DIR: this.#files, SLIPWAY_BARE_METAL_LIST_INTERVAL_MS: '1000', ...leases, ...env },
    })
    return this.#provider
  }

  get providerProcess(): Process {
    if (this.#provider === undefined) throw new Error('the provider was not started')
    return this.#provider
  }

  /** The hub's record of a machine; undefined: it knows none. */
  async machine(number: number): Promise<MachineJson | undefined> {
    const { uuid } = this.#controller(number).machine
    // Not by the command line: it is asked often, and a process each time would take from the machines what they have of the processor.
    const response = await fetch(`${this.slipway.url}/slipway.hub.v1.MachineService/ListMachines`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.slipway.token}`, 'content-type': 'application/json' },
      body: '{}',
      signal: AbortSignal.timeout(10_000),
    })
    if (!response.ok) throw new Error(`ListMachines: ${response.status} ${await response.text()}`)
    const { machines = [] } = (await response.json()) as { machines?: readonly MachineJson[] }
    return machines.find(({ externalId }) => externalId === uuid)
  }

  #controller(number: number): Controller {
    const bmc = this.bmcs[number - 1]
    if (bmc === undefined) throw new Error(`there is no machine ${number}`)
    return bmc
  }
}

function portOf(address: string): number {
  return Number(address.split(':').at(-1))
}
