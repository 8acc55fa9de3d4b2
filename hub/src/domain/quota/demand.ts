import type { ClassSpec } from '../host/host.js'
import type { Candidate, LimitReason } from '../placement/placement.js'
import { isBudget, type Demand, type Excess } from './quota.js'

/** What of a host counts, wherever it is placed. */
export interface Orderer {
  readonly organizationId: string
  readonly workspaceId: string
  readonly className: string
  readonly classSpec: ClassSpec
}

/** What a host takes up: by its class's shape, and by its place where that is known. */
export function demandOf(orderer: Orderer, place: Demand['place']): Demand {
  const { organizationId, workspaceId, className, classSpec } = orderer
  return {
    organizationId,
    workspaceId,
    className,
    vcpus: classSpec.shape.vcpus,
    memoryMib: classSpec.shape.memoryMib,
    place,
  }
}

/** A candidate as limits see it. A static machine without a price is there already, and costs nothing more. */
export function placeOf({ provider, price }: Pick<Candidate, 'provider' | 'price'>): NonNullable<Demand['place']> {
  return { family: provider.family, price, free: provider.kind === 'STATIC' && price === null }
}

/** Why a place, or an order, is refused for a limit. */
export function limitReason({ limit }: Excess): LimitReason {
  return isBudget(limit) ? 'BUDGET_EXCEEDED' : 'QUOTA_EXCEEDED'
}
