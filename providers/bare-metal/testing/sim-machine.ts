import type { Authority, Inventory, Order, OrderResult, WipedDisk } from '../src/agent/protocol.js'
import { SimAgent, type SimBody } from './sim-agent.js'

const gib = 1024 ** 3

export interface SimMachineOptions {
  readonly id: string
  readonly mac: string
  readonly uuid: string
  readonly serial: string
  /** Boot endpoints that answer in its segment; the first one that has a script for it is taken. */
  readonly endpoints: () => readonly string[]
  /** What its management controller says of itself over the machine's own bus. */
  readonly bmc?: { readonly address: string; readonly mac: string; readonly firmware: string }
  readonly wipeMs?: () => number
  readonly installMs?: () => number
  /** The next wipes fail. */
  readonly wipeFails?: () => boolean
  /** The next installations fail. */
  readonly installFails?: () => boolean
}

/** What may never happen to a machine. */
export interface SimViolation {
  readonly what: string
  readonly machine: string
}

/** A machine without hardware: it has power, a disk and a firmware that asks its segment what to boot. */
export class SimMachine implements SimBody {
  readonly options: SimMachineOptions
  readonly results = new Map<string, OrderResult>()
  readonly events: string[] = []
  readonly violations: SimViolation[] = []
  power: 'on' | 'off' = 'off'
  bootOnce: 'network' | 'disk' | undefined
  /** Whose data is on its disk: `machineRequests/…`; undefined: it is clean. */
  soiledBy: string | undefined
  /** The request whose system is on its disk, if that can boot. */
  installed: string | undefined
  /** The request whose host runs on it now. */
  running: string | undefined
  /** Whether the agent runs on it now. */
  inAgent = false
  powerCycles = 0
  writes = 0
  #run: AbortController | undefined
  #running: Promise<void> = Promise.resolve()

  constructor(options: SimMachineOptions) {
    this.options = options
  }

  get mac(): string {
    return this.options.mac
  }

  get uuid(): string {
    return this.options.uuid
  }

  log(line: string): void {
    this.events.push(line)
  }

  /** Takes effect at once, as when somebody pulls the plug. */
  setPower(power: 'on' | 'off'): void {
    this.writes += 1
    if (power === this.power) return
    this.log(`power ${power}`)
    this.power = power
    if (power === 'on') this.#start()
    else this.#stop()
  }

  reset(): void {
    this.writes += 1
    this.log('reset')
    this.powerCycles += 1
    this.#stop()
    this.power = 'on'
    this.#start()
  }

  /** Ends all that runs on it. */
  async end(): Promise<void> {
    this.power = 'off'
    this.#stop()
    await this.#running
  }

  inventory(): Inventory {
    const { mac, uuid, serial, bmc } = this.options
    return {
      cpu: { model: 'Simulated', count: 8, sockets: 1, architecture: 'amd64' },
      memoryBytes: 32 * gib,
      disks: [disk('sda', 100, serial), disk('sdb', 200, `${serial}-b`)],
      nics: [{ name: 'eth0', mac, link: true, speedMbps: 10_000, driver: 'sim', addresses: ['10.0.0.77'] }],
      dmi: { vendor: 'Slipway', product: 'Sim', serial, uuid, assetTag: '', boardSerial: '' },
      firmware: { mode: 'uefi', secureBoot: false, vendor: 'Slipway', version: '1', date: '' },
      ...(bmc !== undefined && { bmc }),
      bootMac: mac,
      kernel: 'sim',
    }
  }

  async wipe({ item }: Authority, signal: AbortSignal): Promise<OrderResult> {
    this.log(`wipe for ${item}`)
    if (item.startsWith('machineRequests/'))
      this.violations.push({ what: `wiped for ${item}`, machine: this.options.id })
    this.installed = undefined
    await pause(this.options.wipeMs?.() ?? 20, signal)
    const fails = this.options.wipeFails?.() === true
    const disks = this.inventory().disks.map((each): WipedDisk => wiped(each.name, each.serial, each.sizeBytes, !fails))
    if (fails) return { outcome: 'failed', code: 'wipe-failed', message: 'sda refuses', disks }
    this.soiledBy = undefined
    this.log('wiped')
    return { outcome: 'done', disks }
  }

