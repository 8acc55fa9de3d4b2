import { readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ProviderError, type Address, type Bootstrap, type HostContext, type Json, type Power } from '@slipway/sdk'
import { checkRoom } from './capacity.js'
import { consoleFileName, macAddress, qemuArguments } from './command.js'
import { confineImage, hubHostOf, type Config, type Image } from './config.js'
import { boundConsole } from './console.js'
import { ensureDisk, ensureSeed, hasStorage, inspectImage } from './disk.js'
import { isLocked, withLock } from './locks.js'
import type { Accelerator } from './probe.js'
import { findProcesses, isAlive, signalProcess, type MachineProcess } from './process-table.js'
import type { Programs } from './programs.js'
import { findMachineQemu, lockFileName, queryStatus, shutDown, startQemu, type MachinePlace } from './qemu.js'
import { seedFiles, seedImage } from './seed.js'
import { goneMeanwhile, type MachineRecord, type MachineStore, type StoredMachine } from './store.js'

/** What a machine is ordered as. */
export interface MachineOrder {
  readonly name: string
  /** `<hub id>/<request id>`; the request id is the machine's UUID. */
  readonly ownershipKey: string
  readonly typeId: string
  readonly image: string
  readonly hostname: string
  readonly host: HostContext
}

/** A machine as it is now. */
export interface MachineView {
  readonly name: string
  readonly ownershipKey: string
  readonly power: Power
  readonly addresses: readonly Address[]
  readonly attributes: { readonly [key: string]: Json }
}

export interface MachinesOptions {
  readonly store: MachineStore
  readonly config: Config
  readonly programs: Programs
  readonly accelerator: Accelerator
  /** The folder that images are confined to; undefined: they may lie anywhere. */
  readonly imageRoot: string | undefined
}

const allocateLockName = '.allocate.lock'
const allocateWaitMs = 5_000
const killTimeoutMs = 20_000
const killPollMs = 50

const ownershipKeyPattern = /^[A-Za-z0-9._-]{1,64}\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/

/**
 * The machines of one host: each a folder in the store and, while it is on, a QEMU process. Everything may be called again after any
 * crash, and by several processes at once; every call goes on from what it finds.
 */
export class Machines {
  readonly #store: MachineStore
  readonly #config: Config
  readonly #programs: Programs
  readonly #accelerator: Accelerator
  readonly #imageRoot: string | undefined

  constructor(options: MachinesOptions) {
    this.#store = options.store
    this.#config = options.config
    this.#programs = options.programs
    this.#accelerator = options.accelerator
    this.#imageRoot = options.imageRoot
  }

