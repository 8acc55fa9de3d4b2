import type { Shape } from '../facts.js'

/** Why a shape does not do, or undefined where it has all that is asked for. Zero and empty ask for nothing; what is offered as zero or empty is not known to be there. */
export type ShapeMismatch = 'SHAPE_TOO_SMALL' | 'ARCHITECTURE_MISMATCH' | 'DISK_CLASS_MISMATCH'

/** Compares what is offered with the least that is asked for. */
export function shapeMismatch(
  asked: Shape,
  offered: Shape,
): { readonly reason: ShapeMismatch; readonly message: string } | undefined {
  if (asked.architecture !== '' && offered.architecture !== asked.architecture) {
    return {
      reason: 'ARCHITECTURE_MISMATCH',
      message: `is ${offered.architecture || 'of unknown architecture'}, not ${asked.architecture}`,
    }
  }
  const lacks = [
    ...(offered.vcpus < asked.vcpus ? [`${offered.vcpus} of ${asked.vcpus} vCPUs`] : []),
    ...(offered.memoryMib < asked.memoryMib ? [`${offered.memoryMib} of ${asked.memoryMib} MiB memory`] : []),
    ...(offered.diskGib < asked.diskGib ? [`${offered.diskGib} of ${asked.diskGib} GiB disk`] : []),
  ]
  if (lacks.length > 0) return { reason: 'SHAPE_TOO_SMALL', message: `has only ${lacks.join(', ')}` }
  if (asked.diskClass !== '' && offered.diskClass !== asked.diskClass) {
    return {
      reason: 'DISK_CLASS_MISMATCH',
      message: `has ${offered.diskClass || 'unknown'} disks, not ${asked.diskClass}`,
    }
  }
  return undefined
}

/** Orders shapes from small to large: memory first, which is what costs most, then vCPUs and disk. */
export function compareShapes(one: Shape | null, other: Shape | null): number {
  if (one === null || other === null) return Number(one === null) - Number(other === null)
  return one.memoryMib - other.memoryMib || one.vcpus - other.vcpus || one.diskGib - other.diskGib
}
