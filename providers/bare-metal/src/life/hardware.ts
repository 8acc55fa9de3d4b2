import type { Hardware, Json } from '@slipway/sdk'
import type { Inventory } from '../agent/protocol.js'
import { isBlankUuid } from '../boot/pxe-client.js'
import { isUnicastMac } from '../mac.js'
import { chooseDisk, classOf } from '../disks.js'

const mib = 1024 ** 2
const gib = 1024 ** 3

/** A machine's hardware as classes compare it. The disk is the one that would be installed on without any hint. */
export function hardwareOf(inventory: Inventory): Hardware {
  const { cpu, memoryBytes, disks, dmi, nics } = inventory
  const disk = chooseDisk(disks, {}, 0)
  return {
    shape: {
      vcpus: cpu.count,
      // Firmware keeps some for itself: what was sold as 64 GiB shows as less.
      memoryMib: Math.round(memoryBytes / mib),
      diskGib: Math.floor((disk?.sizeBytes ?? 0) / gib),
      ...(disk !== undefined && { diskClass: classOf(disk) }),
      architecture: cpu.architecture,
    },
    vendor: dmi.vendor,
    model: dmi.product,
    serial: dmi.serial,
    nics: nics.length,
    macs: nics
      .map(({ mac }) => mac)
      .filter(isUnicastMac)
      .slice(0, 64),
    ...(/^[0-9a-f-]{36}$/i.test(dmi.uuid) && !isBlankUuid(dmi.uuid.toLowerCase()) && { uuid: dmi.uuid.toLowerCase() }),
    details: detailsOf(inventory),
  }
}

function detailsOf({ cpu, disks, nics, firmware, bmc, dmi, bootMac, kernel }: Inventory): {
  readonly [key: string]: Json
} {
  return {
    cpu: { model: cpu.model, count: cpu.count, sockets: cpu.sockets },
    disks: disks.map((disk) => ({ ...disk, class: classOf(disk) })),
    nics: nics.map(({ name, mac, link, speedMbps, driver, addresses }) => ({
      name,
      mac,
      link,
      driver,
      addresses,
      ...(speedMbps !== undefined && { speedMbps }),
    })),
    firmware: { ...firmware },
    dmi: { uuid: dmi.uuid, assetTag: dmi.assetTag, boardSerial: dmi.boardSerial },
    agentKernel: kernel,
    ...(bmc !== undefined && { bmc: { ...bmc } }),
    ...(bootMac !== undefined && { bootMac }),
  }
}

/** Labels that follow from what a machine is made of, for classes to choose by. */
export function labelsOf({ disks, nics, firmware, cpu }: Inventory): Readonly<Record<string, string>> {
  const classes = [...new Set(disks.map(classOf))].sort()
  return {
    'hardware/architecture': cpu.architecture,
    'hardware/cpu-sockets': String(cpu.sockets),
    'hardware/disks': String(disks.length),
    'hardware/disk-classes': classes.join('-'),
    'hardware/firmware': firmware.mode,
    'hardware/nics': String(nics.length),
    'hardware/nics-linked': String(nics.filter(({ link }) => link).length),
  }
}
