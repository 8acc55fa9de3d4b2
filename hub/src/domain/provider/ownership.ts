// Whose a provider is, and who may use it.

/** As it is stored. */
export interface Ownership {
  /** Null: nobody's. */
  readonly ownerOrganizationId: string | null
  /** Null: the whole organization's. */
  readonly ownerWorkspaceId: string | null
  /** Of a pool: nobody uses it but who has claimed it. */
  readonly poolId: string | null
  readonly claimWorkspaceId: string | null
}

/** Who orders. */
export interface Orderer {
  readonly organizationId: string
  readonly workspaceId: string
}

/** Whether a workspace's hosts may be placed with a provider. The statement that reads places asks the same. */
export function mayUse(ownership: Ownership, { organizationId, workspaceId }: Orderer): boolean {
  if (ownership.poolId !== null) return ownership.claimWorkspaceId === workspaceId
  if (ownership.ownerWorkspaceId !== null) return ownership.ownerWorkspaceId === workspaceId
  return ownership.ownerOrganizationId === null || ownership.ownerOrganizationId === organizationId
}

/** Whether a provider is the workspace's own, or its organization's: brought along, and not claimed. */
export function isOwn(ownership: Ownership, orderer: Orderer): boolean {
  return ownership.ownerOrganizationId !== null && mayUse(ownership, orderer)
}
