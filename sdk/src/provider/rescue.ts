import type { Task } from './task.js'
import type { RescueWish } from './types.js'

/** The revision of the wish for the rescue system; 0: it is to run its own. */
export function wishedRescue({ wish }: Task): bigint {
  return wish.rescue?.revision ?? 0n
}

/** The revision under which it runs its rescue system, as far as anybody has said. */
export function rescueNow({ item }: Task): bigint {
  return item.observed.rescue ?? 0n
}

/** What the author is to do. */
export function toRescueWish({ wish }: Task): RescueWish {
  if (wish.rescue === undefined) return { enabled: false }
  const { sshKeys, sshPublicKeys } = wish.rescue
  return { enabled: true, sshKeys: [...sshKeys], sshPublicKeys: [...sshPublicKeys] }
}