  async install(order: Extract<Order, { kind: 'install' }>, signal: AbortSignal): Promise<OrderResult> {
    const { item } = order.authority
    this.log(`install for ${item} on ${order.disk.name}`)
    if (this.soiledBy !== undefined && this.soiledBy !== item)
      this.violations.push({ what: `${item} was installed over what ${this.soiledBy} left`, machine: this.options.id })
    this.soiledBy = item
    this.installed = undefined
    await pause(this.options.installMs?.() ?? 20, signal)
    if (this.options.installFails?.() === true) return { outcome: 'failed', code: 'disk-error', message: 'sda refuses' }
    this.installed = item
    return { outcome: 'done', writtenBytes: gib, sha256: order.image.sha256 }
  }

  #stop(): void {
    this.running = undefined
    this.inAgent = false
    this.results.clear()
    this.#run?.abort()
  }

  #start(): void {
    const run = new AbortController()
    this.#run = run
    const device = this.bootOnce ?? 'network'
    this.bootOnce = undefined
    this.#running = this.#running.then(() => this.#boot(device, run.signal)).catch(() => undefined)
  }

  async #boot(device: 'network' | 'disk', signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (device === 'network' && (await this.#bootNetwork(signal))) return
    this.running = this.installed
    this.log(this.running === undefined ? 'nothing boots' : `runs ${this.running}`)
  }

  /** @returns false where nobody in the segment has anything for it. */
  async #bootNetwork(signal: AbortSignal): Promise<boolean> {
    for (;;) {
      const script = await this.#script(signal)
      if (script === undefined) return false
      const args = argumentsOf(script)
      if (args === undefined) {
        this.log('waits')
        await pause(200, signal)
        continue
      }
      const kernel = /^kernel (\S+)/m.exec(script)?.[1] ?? ''
      const answer = await fetch(kernel, { signal })
      await answer.arrayBuffer()
      if (answer.status !== 200) return false
      if (!args.has('slipway.token')) {
        this.running = `netboot ${args.get('netboot') ?? ''}`
        this.log(`runs ${this.running}`)
        return true
      }
      this.log('agent')
      this.inAgent = true
      const end = await new SimAgent(this, signal).live(args)
      this.inAgent = false
      this.log(`agent ends: ${end}`)
      if (end === 'power-off') {
        this.power = 'off'
        this.#stop()
        return true
      }
      this.results.clear()
    }
  }

  async #script(signal: AbortSignal): Promise<string | undefined> {
    for (const endpoint of this.options.endpoints()) {
      const url = `${endpoint}/boot/script?mac=${this.mac}&uuid=${this.uuid}`
      const limited = AbortSignal.any([signal, AbortSignal.timeout(1_000)])
      const answer = await fetch(url, { signal: limited }).catch(() => undefined)
      if (answer?.status === 200) return answer.text()
      await answer?.arrayBuffer().catch(() => undefined)
      signal.throwIfAborted()
    }
    return undefined
  }
}

/** The arguments of the kernel that a script starts; undefined where it starts none. */
export function argumentsOf(script: string): ReadonlyMap<string, string> | undefined {
  const line = /^kernel \S+ (.*?)(?: \|\| .*)?$/m.exec(script)?.[1]
  if (line === undefined) return undefined
  return new Map(line.split(' ').map((each) => [each.split('=')[0] ?? '', each.split('=').slice(1).join('=')]))
}

function disk(name: string, sizeGib: number, serial: string): Inventory['disks'][number] {
  return {
    name,
    sizeBytes: sizeGib * gib,
    serial,
    wwn: `naa.${serial}`,
    model: 'Sim',
    firmware: '1',
    rotational: false,
    transport: 'sata',
    logicalBlockBytes: 512,
  }
}

function wiped(name: string, serial: string, sizeBytes: number, ok: boolean): WipedDisk {
  return {
    name,
    serial,
    wwn: '',
    sizeBytes,
    steps: [{ step: 'discard', ok, message: ok ? '' : 'refused' }],
    readBack: { sampleBytes: 4096, zero: ok ? 8 : 0, changed: 0, unchanged: ok ? 0 : 8 },
    wiped: ok,
    durationMs: 5,
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error)
    const timer = setTimeout(resolve, ms)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(signal.reason as Error)
    })
  })
}
