import { statfs } from 'node:fs/promises'
import { availableParallelism, totalmem } from 'node:os'
import { ProviderError, type Offering } from '@slipway/sdk'
import type { Limits, MachineType } from './config.js'

const mibBytes = 1024 ** 2
const memoryShare = 0.8
const vcpusPerCpu = 4

/** What machines may take of the host. */
export interface Budget {
  readonly machines: number
  readonly memoryMib: number
  readonly vcpus: number
}

type Need = Pick<MachineType, 'vcpus' | 'memoryMib'>

/** The budget by configuration; what it does not say comes from the host. */
export function hostBudget(limits: Limits): Budget {
  return {
    machines: limits.machines,
    memoryMib: limits.memoryMib ?? Math.floor((totalmem() / mibBytes) * memoryShare),
    vcpus: limits.vcpus ?? availableParallelism() * vcpusPerCpu,
  }
}

/** How many machines of a type fit beside those that there are. Machines that are off count: they may be switched on at any time. */
export function countFitting(budget: Budget, existing: readonly Need[], type: Need): number {
  const left = (limit: number, of: (need: Need) => number): number =>
    Math.floor((limit - existing.reduce((sum, need) => sum + of(need), 0)) / of(type))
  const fitting = Math.min(
    left(budget.machines, () => 1),
    left(budget.memoryMib, (need) => need.memoryMib),
    left(budget.vcpus, (need) => need.vcpus),
  )
  return Math.max(0, fitting)
}

/** @throws ProviderError of code CAPACITY where there is no room for one more machine of the type. */
export async function checkRoom(
  directory: string,
  limits: Limits,
  existing: readonly Need[],
  type: Need,
): Promise<void> {
  const budget = hostBudget(limits)
  if (countFitting(budget, existing, type) < 1) {
    const all = `${budget.machines} machines, ${budget.memoryMib} MiB and ${budget.vcpus} virtual CPUs`
    throw new ProviderError(
      'CAPACITY',
      `no room for ${type.memoryMib} MiB and ${type.vcpus} virtual CPUs more: ${existing.length} machines share ${all}`,
    )
  }
  const freeMib = await freeDiskMib(directory)
  if (freeMib < limits.freeDiskMib) {
    throw new ProviderError(
      'CAPACITY',
      `only ${freeMib} MiB are free in ${directory}, and ${limits.freeDiskMib} MiB must stay free`,
    )
  }
}

/** What can be had now. */
export async function makeOfferings(
  directory: string,
  limits: Limits,
  types: Readonly<Record<string, MachineType>>,
  existing: readonly Need[],
): Promise<readonly Offering[]> {
  const budget = hostBudget(limits)
  const hasDisk = (await freeDiskMib(directory)) >= limits.freeDiskMib
  return Object.entries(types).map(([typeId, type]) => {
    const remaining = hasDisk ? countFitting(budget, existing, type) : 0
    return { typeId, shape: { ...type, architecture: 'amd64' }, available: remaining > 0, remaining }
  })
}

async function freeDiskMib(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory)
  return Math.floor((bavail * bsize) / mibBytes)
}
