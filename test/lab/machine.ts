import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, copyFileSync, existsSync, openSync, readFileSync, rmSync, truncateSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { until } from '../tools/processes.js'
import { tapOf, type LabNetwork } from './network.js'
import { tellQemu } from './qmp.js'

export interface MachineOptions {
  /** From 1; of it come its MAC address, its serial number and its place on the switch. */
  readonly number: number
  readonly firmware: 'bios' | 'uefi'
  readonly disk: 'virtio' | 'nvme'
  readonly diskMib?: number
}

const hex = (number: number) => number.toString(16).padStart(2, '0')

/** A server in the lab: a QEMU that is there while the machine has power, and files that stay: its disk, what its firmware remembers, its console. */
export class LabMachine {
  readonly number: number
  readonly mac: string
  readonly uuid: string
  readonly serial: string
  readonly firmware: 'bios' | 'uefi'
  readonly diskFile: string
  readonly consoleFile: string
  readonly #network: LabNetwork
  readonly #folder: string
  readonly #disk: 'virtio' | 'nvme'
  #child: ChildProcess | undefined
  /** How often it was given power. */
  starts = 0

  constructor(network: LabNetwork, folder: string, { number, firmware, disk, diskMib = 2048 }: MachineOptions) {
    this.number = number
    this.firmware = firmware
    this.mac = `52:54:00:77:00:${hex(number)}`
    this.uuid = `aaaaaaaa-0000-4000-8000-0000000000${hex(number)}`
    this.serial = `LAB-${number}`
    this.diskFile = join(folder, `disk-${number}.raw`)
    this.consoleFile = join(folder, `console-${number}.log`)
    this.#network = network
    this.#folder = folder
    this.#disk = disk
    closeSync(openSync(this.diskFile, 'a'))
    truncateSync(this.diskFile, diskMib * 1024 * 1024)
  }

  get isOn(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** Gives it power. `network`: it tries the network first, this once. */
  async powerOn(first: 'network' | 'disk'): Promise<void> {
    if (this.isOn) return
    this.starts += 1
    const [network, disk] = first === 'network' ? [1, 2] : [2, 1]
    const [command = '', ...args] = [...this.#network.inside, 'qemu-system-x86_64', ...this.#args(network, disk)]
    rmSync(this.#control, { force: true })
    const log = openSync(join(this.#folder, `qemu-${this.number}.log`), 'a')
    const child = spawn(command, args, { stdio: ['ignore', log, log] })
    closeSync(log)
    this.#child = child
    await until(`QEMU of machine ${this.number}`, () => existsSync(this.#control) || !this.isOn)
    // What the firmware is told to try first is read at each reset: from the next one on it is the disk.
    if (first === 'network') await this.#preferDisk()
  }

  /** Takes its power away at once. */
  async powerOff(): Promise<void> {
    const child = this.#child
    if (child === undefined || !this.isOn) return
    const exit = once(child, 'exit')
    child.kill('SIGKILL')
    await exit
  }

  async reset(first: 'network' | 'disk'): Promise<void> {
    if (!this.isOn) return
    if (first === 'network') await this.#bootIndex(5)
    await tellQemu(this.#control, { execute: 'system_reset' })
    await this.#preferDisk()
  }

  /** Presses the power button. */
  async pressButton(): Promise<void> {
    if (this.isOn) await tellQemu(this.#control, { execute: 'system_powerdown' })
  }

  console(): string {
    return existsSync(this.consoleFile) ? readFileSync(this.consoleFile, 'latin1') : ''
  }

  /** How often some bytes are on its disk. Reads all that was ever written. */
  async countOnDisk(bytes: string): Promise<number> {
    const wanted = Buffer.from(bytes)
    const disk = await open(this.diskFile)
    try {
      const { size } = await disk.stat()
      const chunk = Buffer.alloc(8 * 1024 * 1024)
      let count = 0
      for (let at = 0; at < size; at += chunk.length - wanted.length + 1) {
        const { bytesRead } = await disk.read(chunk, 0, chunk.length, at)
        const part = chunk.subarray(0, bytesRead)
        for (let found = part.indexOf(wanted); found >= 0; found = part.indexOf(wanted, found + 1)) count += 1
      }
      return count
    } finally {
      await disk.close()
    }
  }

  get #control(): string {
    return join(this.#folder, `qmp-${this.number}`)
  }

  async #preferDisk(): Promise<void> {
    if (this.isOn) await this.#bootIndex(0)
  }

  async #bootIndex(value: number): Promise<void> {
    const path = '/machine/peripheral/disk0'
    await tellQemu(this.#control, { execute: 'qom-set', arguments: { path, property: 'bootindex', value } })
  }

  #args(network: number, disk: number): readonly string[] {
    const { number } = this
    const device = this.#disk === 'nvme' ? 'nvme' : 'virtio-blk-pci'
    // iPXE of the card itself for BIOS; UEFI has PXE of its own, and gets iPXE over TFTP.
    const rom = this.firmware === 'uefi' ? ',romfile=' : ''
    return [
      ...['-name', `lab-${number}`, '-machine', 'q35,usb=off', '-accel', 'tcg,thread=multi,tb-size=128', '-cpu', 'max'],
      ...['-smp', '1', '-m', '512', '-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'none'],
      ...['-uuid', this.uuid],
      ...['-smbios', `type=1,manufacturer=Lab,product=Server,serial=${this.serial},uuid=${this.uuid}`],
      ...(this.firmware === 'uefi' ? this.#firmwareArgs() : []),
      ...['-netdev', `tap,id=n0,ifname=${tapOf(number)},script=no,downscript=no`],
      ...['-device', `virtio-net-pci,netdev=n0,id=nic0,mac=${this.mac},bootindex=${network}${rom}`],
      ...['-drive', `file=${this.diskFile},if=none,id=d0,format=raw,discard=unmap,cache=unsafe`],
      ...['-device', `${device},drive=d0,id=disk0,serial=DISK-${number},bootindex=${disk}`],
      ...['-device', 'virtio-rng-pci'],
      ...['-chardev', `file,id=console,path=${this.consoleFile},append=on`, '-serial', 'chardev:console'],
      ...['-qmp', `unix:${this.#control},server=on,wait=off`],
    ]
  }

  #firmwareArgs(): readonly string[] {
    const variables = join(this.#folder, `firmware-${this.number}.fd`)
    if (!existsSync(variables)) copyFileSync('/usr/share/OVMF/OVMF_VARS_4M.fd', variables)
    const code = '/usr/share/OVMF/OVMF_CODE_4M.fd'
    return [
      ...['-drive', `if=pflash,format=raw,unit=0,readonly=on,file=${code}`],
      ...['-drive', `if=pflash,format=raw,unit=1,file=${variables}`],
    ]
  }
}