  /**
   * Writes down that a machine is to be made. From here on it is listed, and counts against what the host has room for.
   *
   * @returns its external id, which is its name.
   * @throws ProviderError: CAPACITY where there is no room, INVALID_SPEC for a type or image that is not configured, CONFLICT where the
   * name is another machine's.
   */
  async define(order: MachineOrder): Promise<string> {
    const earlier = await this.findDefined(order.ownershipKey)
    if (earlier !== undefined) return earlier
    this.#imageOf(order.image)
    const type = this.#config.types[order.typeId]
    if (type === undefined)
      throw new ProviderError(
        'INVALID_SPEC',
        `there is no type "${order.typeId}" here: the types are ${Object.keys(this.#config.types).join(', ')}`,
      )
    const uuid = uuidOf(order.ownershipKey)
    return withLock(this.#programs, join(this.#store.directory, allocateLockName), allocateWaitMs, async () => {
      const others = (await this.#store.list())
        .map((machine) => machine.record)
        .filter((record) => record.name !== order.name)
      await checkRoom(this.#store.directory, this.#config.limits, others, type)
      const sshPort = await this.#freeSshPort(others)
      const { host, workspace, machineClass } = order.host
      const defined = await this.#store.define({
        ...{ version: 1, name: order.name, ownershipKey: order.ownershipKey, uuid, typeId: order.typeId, ...type },
        ...{ image: order.image, mac: macAddress(uuid), host, workspace, machineClass },
        ...{ phase: 'creating', createdAt: new Date().toISOString() },
        ...(sshPort !== undefined && { sshPort }),
      })
      return defined.record.name
    })
  }

  /** The external id under which an ownership key was written down; undefined where it never was, or is being deleted. */
  async findDefined(ownershipKey: string): Promise<string | undefined> {
    const machine = await this.#store.findByKey(ownershipKey)
    return machine?.deleting === false ? machine.record.name : undefined
  }

  /**
   * Proves that an image can be used, and tells how large a disk must be at least to hold it, in GiB.
   *
   * @throws ProviderError of code INVALID_SPEC where it cannot.
   */
  async inspect(imageId: string, signal: AbortSignal): Promise<number> {
    const image = this.#imageOf(imageId)
    const atLeastGib = await inspectImage(this.#programs, imageId, image, signal)
    await confineImage(image, this.#imageRoot)
    return atLeastGib
  }

  /** Makes a machine's seed and disk, as far as they are not there. */
  async prepare(name: string, bootstrap: Bootstrap, signal: AbortSignal): Promise<void> {
    const machine = await this.#present(name)
    const { record, folder } = machine
    const image = this.#imageOf(record.image)
    const atLeastGib = await this.inspect(record.image, signal)
    if (record.diskGib < atLeastGib)
      throw new ProviderError('INVALID_SPEC', diskTooSmall(record.image, atLeastGib, record.diskGib))
    await this.#unlessDeleted(machine, async () => {
      await ensureSeed(folder, () =>
        seedImage(seedFiles(name, bootstrap, hubHostOf(this.#config)), new Date(record.createdAt)),
      )
      await ensureDisk(this.#programs, folder, image, record.diskGib, signal)
    })
  }

  /** Starts a machine for the first time. One that has run before is left as it is: what its power is to be is another matter. */
  async boot(name: string, signal: AbortSignal): Promise<void> {
    const machine = await this.#present(name)
    if (machine.record.phase === 'ready') return
    await this.#start(machine, signal)
    await this.#store.markReady(machine)
  }

  async powerOn(name: string, signal: AbortSignal): Promise<void> {
    await this.#start(await this.#present(name), signal)
  }

  /** Shuts a machine down, and switches it off where that takes too long. */
  async powerOff(name: string, signal: AbortSignal): Promise<void> {
    const place = placeOf(await this.#present(name))
    const qemu = await findMachineQemu(place)
    if (qemu !== undefined) await shutDown(place, qemu, this.#config.shutdownTimeoutMs, signal)
  }

  /** Shuts a machine down and starts it again, as a new process; one that is off is started. */
  async reboot(name: string, signal: AbortSignal): Promise<void> {
    await this.powerOff(name, signal)
    await this.powerOn(name, signal)
  }

  /** Looks at a machine; undefined where there is none. One that is being deleted is there until all of it is gone. */
  async observe(name: string): Promise<MachineView | undefined> {
    const machine = await this.#store.find(name)
    if (machine === undefined) return undefined
    const qemu = await findMachineQemu(placeOf(machine))
    const status = qemu === undefined ? 'off' : await queryStatus(machine.folder)
    return this.#view(machine, qemu, status)
  }

  /** Every machine, with the QEMUs whose folder was taken from under them, which are ours to delete all the same. */
  async list(): Promise<readonly MachineView[]> {
    const machines = await this.#store.list()
    const processes = (await findProcesses(this.#store.directory)).filter((process) => process.isQemu)
    const views = machines.map(async (machine) => {
      await boundConsole(machine.folder, this.#config.consoleKib * 1024)
      const qemu = processes.find((process) => isOf(process, machine))
      return this.#view(machine, qemu, qemu === undefined ? 'off' : 'running')
    })
    const unknown = processes.filter((process) => !machines.some((machine) => isOf(process, machine)))
    return [...(await Promise.all(views)), ...(await this.#strays(unknown)).map(strayView)]
  }

  /**
   * Ends a machine at once and removes all of it. It returns when its process was seen to be gone and its folder is removed; where there
   * is nothing, there is nothing to do.
   */
  async delete(ownershipKey: string, signal: AbortSignal): Promise<void> {
    const found = await this.#store.findByKey(ownershipKey)
    const machine = found === undefined ? undefined : await this.#store.beginDelete(found)
    await this.#endProcesses(ownershipKey, machine, signal)
    if (machine !== undefined) await this.#store.remove(machine)
  }

  /** The types' needs that exist, for reckoning what is left. */
  async existing(): Promise<readonly MachineRecord[]> {
    return (await this.#store.list()).map((machine) => machine.record)
  }

  async #start(machine: StoredMachine, signal: AbortSignal): Promise<void> {
    const { record, folder } = machine
    if (!(await hasStorage(folder))) {
      throw new ProviderError(
        'INTERNAL',
        `the machine ${record.name} has no disk or no seed: its creation never came that far, or its folder ${folder} was tampered with`,
      )
    }
    const image = this.#imageOf(record.image)
    await confineImage(image, this.#imageRoot)
    const args = qemuArguments({
      ...{ record, folder, image, network: this.#config.network },
      ...{ accelerator: this.#accelerator, tcgCacheMib: this.#config.tcgCacheMib },
    })
    await this.#unlessDeleted(machine, () => startQemu(this.#programs, placeOf(machine), args, signal))
  }

  /** Where something fails because the machine is deleted at the same time, that is the failure to tell of. */
  async #unlessDeleted(machine: StoredMachine, run: () => Promise<void>): Promise<void> {
    try {
      await run()
    } catch (error) {
      const now = await this.#store.find(machine.record.name)
      throw now === undefined || now.deleting ? goneMeanwhile(machine.record.name) : error
    }
  }

  /** Kills until nothing is left: a start that is under way holds the machine's lock before its process can be told. */
  async #endProcesses(ownershipKey: string, machine: StoredMachine | undefined, signal: AbortSignal): Promise<void> {
    const deadlineMs = performance.now() + killTimeoutMs
    for (;;) {
      const processes = (await findProcesses(this.#store.directory)).filter(
        (process) => process.ownershipKey === ownershipKey,
      )
      const held =
        machine !== undefined &&
        processes.length === 0 &&
        (await isLocked(this.#programs, join(machine.folder, lockFileName)))
      if (processes.length === 0 && !held) return
      if (performance.now() > deadlineMs) {
        const what =
          processes.length > 0
            ? `process ${processes.map((process) => process.pid).join(', ')} does not end`
            : 'its lock is held by an unknown process'
        throw new ProviderError('TIMEOUT', `the machine cannot be deleted: ${what}`)
      }
      for (const process of processes) await signalProcess(process, 'SIGKILL')
      await sleep(killPollMs, undefined, { signal })
    }
  }

  async #present(name: string): Promise<StoredMachine> {
    const machine = await this.#store.find(name)
    if (machine === undefined) throw new ProviderError('INTERNAL', `there is no machine ${name}`)
    if (machine.deleting) throw new ProviderError('CONFLICT', `the machine ${name} is being deleted`)
    return machine
  }

  #imageOf(id: string): Image {
    const image = this.#config.images[id]
    if (image === undefined)
      throw new ProviderError(
        'INVALID_SPEC',
        `there is no image "${id}" here: the images are ${Object.keys(this.#config.images).join(', ')}`,
      )
    return image
  }

  async #freeSshPort(others: readonly MachineRecord[]): Promise<number | undefined> {
    const { network } = this.#config
    if (network.kind !== 'user' || network.sshPorts === undefined) return undefined
    const { from, to } = network.sshPorts
    for (let port = from; port <= to; port++) {
      if (!others.some((record) => record.sshPort === port) && (await isFreePort(port))) return port
    }
    throw new ProviderError('CAPACITY', `every port from ${from} to ${to} is taken; widen network.sshPorts`)
  }

  async #view(machine: StoredMachine, qemu: MachineProcess | undefined, status: string): Promise<MachineView> {
    const { record } = machine
    return {
      name: record.name,
      ownershipKey: record.ownershipKey,
      power: qemu === undefined ? 'off' : 'on',
      addresses: this.#config.network.kind === 'bridge' ? await addressesOf(record.mac) : [],
      attributes: {
        status: machine.deleting ? 'deleting' : status,
        image: record.image,
        console: join(machine.folder, consoleFileName),
        ...(qemu !== undefined && { pid: qemu.pid, accelerator: qemu.accelerator }),
        ...(record.sshPort !== undefined && { ssh: `127.0.0.1:${record.sshPort}` }),
      },
    }
  }

  /** Of the processes that are no known machine's, those that are not just one that was made meanwhile, or that has just ended. */
  async #strays(unknown: readonly MachineProcess[]): Promise<readonly MachineProcess[]> {
    const isStray = async (process: MachineProcess): Promise<boolean> =>
      (await this.#store.find(basename(process.folder))) === undefined && (await isAlive(process))
    const verdicts = await Promise.all(unknown.map(isStray))
    return unknown.filter((_process, index) => verdicts[index])
  }
}

/** Says that a type's disk cannot hold an image. */
export function diskTooSmall(image: string, atLeastGib: number, diskGib: number): string {
  return `the image ${image} needs a disk of ${atLeastGib} GiB, and the type has ${diskGib}: take a larger type`
}

function placeOf(machine: StoredMachine): MachinePlace {
  return { folder: machine.folder, homeFolder: machine.homeFolder, uuid: machine.record.uuid }
}

function isOf(process: MachineProcess, machine: StoredMachine): boolean {
  return process.folder === machine.homeFolder && process.uuid === machine.record.uuid
}

function strayView(process: MachineProcess): MachineView {
  const attributes = { status: 'without a folder', pid: process.pid, accelerator: process.accelerator }
  return { name: basename(process.folder), ownershipKey: process.ownershipKey, power: 'on', addresses: [], attributes }
}

function uuidOf(ownershipKey: string): string {
  const uuid = ownershipKeyPattern.exec(ownershipKey)?.[1]
  if (uuid === undefined)
    throw new ProviderError('INVALID_SPEC', `"${ownershipKey}" is no ownership key of the form <hub id>/<request id>`)
  return uuid
}

/** On a bridge of this host the kernel knows the addresses of whom it has spoken with. */
async function addressesOf(mac: string): Promise<readonly Address[]> {
  const table = await readFile('/proc/net/arp', 'utf8').catch(() => '')
  const rows = table.split('\n').map((line) => line.trim().split(/\s+/))
  return rows.filter((row) => row[3] === mac).map((row) => ({ type: 'private', ip: row[0] ?? '' }))
}

function isFreePort(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
