import { type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import { until } from '../tools/processes.js'
import type { LabController } from './controller.js'
import type { LabMachine } from './machine.js'
import { bmcAddressOf, type LabNetwork } from './network.js'

/** How a BMC is at odds with what it is asked. */
export type Mood =
  /** It does what it says. */
  | 'honest'
  /** It accepts every order and does nothing. */
  | 'lying'
  /** Nothing it is sent is answered. */
  | 'deaf'

/** A machine's management controller: OpenIPMI's simulator, speaking RMCP+, whose chassis is a QEMU. */
export class LabBmc implements LabController {
  readonly address: string
  readonly user = 'slipway'
  readonly password: string
  readonly machine: LabMachine
  /** What its chassis was told, in order. */
  readonly told: string[] = []
  #mood: Mood = 'honest'
  #bootNext: 'network' | 'disk' | undefined
  #sim: ChildProcess | undefined

  private constructor(machine: LabMachine) {
    this.machine = machine
    this.address = bmcAddressOf(machine.number)
    this.password = `pw-${machine.number}-lab`
  }

  static async start(this: void, t: Test, network: LabNetwork, folder: string, machine: LabMachine): Promise<LabBmc> {
    const bmc = new LabBmc(machine)
    const place = join(folder, `bmc-${machine.number}`)
    mkdirSync(place)
    await bmc.#serveChassis(t, join(place, 'chassis.sock'))
    writeFiles(place, bmc)
    const files = ['-c', join(place, 'lan.conf'), '-f', join(place, 'bmc.emu'), '-s', place]
    const sim = network.start('ipmi_sim', ['-n', ...files])
    bmc.#sim = sim
    t.teardown(async () => {
      if (sim.exitCode === null && sim.signalCode === null) {
        const exit = once(sim, 'exit')
        sim.kill('SIGKILL')
        await exit
      }
      await machine.powerOff()
    })
    await until(`the BMC of machine ${machine.number}`, async () => {
      if (sim.exitCode !== null) throw new Error(`ipmi_sim ended with ${sim.exitCode}`)
      return (await network.run('ss', ['-Hlun', 'sport = :623'])).includes(`${bmc.address}:623`)
    })
    return bmc
  }

  get settings(): object {
    return { kind: 'ipmi', address: this.address, cipherSuite: 3, privilege: 'administrator' }
  }

  get login(): { readonly username: string; readonly password: string } {
    return { username: this.user, password: this.password }
  }

  async pressPower(): Promise<void> {
    await this.machine.powerOn('network')
  }

  set mood(mood: Mood) {
    this.#mood = mood
    // A process that is stopped takes in what it is sent, and answers nothing.
    this.#sim?.kill(mood === 'deaf' ? 'SIGSTOP' : 'SIGCONT')
  }

  /** What the simulator's chassis program asks: `get power`, `set power 1`, `set boot pxe`, … @returns what it is to print; undefined: refused. */
  async #chassis([verb, ...words]: readonly string[]): Promise<string | undefined> {
    if (verb === 'get') return words.map((word) => this.#read(word)).join('\n')
    if (verb !== 'set') return undefined
    for (let at = 0; at + 1 < words.length; at += 2) await this.#write(words[at] ?? '', words[at + 1] ?? '')
    return ''
  }

  #read(what: string): string {
    if (what === 'power') return `power:${this.machine.isOn ? 1 : 0}`
    const boot = { network: 'pxe', disk: 'disk' } as const
    return `boot:${this.#bootNext === undefined ? 'default' : boot[this.#bootNext]}`
  }

  async #write(what: string, value: string): Promise<void> {
    this.told.push(`${what} ${value}`)
    if (this.#mood === 'lying') return
    const first = this.#bootNext ?? 'disk'
    if (what === 'boot') this.#bootNext = value === 'pxe' ? 'network' : value === 'disk' ? 'disk' : undefined
    else if (what === 'power' && value === '1') {
      if (this.machine.isOn) return
      this.#bootNext = undefined
      await this.machine.powerOn(first)
    } else if (what === 'power') await this.machine.powerOff()
    else if (what === 'reset') {
      this.#bootNext = undefined
      await this.machine.reset(first)
    } else if (what === 'shutdown') await this.machine.pressButton()
  }

  async #serveChassis(t: Test, path: string): Promise<void> {
    const server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        this.#chassis(Buffer.concat(chunks).toString().split(' ').filter(Boolean)).then(
          (said) =>
            response
              .writeHead(said === undefined ? 400 : 200)
              .end(said === undefined || said === '' ? '' : `${said}\n`),
          (error: unknown) => response.writeHead(500).end(String(error)),
        )
      })
    }).listen(path)
    await once(server, 'listening')
    t.teardown(() => {
      server.close()
      server.closeAllConnections()
    })
  }
}

/** ipmi_sim's configuration: one LAN interface, one user that may do all, and a chassis whose program asks the test. */
function writeFiles(place: string, bmc: LabBmc): void {
  const program = join(place, 'chassis.sh')
  const socket = join(place, 'chassis.sock')
  writeFileSync(program, `#!/bin/sh\nexec curl -sf --max-time 60 --unix-socket ${socket} -d "$*" http://chassis/\n`)
  chmodSync(program, 0o755)
  const types = 'none md2 md5 straight'
  writeFileSync(
    join(place, 'lan.conf'),
    `name "lab-${bmc.machine.number}"
set_working_mc 0x20
  startlan 1
    addr ${bmc.address} 623
    priv_limit admin
${['callback', 'user', 'operator', 'admin'].map((level) => `    allowed_auths_${level} ${types}`).join('\n')}
    guid aaaaaaaa0000400080000000000000${bmc.machine.number.toString(16).padStart(2, '0')}
  endlan
  chassis_control "${program}"
  startnow false
  user 1 true "" "" user 10 ${types}
  user 2 true "${bmc.user}" "${bmc.password}" admin 10 ${types}
`,
    { mode: 0o600 },
  )
  writeFileSync(
    join(place, 'bmc.emu'),
    'mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_enable 0x20\n',
  )
}
