// The values that resources are made of. They are stored as JSON under these very names, so a change here needs a migration.

export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined }
export type JsonObject = { readonly [key: string]: Json | undefined }
export type Labels = Readonly<Record<string, string>>

/** What a machine has, or must have at least. Zero and empty mean: any. */
export interface Shape {
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskGib: number
  readonly diskClass: string
  readonly architecture: string
}

/** Millionths of the currency's unit, without tax. Whole numbers below 2^53. */
export interface Price {
  readonly currency: string
  readonly hourlyMicros: number
  readonly monthlyMicros: number
  readonly setupMicros: number
}

export type PowerState = 'ON' | 'OFF'

export interface Address {
  readonly type: 'PUBLIC' | 'PRIVATE' | 'UNSPECIFIED'
  readonly ip: string
}

export type ConditionStatus = 'TRUE' | 'FALSE' | 'UNKNOWN'

export interface Condition {
  readonly type: string
  readonly status: ConditionStatus
  readonly reason: string
  readonly message: string
  /** ISO 8601. */
  readonly lastTransitionAt: string
}

export interface Progress {
  readonly step: string
  readonly percent?: number
  readonly message: string
}

export interface Hardware {
  readonly shape?: Shape
  readonly vendor?: string
  readonly model?: string
  readonly serial?: string
  readonly details?: JsonObject
  readonly nics?: number
  readonly uuid?: string
  readonly macs?: readonly string[]
}

export type FailureCode =
  | 'CAPACITY'
  | 'QUOTA'
  | 'INVALID_SPEC'
  | 'CREDENTIALS'
  | 'CONFLICT'
  | 'RATE_LIMITED'
  | 'UNAVAILABLE'
  | 'TIMEOUT'
  | 'INTERNAL'

/** A failure as a provider, or the hub itself, tells it. */
export interface Failure {
  readonly code: FailureCode
  readonly message: string
  readonly retryable: boolean
  readonly retryAfterMs?: number
  readonly externalCode: string
  readonly step: string
}

/** The latest failure of a resource, kept until it is truly well or gone. */
export interface LastError {
  readonly code: FailureCode
  readonly message: string
  readonly externalCode: string
  readonly step: string
  readonly retryable: boolean
  /** Failures in a row, this one included. */
  readonly attempts: number
  /** ISO 8601. */
  readonly at: string
  /** ISO 8601. */
  readonly nextAttemptAt?: string
}

/** A line for a timeline, before it is stored. */
export interface EventDraft {
  /** Resource name, for example `workspaces/default/hosts/web-1`. */
  readonly subject: string
  readonly related?: readonly string[]
  /** UpperCamelCase, one of {@link EventReason}. */
  readonly reason: EventReason
  readonly message: string
  readonly severity: 'INFO' | 'WARNING' | 'ERROR'
  readonly providerId?: string
  readonly organizationId?: string
}

/** Every reason that an event may carry; docs/events.md lists them and a test compares both. */
export const eventReasons = [
  // provider
  'ProviderAdded',
  'ProviderUpdated',
  'ProviderDeleted',
  'CapacityHeld',
  'CapacityReleased',
  'ProviderConnected',
  'ProviderDisconnected',
  'ProviderUnhealthy',
  'ProviderHealthy',
  'ProviderDraining',
  'ProviderUndrained',
  'ConfigurationAccepted',
  'ConfigurationRefused',
  'CredentialsProven',
  'JoinTokenCreated',
  'InstanceEnrolled',
  'JoinTokenMisused',
  'ProviderClaimed',
  'ProviderReleased',
  'PoolCreated',
  'PoolUpdated',
  'PoolDeleted',
  // secret
  'SecretCreated',
  'SecretUpdated',
  'SecretRotated',
  'SecretDeleted',
  // tenancy
  'OrganizationCreated',
  'OrganizationUpdated',
  'OrganizationDeleted',
  'WorkspaceCreated',
  'WorkspaceUpdated',
  'WorkspaceDeleted',
  'WorkspaceShareSet',
  'PrincipalCreated',
  'PrincipalUpdated',
  'PrincipalDeleted',
  'RoleBound',
  'RoleUnbound',
  'TokenCreated',
  'TokenRevoked',
  'SignedIn',
  'IdentityLinked',
  'IdentityUnlinked',
  // quota
  'QuotaCreated',
  'QuotaUpdated',
  'QuotaDeleted',
  // price
  'PriceListCreated',
  'PriceListUpdated',
  'PriceListDeleted',
  'BillingAgreementCreated',
  'BillingAgreementUpdated',
  'BillingAgreementDeleted',
  // class
  'ClassCreated',
  'ClassUpdated',
  'ClassDeleted',
  // host
  'HostOrdered',
  'HostPlaced',
  'HostWaiting',
  'HostProvisioning',
  'HostBootstrapping',
  'HostReady',
  'HostReinstalling',
  'HostFailed',
  'HostRetried',
  'HostReplaced',
  'HostUpdated',
  'HostReleasing',
  'HostReleased',
  'HostExpiring',
  'HostExpired',
  'HostExpiryHeld',
  'PhonedHome',
  // host set
  'HostSetCreated',
  'HostSetUpdated',
  'HostSetReady',
  'HostSetPaused',
  'HostSetResumed',
  'HostSetRolloutFailed',
  'HostSetOrderRefused',
  'HostSetMembersOrdered',
  'HostSetMemberReleased',
  'HostSetDeleting',
  'HostSetDeleted',
  // request
  'RequestCreated',
  'RequestClaimed',
  'RequestStepDone',
  'RequestProvisioned',
  'RequestFailed',
  'RequestDeprovisioning',
  'RequestGone',
  'RequestForgotten',
  'RequestRetried',
  'AttemptFailed',
  'CreateInDoubt',
  // machine
  'MachineDiscovered',
  'MachineAccepted',
  'MachineStateChanged',
  'MachineFailed',
  'MachineRetried',
  'MachineWaitOver',
  'MachineMaintenanceBegun',
  'MachineMaintenanceEnded',
  'MachineHeld',
  'MachineUnheld',
  'HostAdopting',
  'MachineAdopting',
  'MachineAdopted',
  'MachineMoved',
  'MachineUpdated',
  'MachineDeleted',
  'MachineVanished',
  'MachineReappeared',
  'PowerWished',
  'PowerChanged',
  'Rebooted',
  'Reinstalled',
  'RescueWished',
  'RescueChanged',
  // what providers tell in their own words
  'ProviderReported',
  'ProviderReportsDropped',
  // out there
  'OrphanSeen',
  'OrphanGone',
  'OrphanRemovalOrdered',
  'OrphanRemovalWithdrawn',
  'OrphanRemovalRefused',
  'OrphanRemovalFailed',
  'OrphanRemoved',
  'OrphanKept',
  'OrphanReleased',
  'OrphanRemovalStopped',
  'OrphanRemovalResumed',
] as const
export type EventReason = (typeof eventReasons)[number]
