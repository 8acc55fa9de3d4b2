import type { Hardware } from '../facts.js'

/**
 * Whether two records are of one machine, by what cannot be in two: its SMBIOS UUID, its serial number, its network cards. One thing that is the same is enough, as
 * long as nothing that both know of differs.
 */
export function isSameMachine(one: Hardware, other: Hardware): boolean {
  const uuid = compare(one.uuid?.toLowerCase(), other.uuid?.toLowerCase())
  const serial = compare(one.serial, other.serial)
  if (uuid === 'differs' || serial === 'differs') return false
  const macs = new Set(one.macs ?? [])
  return uuid === 'same' || serial === 'same' || (other.macs ?? []).some((mac) => macs.has(mac))
}

function compare(one: string | undefined, other: string | undefined): 'same' | 'differs' | 'unknown' {
  if (one === undefined || other === undefined || one === '' || other === '') return 'unknown'
  return one === other ? 'same' : 'differs'
}

/** Whether enough is known of a machine for a rule to take it into service without a person: what it has, and who it is. */
export function isKnown({ shape, serial, uuid, macs }: Hardware): boolean {
  const has = shape !== undefined && shape.vcpus > 0 && shape.memoryMib > 0
  const is = (serial ?? '') !== '' || (uuid ?? '') !== '' || (macs ?? []).length > 0
  return has && is
}
