import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Config, Image, Network } from './config.js'
import { diskFileName, seedFileName } from './disk.js'
import type { Accelerator } from './probe.js'
import { ownershipKeyItem, pidFileName } from './process-table.js'
import type { MachineRecord } from './store.js'

export const consoleFileName = 'console.log'
export const monitorSocketName = 'qmp.sock'

/** What a machine is started with. */
export interface LaunchPlan {
  readonly record: MachineRecord
  /** The machine's folder. QEMU is to be started in it: the path of a socket must be short, and is therefore relative. */
  readonly folder: string
  readonly image: Image
  readonly network: Network
  readonly accelerator: Accelerator
  readonly tcgCacheMib: Config['tcgCacheMib']
}

/** The arguments of QEMU for a machine. Who it is can be read from them: name, UUID, folder and ownership key. */
export function qemuArguments(plan: LaunchPlan): readonly string[] {
  const { record, folder } = plan
  return [
    ...['-name', `guest=${record.name},debug-threads=on`],
    ...['-uuid', record.uuid],
    ...['-machine', 'q35,usb=off,vmport=off'],
    ...acceleratorArguments(plan),
    ...['-smp', String(record.vcpus)],
    ...['-m', `${record.memoryMib}M`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-vga', 'none'],
    ...['-sandbox', sandbox(plan.network)],
    ...['-pidfile', join(folder, pidFileName)],
    ...['-msg', 'timestamp=on'],
    ...[
      '-smbios',
      `type=1,manufacturer=Slipway,product=${escapeCommas(record.typeId)},serial=${record.name},uuid=${record.uuid}`,
    ],
    ...['-fw_cfg', `name=${ownershipKeyItem},string=${record.ownershipKey}`],
    ...['-qmp', `unix:${monitorSocketName},server=on,wait=off`],
    ...['-chardev', `file,id=console0,append=on,path=${escapeCommas(join(folder, consoleFileName))}`],
    ...['-serial', 'chardev:console0'],
    ...diskArguments(folder),
    ...networkArguments(plan),
    ...['-object', 'rng-random,id=rng0,filename=/dev/urandom', '-device', 'virtio-rng-pci,rng=rng0'],
    ...kernelArguments(plan.image),
  ]
}

/** A MAC address of the machine's own, locally administered and always the same. */
export function macAddress(uuid: string): string {
  const digest = createHash('sha256').update(uuid).digest()
  return ['02', ...[...digest.subarray(0, 5)].map((byte) => byte.toString(16).padStart(2, '0'))].join(':')
}

function acceleratorArguments({ accelerator, tcgCacheMib }: LaunchPlan): readonly string[] {
  if (accelerator.kind === 'kvm') return ['-accel', 'kvm', '-cpu', 'host']
  return ['-accel', `tcg,thread=multi,tb-size=${tcgCacheMib}`, '-cpu', 'max']
}

/** A bridge is joined with the help of a privileged program, which a QEMU that may start none cannot call. */
function sandbox(network: Network): string {
  const strict = 'on,obsolete=deny,resourcecontrol=deny'
  return network.kind === 'bridge' ? strict : `${strict},elevateprivileges=deny,spawn=deny`
}

function diskArguments(folder: string): readonly string[] {
  const [disk, seed] = [diskFileName, seedFileName].map((file) => escapeCommas(join(folder, file)))
  return [
    ...['-drive', `if=none,id=disk0,file=${disk},format=qcow2,discard=unmap,detect-zeroes=unmap`],
    ...['-device', 'virtio-blk-pci,drive=disk0,serial=disk0,bootindex=1'],
    ...['-drive', `if=none,id=seed0,file=${seed},format=raw,readonly=on`],
    ...['-device', 'virtio-blk-pci,drive=seed0,serial=cidata'],
  ]
}

function networkArguments({ network, record }: LaunchPlan): readonly string[] {
  // Without a boot ROM: machines boot from their disk or kernel, never from the network.
  const card = ['-device', `virtio-net-pci,netdev=net0,mac=${record.mac},romfile=`]
  if (network.kind === 'bridge') return ['-netdev', `bridge,id=net0,br=${network.bridge}`, ...card]
  const restrict = network.isolated ? ',restrict=on' : ''
  const forward = record.sshPort === undefined ? '' : `,hostfwd=tcp:127.0.0.1:${record.sshPort}-:22`
  return ['-netdev', `user,id=net0${restrict}${forward}`, ...card]
}

function kernelArguments(image: Image): readonly string[] {
  if (image.kind !== 'kernel') return []
  return [
    '-kernel',
    image.kernel,
    ...(image.initrd === undefined ? [] : ['-initrd', image.initrd]),
    '-append',
    image.cmdline,
  ]
}

/** In QEMU's option lists a comma ends a value; two stand for one. */
function escapeCommas(value: string): string {
  return value.replaceAll(',', ',,')
}
