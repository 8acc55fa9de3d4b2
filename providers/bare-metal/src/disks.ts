import type { InventoryDisk } from './agent/protocol.js'
import type { DiskHint } from './config.js'

const gib = 1024 ** 3

export type DiskClass = 'nvme' | 'ssd' | 'hdd'

export function classOf({ transport, rotational }: InventoryDisk): DiskClass {
  if (transport === 'nvme') return 'nvme'
  return rotational ? 'hdd' : 'ssd'
}

/**
 * The disk to install on. Without a hint: the least surprising one, which is not on USB, turns only where nothing else does, and is the smallest that is large enough;
 * always the same one of several that are alike.
 *
 * @param atLeastGib size that the class asks for.
 * @returns undefined where none fits.
 */
export function chooseDisk(
  disks: readonly InventoryDisk[],
  hint: DiskHint,
  atLeastGib: number,
): InventoryDisk | undefined {
  const isNamed = hint.serial !== undefined || hint.wwn !== undefined
  const fitting = disks.filter(
    (disk) =>
      (hint.serial === undefined || disk.serial === hint.serial) &&
      (hint.wwn === undefined || disk.wwn === hint.wwn) &&
      (hint.class === undefined || classOf(disk) === hint.class) &&
      disk.sizeBytes >= Math.max(hint.minGib ?? 0, atLeastGib) * gib &&
      (hint.maxGib === undefined || disk.sizeBytes <= hint.maxGib * gib) &&
      (isNamed || disk.transport !== 'usb'),
  )
  return [...fitting].sort(byPreference)[0]
}

function byPreference(one: InventoryDisk, other: InventoryDisk): number {
  return (
    Number(one.rotational) - Number(other.rotational) ||
    one.sizeBytes - other.sizeBytes ||
    compare(one.serial, other.serial) ||
    compare(one.name, other.name)
  )
}

function compare(one: string, other: string): number {
  return one < other ? -1 : Number(one > other)
}

/** What was asked for and what is there, for people. */
export function describeMiss(disks: readonly InventoryDisk[], hint: DiskHint, atLeastGib: number): string {
  const asked = Object.entries({ ...hint, ...(atLeastGib > 0 && { minGib: Math.max(hint.minGib ?? 0, atLeastGib) }) })
  const wish = asked.map(([name, value]) => `${name} ${value}`).join(', ') || 'any that is not on USB'
  const there = disks.map(
    (disk) =>
      `${disk.name} (${classOf(disk)}, ${Math.floor(disk.sizeBytes / gib)} GiB, ${disk.transport}, serial ${disk.serial || 'none'})`,
  )
  return `no disk fits (${wish}); there are ${there.join(', ') || 'none at all'}`
}
