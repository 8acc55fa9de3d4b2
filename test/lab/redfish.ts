import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { planSushyEmulator, type SushyPlan } from '@slipway/provider-bare-metal/testing'
import type { Test } from 'tap'
import { until } from '../tools/processes.js'
import type { LabController } from './controller.js'
import type { LabMachine } from './machine.js'
import { bmcAddressOf, providerAddress, type LabNetwork } from './network.js'

/** Above the ports of the provider. */
const firstNotifyPort = 8200

/** What the emulator's fake driver tells of itself at each change. Source: sushy_tools/emulator/resources/systems/fakedriver.py of sushy-tools 2.2. */
interface FakeSystem {
  readonly power_state: 'On' | 'Off'
  readonly boot_device?: string
  readonly pending_power?: { readonly power_state: string } | null
}

/** A machine's management controller: OpenStack's emulator of Redfish, with its own hooks, whose system is a QEMU. */
export class RedfishBmc implements LabController {
  readonly machine: LabMachine
  readonly told: string[] = []
  readonly #network: LabNetwork
  readonly #plan: SushyPlan
  #power: 'On' | 'Off' = 'Off'
  #bootDevice: string | undefined
  #restarts = false

  private constructor(machine: LabMachine, network: LabNetwork, plan: SushyPlan) {
    this.machine = machine
    this.#network = network
    this.#plan = plan
  }

  static async start(this: void, t: Test, network: LabNetwork, folder: string, machine: LabMachine) {
    const place = join(folder, `redfish-${machine.number}`)
    mkdirSync(place)
    const address = bmcAddressOf(machine.number)
    const port = firstNotifyPort + machine.number
    const plan = await planSushyEmulator(place, {
      address,
      port: 443,
      uuid: machine.uuid,
      notifyUrl: `http://${providerAddress}:${port}/`,
    })
    const bmc = new RedfishBmc(machine, network, plan)
    await network.openWay(providerAddress, port, await bmc.#listen(t))
    const [program, ...args] = plan.command
    const emulator = network.start(program, args, network.name, plan.folder)
    t.teardown(() => machine.powerOff())
    await until(`the Redfish service of machine ${machine.number}`, async () => {
      if (emulator.exitCode !== null) throw new Error(`sushy-emulator ended with ${emulator.exitCode}`)
      return (await network.run('ss', ['-Hltn', 'sport = :443'])).includes(`${address}:443`)
    })
    return bmc
  }

  get settings(): object {
    return this.#plan.settings
  }

  get login(): { readonly username: string; readonly password: string } {
    return this.#plan.secret
  }

  /** By the standard body's own client, as the emulator alone knows whether its system is on. */
  async pressPower(): Promise<void> {
    await this.#client('setBootOverride', 'Once', 'Pxe')
    await this.#client('reset', 'On')
    // Its power changes late, and only when it is looked at.
    await until('the power to come on', async () => {
      if (this.machine.isOn) return true
      await this.#client('get')
      return false
    })
  }

  async #client(...command: readonly string[]): Promise<void> {
    const { username, password } = this.#plan.secret
    const host = bmcAddressOf(this.machine.number)
    const system = ['Systems', '-I', this.machine.uuid]
    // This password is not one, and there is no other way to give it but a file in clear.
    await this.#network.run('redfishtool', [
      ...['-r', host, '-S', 'Always', '-A', 'Basic', '-u', username, '-p', password],
      ...system,
      ...command,
    ])
  }

  async #listen(t: Test): Promise<number> {
    const server = createServer((request, response) => {
      readJson(request)
        .then((system) => this.#changed(system as FakeSystem))
        .then(
          () => response.writeHead(204).end(),
          (error: unknown) => response.writeHead(500).end(String(error)),
        )
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => {
      server.close()
      server.closeAllConnections()
    })
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('it listens on a port')
    return address.port
  }

  async #changed(system: FakeSystem): Promise<void> {
    if (system.boot_device !== this.#bootDevice) {
      this.#bootDevice = system.boot_device
      this.told.push(`boot ${system.boot_device === 'Pxe' ? 'pxe' : 'disk'}`)
    }
    if (system.pending_power?.power_state.includes('Restart') === true) {
      this.#restarts = true
      return
    }
    if (system.pending_power !== undefined && system.pending_power !== null) return
    const wasOn = this.#power === 'On'
    this.#power = system.power_state
    if (system.power_state === 'Off') {
      if (wasOn) this.told.push('power 0')
      return this.machine.powerOff()
    }
    if (wasOn && !this.#restarts) return
    this.told.push(this.#restarts ? 'reset' : 'power 1')
    this.#restarts = false
    await this.machine.powerOff()
    await this.machine.powerOn(system.boot_device === 'Pxe' ? 'network' : 'disk')
  }
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return JSON.parse(Buffer.concat(chunks).toString())
}
