import type { ColumnType, Generated, GeneratedAlways, Selectable } from 'kysely'
import type { Role } from '../domain/access/roles.js'
import type {
  Address,
  Condition,
  Hardware,
  JsonObject,
  Labels,
  LastError,
  PowerState,
  Price,
  Progress,
  Shape,
} from '../domain/facts.js'
import type {
  ClassBootstrap,
  ClassOffering,
  ClassSpec,
  HostState,
  MachineSelector,
  PlacementAttempt,
  PlacementWish,
} from '../domain/host/host.js'
import type { HostSetCounts, HostSetState, HostTemplate, PauseReason, Spread } from '../domain/host-set/host-set.js'
import type { MachineOperation, MachineState } from '../domain/machine/machine.js'
import type { KeepReason, OrphanMode } from '../domain/orphan/orphan.js'
import type { ClaimTime } from '../domain/pool/pool.js'
import type { Capability, Health, ProviderConnection, ProviderKind, StoredBudget } from '../domain/provider/provider.js'
import type { PriceEntry } from '../domain/price/pricing.js'
import type { LimitKind } from '../domain/quota/quota.js'
import type { Presence, RequestOperation, RequestSpec, RequestState, RescueWish } from '../domain/request/request.js'

// The columns of every table, as migrations leave them. bigint columns are read as numbers (none comes near 2^53).

/** A jsonb column: read as a value, written as JSON text (`JSON.stringify`), because pg would write arrays as SQL arrays. */
type Jsonb<T> = ColumnType<T, string, string>
type JsonbDefault<T> = ColumnType<T, string | undefined, string>
type TimeDefault = ColumnType<Date, Date | undefined, Date>

/** Kept by triggers on machines. */
export interface MachineLabelsTable {
  /** `key=value`. */
  label: string
  machine_name: string
}

export interface HubMetaTable {
  only_row: Generated<boolean>
  hub_id: Generated<string>
  epoch: Generated<string>
  created_at: TimeDefault
  restored_at: ColumnType<Date | null, never, never>
}
interface TenancyColumns {
  id: string
  name: string
  display_name: Generated<string>
  labels: JsonbDefault<Labels>
  annotations: JsonbDefault<Labels>
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
  deleted_at: Date | null
}
export type OrganizationsTable = TenancyColumns
export interface WorkspacesTable extends TenancyColumns {
  organization_id: string
  organization_name: string
  weight: Generated<number>
  /** -1, 0 or 1, as in domain/share; the same below. */
  priority: Generated<number>
  max_priority: Generated<number>
}
export interface PrincipalsTable extends TenancyColumns {
  organization_id: string | null
  organization_name: string | null
  kind: 'USER' | 'SERVICE_ACCOUNT'
  disabled: Generated<boolean>
}
export interface RoleBindingsTable {
  id: string
  name: string
  principal_id: string
  role: Role
  organization_id: string | null
  organization_name: string | null
  workspace_name: string | null
  created_by: string
  created_at: TimeDefault
}
export interface AuditEntriesTable {
  xid: Generated<string>
  id: string
  at: TimeDefault
  organization_id: string | null
  principal: string
  token_id: string
  source: string
  method: string
  resource: string
  result: 'OK' | 'DENIED'
  request_id: string
}
export interface AuditChainTable {
  chain: string
  sequence: number
  entry_xid: string
  entry_id: string
  hash: Buffer
  sealed_at: TimeDefault
}
export interface AuditHeadsTable {
  chain: string
  sequence: number
  hash: Buffer
  signed_at: Date
  signature: Buffer
}
export interface AuditCursorTable {
  only_row: Generated<boolean>
  sealed_before: string
  epoch: string
}
export interface CertificateAuthoritiesTable {
  id: string
  certificate_der: Buffer
  key_sealed: Buffer
  created_at: TimeDefault
  retired_at: Date | null
}
export interface ClientTokensTable {
  id: string
  secret_hash: Buffer
  name: string
  bootstrap: Generated<boolean>
  created_at: TimeDefault
  expires_at: Date | null
  last_used_at: Date | null
  revoked_at: Date | null
  principal_id: Generated<string>
  created_by: Generated<string>
  identity_id: string | null
}
export interface PrincipalIdentitiesTable {
  id: string
  name: string
  principal_id: string
  issuer: string
  subject: string | null
  email: string | null
  created_by: string
  created_at: TimeDefault
  expires_at: Date | null
  last_used_at: Date | null
}
export interface UsedIdTokensTable {
  digest: Buffer
  expires_at: Date
}
export interface IdempotencyKeysTable {
  scope: string
  key: string
  request_hash: Buffer
  response: Buffer
  created_at: TimeDefault
}
export interface ProvidersTable {
  id: string
  name: string
  family: string
  kind: ProviderKind
  config: JsonbDefault<JsonObject>
  config_version: Generated<number>
  has_credentials: Generated<boolean>
  credentials_secret: Generated<string>
  labels: JsonbDefault<Labels>
  annotations: JsonbDefault<Labels>
  auto_accept_machines: Generated<boolean>
  draining: Generated<boolean>
  state: Generated<ProviderConnection>
  health: Generated<Health>
  health_message: Generated<string>
  conditions: JsonbDefault<readonly Condition[]>
  last_error: ColumnType<LastError | null, string | null | undefined, string | null>
  capabilities: JsonbDefault<readonly Capability[]>
  config_schema: Generated<string>
  credentials_schema: Generated<string>
  data_schema: Generated<string>
  listing_lag_ms: Generated<number>
  offerings_at: Date | null
  effect_timeout_ms: Generated<number>
  orphan_mode: Generated<OrphanMode>
  orphan_min_age_ms: Generated<number>
  orphan_max_per_pass: Generated<number>
  orphan_max_percent: Generated<number>
  orphan_stopped_at: ColumnType<Date | null, Date | null | undefined, Date | null>
  region: Generated<string>
  residency: ColumnType<readonly string[], readonly string[] | undefined, readonly string[]>
  owner_organization_id: ColumnType<string | null, string | null | undefined, string | null>
  owner_workspace_id: ColumnType<string | null, string | null | undefined, string | null>
  /** `organizations/{id}`, `workspaces/{id}`, or empty: nobody's. */
  owner_name: Generated<string>
  pool_id: ColumnType<string | null, string | null | undefined, string | null>
  pool_name: Generated<string>
  claim_workspace_id: ColumnType<string | null, string | null | undefined, string | null>
  claim_workspace_name: Generated<string>
  claimed_at: ColumnType<Date | null, Date | null | undefined, Date | null>
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
  deleted_at: Date | null
}
export interface ProviderCredentialsTable {
  provider_id: string
  config_version: number
  sealed: Buffer | null
  organization_id: string | null
  secret_id: string | null
  secret_version: number | null
  updated_at: TimeDefault
}
export interface ProviderPoolsTable {
  id: string
  name: string
  display_name: Generated<string>
  family: string
  region: Generated<string>
  claim_on: ClaimTime
  organizations: ColumnType<readonly string[], readonly string[] | undefined, readonly string[]>
  workspace_selector: Generated<string>
  included_hosts: number | null
  trial_ms: number | null
  idle_release_ms: number | null
  unless_own: Generated<boolean>
  labels: JsonbDefault<Labels>
  annotations: JsonbDefault<Labels>
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
}
export interface ProviderClaimsTable {
  id: string
  pool_id: string
  provider_id: string
  organization_id: string
  workspace_id: string
  workspace_name: string
  included_hosts: number | null
  trial_ends_at: Date | null
  claimed_at: TimeDefault
  idle_since: Date | null
  released_at: Date | null
}
export interface WorkSharesTable {
  provider_id: string
  workspace_id: string
  began: number
  pass: number
}
export interface WorkClocksTable {
  provider_id: string
  clock: number
}
export interface CapacityHoldsTable {
  credential: string
  code: 'CAPACITY' | 'QUOTA'
  type_id: string
  location: string
  market: string
  provider_id: string
  provider_name: string
  shape: ColumnType<Shape | null, string | null, string | null>
  reason: string
  held_at: TimeDefault
  held_until: Date
}
export interface PlaceFailuresTable {
  provider_id: string
  type_id: string
  location: string
  machine_id: Generated<string>
  failures: number
  creates: number
  failed_at: TimeDefault
}
export interface MachineLanesTable {
  id: string
  organization_id: string
  workspace_id: string
  priority: number
  wish: string
  turn_provider_id: string | null
  missed_at: Date | null
  passed_until: Date | null
  joined_at: TimeDefault
}
export interface MachineWaitsTable {
  organization_id: string
  host_id: string
  lane_id: string
  since: Date
}
export interface MachineSharesTable {
  provider_id: string
  workspace_id: string
  pass: number
}
export interface MachineClocksTable {
  provider_id: string
  clock: number
}
export interface SecretsTable {
  organization_id: string
  id: string
  name: string
  description: Generated<string>
  labels: JsonbDefault<Labels>
  annotations: JsonbDefault<Labels>
  current_version: Generated<number>
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
}
export interface PriceListsTable {
  id: string
  name: string
  display_name: Generated<string>
  is_default: Generated<boolean>
  entries: JsonbDefault<readonly PriceEntry[]>
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
}
export interface BillingAgreementsTable {
  organization_id: string
  id: string
  name: string
  display_name: Generated<string>
  price_list_id: string | null
  discount_basis_points: Generated<number>
  entries: JsonbDefault<readonly PriceEntry[]>
  starts_at: Date | null
  ends_at: Date | null
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
}
export interface QuotasTable {
  organization_id: string
  id: string
  name: string
  display_name: Generated<string>
  workspace_id: string | null
  workspace_name: string | null
  class_name: Generated<string>
  family: Generated<string>
  max_hosts: number | null
  max_vcpus: number | null
  max_memory_mib: number | null
  currency: Generated<string>
  max_hourly_micros: number | null
  max_monthly_micros: number | null
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
}
export interface QuotaLimitsTable {
  id: string
  organization_id: string
  quota_id: string
  quota_name: string
  workspace_id: string | null
  kind: LimitKind
  class_name: Generated<string>
  family: Generated<string>
  currency: Generated<string>
  maximum: number
  used: Generated<number>
  period: Date | null
}
export interface QuotaChargesTable {
  host_id: string
  limit_id: string
  amount: number
  settled: Generated<number>
  price: ColumnType<Price | null, string | null | undefined, string | null>
  since: Date | null
}
export interface SecretVersionsTable {
  organization_id: string
  secret_id: string
  version: number
  sealed: Buffer | null
  created_at: TimeDefault
  created_by: string
  destroyed_at: Date | null
}
export interface JoinTokensTable {
  id: string
  provider_id: string
  secret_hash: Buffer
  created_at: TimeDefault
  created_by: string
  expires_at: Date
  used_at: Date | null
  used_by: string | null
}
export interface ProviderCertificatesTable {
  serial: string
  provider_id: string
  instance_name: string
  issued_at: TimeDefault
  not_after: Date
  revoked_at: Date | null
}
export interface SessionsTable {
  id: string
  provider_id: string
  instance_id: string
  instance_name: string
  replica: string
  sdk: string
  provider_version: string
  certificate_serial: string
  capacity: Generated<number>
  health: Generated<Health>
  health_message: Generated<string>
  budgets: JsonbDefault<readonly Partial<StoredBudget>[]>
  configured_version: Generated<number>
  connected_at: TimeDefault
  heartbeat_at: TimeDefault
  expires_at: Date
  ended_at: Date | null
  end_reason: string | null
}
export interface OfferingsTable {
  provider_id: string
  type_id: string
  location: string
  shape: Jsonb<Shape>
  price: ColumnType<Price | null, string | null, string | null>
  available: boolean
  remaining: number | null
  seen_at: TimeDefault
}
export interface MachineClassesTable {
  id: string
  name: string
  display_name: Generated<string>
  shape: JsonbDefault<Shape>
  offerings: JsonbDefault<readonly ClassOffering[]>
  machine_selector: ColumnType<MachineSelector | null, string | null | undefined, string | null>
  bootstrap: JsonbDefault<ClassBootstrap>
  labels: JsonbDefault<Labels>
  annotations: JsonbDefault<Labels>
  auto_created: Generated<boolean>
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
  deleted_at: Date | null
}
export interface HostsTable {
  organization_id: string
  id: string
  workspace_id: string
  workspace_name: string
  name: string
  hostname: string
  class_id: string
  class_name: string
  class_spec: Jsonb<ClassSpec>
  shape: ColumnType<Shape | null, string | null | undefined, string | null>
  placement: JsonbDefault<PlacementWish>
  provider_data: JsonbDefault<JsonObject>
  labels: JsonbDefault<Labels>
  annotations: JsonbDefault<Labels>
  protected: Generated<boolean>
  priority: Generated<number>
  state: HostState
  state_message: Generated<string>
  conditions: JsonbDefault<readonly Condition[]>
  last_error: ColumnType<LastError | null, string | null | undefined, string | null>
  provider_id: string | null
  provider_name: string | null
  request_id: string | null
  request_name: string | null
  machine_id: string | null
  machine_name: string | null
  addresses: JsonbDefault<readonly Address[]>
  power: PowerState | null
  price: ColumnType<Price | null, string | null | undefined, string | null>
  progress: ColumnType<Progress | null, string | null | undefined, string | null>
  attempts: JsonbDefault<readonly PlacementAttempt[]>
  phone_home_at: Date | null
  ready_at: Date | null
  state_at: TimeDefault
  release_requested_at: Date | null
  released_at: Date | null
  created_by: string
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
  expires_at: Date | null
  expiry_look_at: Date | null
  host_set_id: string | null
  host_set_name: string | null
  host_set_ordinal: number | null
  host_set_revision: number | null
  host_set_domain: string | null
  ssh_public_keys: Generated<readonly string[]>
}
export interface HostSetsTable {
  organization_id: string
  id: string
  workspace_id: string
  workspace_name: string
  name: string
  replicas: number
  template: Jsonb<HostTemplate>
  template_revision: Generated<number>
  spec_revision: Generated<number>
  spread: Spread
  max_surge: number
  max_unavailable: number
  progress_deadline_ms: number
  max_repairs: number
  max_unhealthy_percent: number
  labels: JsonbDefault<Labels>
  annotations: JsonbDefault<Labels>
  pause_reason: PauseReason | null
  failures_from: Generated<number>
  next_ordinal: Generated<number>
  refused_orders: Generated<number>
  next_order_at: Date | null
  repairs_in_row: Generated<number>
  next_repair_at: Date | null
  state: Generated<HostSetState>
  state_message: Generated<string>
  counts: JsonbDefault<Partial<HostSetCounts>>
  conditions: JsonbDefault<readonly Condition[]>
  delete_requested_at: Date | null
  created_by: string
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
}
export interface HostSetSecretsTable {
  organization_id: string
  host_set_id: string
  user_data_sealed: Buffer
}
export interface HostSetScheduleTable {
  organization_id: string
  host_set_id: string
  looked_at: TimeDefault
  due_at: TimeDefault
}
export interface HostSecretsTable {
  organization_id: string
  host_id: string
  user_data_sealed: Buffer
}
export interface HostScheduleTable {
  organization_id: string
  host_id: string
  due_at: Date
}
export interface MachineRequestsTable {
  provider_id: string
  id: string
  name: string
  provider_name: string
  organization_id: string
  workspace_name: string
  host_id: string
  host_name: string
  class_id: string
  class_name: string
  state: RequestState
  desired_presence: Generated<'PRESENT' | 'ABSENT'>
  desired_power: Generated<PowerState>
  reboots: Generated<number>
  reboots_done: Generated<number>
  reinstalls: Generated<number>
  reinstalls_done: Generated<number>
  reinstall_wished_at: Date | null
  paused_at: Date | null
  paused_ms: Generated<number>
  rescue: ColumnType<RescueWish | null, string | null | undefined, string | null>
  rescue_revision: Generated<number>
  /** The server that it takes over, by its id out there. */
  adopt_external_id: string | null
  rescue_seen: Generated<number>
  operation: Generated<RequestOperation>
  operation_generation: Generated<number>
  generation: Generated<number>
  observed_generation: Generated<number>
  external_name: string
  ownership_key: string
  type_id: Generated<string>
  location: Generated<string>
  price: ColumnType<Price | null, string | null | undefined, string | null>
  spec: Jsonb<RequestSpec>
  static: Generated<boolean>
  machine_id: string | null
  machine_name: string | null
  external_id: string | null
  presence: Generated<Presence>
  power: PowerState | null
  addresses: JsonbDefault<readonly Address[]>
  attributes: JsonbDefault<JsonObject>
  conditions: JsonbDefault<readonly Condition[]>
  create_in_doubt: Generated<boolean>
  progress: ColumnType<Progress | null, string | null | undefined, string | null>
  last_error: ColumnType<LastError | null, string | null | undefined, string | null>
  phoned_home_at: Date | null
  provisioned_at: Date | null
  gone_at: Date | null
  forgotten_by: string | null
  forgotten_reason: string | null
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
}
export interface MachineRequestSecretsTable {
  provider_id: string
  request_id: string
  user_data_sealed: Buffer
  phone_home_token_hash: Buffer
  phone_home_token_sealed: Buffer
  phone_home_expires_at: Date
}
export interface MachinesTable {
  provider_id: string
  id: string
  name: string
  provider_name: string
  static: boolean
  external_id: string
  state: MachineState
  hardware: JsonbDefault<Hardware>
  addresses: JsonbDefault<readonly Address[]>
  power: PowerState | null
  desired_power: PowerState | null
  reboots: Generated<number>
  reboots_done: Generated<number>
  reinstalls: Generated<number>
  reinstalls_done: Generated<number>
  desired_rescue: Generated<boolean>
  rescue: Generated<boolean>
  operation: MachineOperation | null
  operation_generation: Generated<number>
  generation: Generated<number>
  observed_generation: Generated<number>
  request_id: string | null
  request_name: string | null
  host_id: string | null
  host_name: string | null
  labels: JsonbDefault<Labels>
  provider_labels: JsonbDefault<Labels>
  annotations: JsonbDefault<Labels>
  maintenance: Generated<boolean>
  maintenance_by: Generated<string>
  maintenance_by_system: Generated<boolean>
  maintenance_reason: Generated<string>
  maintenance_at: Date | null
  hold_at: Date | null
  hold_by: Generated<string>
  hold_reason: Generated<string>
  paused_at: Date | null
  in_use: Generated<boolean>
  waiting_for: Generated<string>
  waiting_at: Date | null
  waiting_until_at: Date | null
  cordoned: Generated<boolean>
  protected: Generated<boolean>
  conditions: JsonbDefault<readonly Condition[]>
  last_error: ColumnType<LastError | null, string | null | undefined, string | null>
  attributes: JsonbDefault<JsonObject>
  provider_data: JsonbDefault<JsonObject>
  seen_at: Date | null
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
  gone_at: Date | null
}
export type ItemKind = 'MACHINE_REQUEST' | 'MACHINE'
export interface WorkItemsTable {
  provider_id: string
  id: string
  kind: ItemKind
  generation: Generated<number>
  sent_generation: Generated<number>
  due_at: Date | null
  session_id: string | null
  fence: Generated<number>
  claimed_at: Date | null
  attempt: Generated<number>
  paused: Generated<boolean>
  /** All zeros: nobody's, as a machine's own work is. */
  workspace_id: Generated<string>
  priority: Generated<number>
}
export interface StepsTable {
  provider_id: string
  item_id: string
  operation: string
  operation_generation: number
  name: string
  result: ColumnType<unknown, string | null, string | null>
  fence: number
  created_at: TimeDefault
}
export interface OrphansTable {
  provider_id: string
  id: string
  name: string
  provider_name: string
  kind: string
  external_id: string
  external_name: Generated<string>
  ownership_key: string
  request_id: string | null
  power: PowerState | null
  addresses: JsonbDefault<readonly Address[]>
  first_seen_at: Date
  last_seen_at: Date
  sightings: Generated<number>
  last_listing_id: string
  missed_at: Date | null
  keep_reason: KeepReason | null
  keep_message: Generated<string>
  kept_by: string | null
  kept_for: Generated<string>
  removal_ordered_at: Date | null
  removal_ordered_by: string | null
  removal_order_id: string | null
  removal_due_at: Date | null
  removal_attempts: Generated<number>
  removal_sent_at: Date | null
  removal_done_at: Date | null
  refused_at: Date | null
  last_error: ColumnType<LastError | null, string | null | undefined, string | null>
  version: Generated<number>
  created_at: TimeDefault
  updated_at: TimeDefault
}
export interface OrphanPassesTable {
  provider_id: string
  at: Date
  listing_id: string
}
export interface EventsTable {
  xid: Generated<string>
  id: GeneratedAlways<number>
  event_id: string
  at: TimeDefault
  subject: string
  related: Generated<string[]>
  provider_id: string | null
  organization_id: string | null
  reason: string
  message: string
  severity: 'INFO' | 'WARNING' | 'ERROR'
  actor: string
  request_id: Generated<string>
  count: Generated<number>
  last_at: Date | null
}
export type WatchedResource =
  | 'provider'
  | 'machine_class'
  | 'host'
  | 'host_set'
  | 'machine_request'
  | 'machine'
  | 'organization'
  | 'workspace'
  | 'principal'
export interface ChangesTable {
  xid: Generated<string>
  id: GeneratedAlways<number>
  at: TimeDefault
  resource: WatchedResource
  resource_id: string
  op: 'CREATED' | 'UPDATED' | 'DELETED'
  doc: Jsonb<Record<string, unknown>>
}
export interface ChangeHorizonTable {
  only_row: Generated<boolean>
  changes_xid: string
  changes_id: number
  events_xid: string
  events_id: number
}

export interface Tables {
  hub_meta: HubMetaTable
  organizations: OrganizationsTable
  workspaces: WorkspacesTable
  principals: PrincipalsTable
  role_bindings: RoleBindingsTable
  audit_entries: AuditEntriesTable
  audit_chain: AuditChainTable
  audit_heads: AuditHeadsTable
  audit_cursor: AuditCursorTable
  certificate_authorities: CertificateAuthoritiesTable
  client_tokens: ClientTokensTable
  principal_identities: PrincipalIdentitiesTable
  used_id_tokens: UsedIdTokensTable
  idempotency_keys: IdempotencyKeysTable
  providers: ProvidersTable
  provider_credentials: ProviderCredentialsTable
  provider_pools: ProviderPoolsTable
  provider_claims: ProviderClaimsTable
  work_shares: WorkSharesTable
  work_clocks: WorkClocksTable
  capacity_holds: CapacityHoldsTable
  place_failures: PlaceFailuresTable
  machine_labels: MachineLabelsTable
  machine_lanes: MachineLanesTable
  machine_waits: MachineWaitsTable
  machine_shares: MachineSharesTable
  machine_clocks: MachineClocksTable
  secrets: SecretsTable
  secret_versions: SecretVersionsTable
  price_lists: PriceListsTable
  billing_agreements: BillingAgreementsTable
  quotas: QuotasTable
  quota_limits: QuotaLimitsTable
  quota_charges: QuotaChargesTable
  join_tokens: JoinTokensTable
  provider_certificates: ProviderCertificatesTable
  sessions: SessionsTable
  offerings: OfferingsTable
  machine_classes: MachineClassesTable
  hosts: HostsTable
  host_secrets: HostSecretsTable
  host_sets: HostSetsTable
  host_set_secrets: HostSetSecretsTable
  host_set_schedule: HostSetScheduleTable
  host_schedule: HostScheduleTable
  machine_requests: MachineRequestsTable
  machine_request_secrets: MachineRequestSecretsTable
  machines: MachinesTable
  work_items: WorkItemsTable
  steps: StepsTable
  orphans: OrphansTable
  orphan_passes: OrphanPassesTable
  events: EventsTable
  changes: ChangesTable
  change_horizon: ChangeHorizonTable
}

export type OrganizationRow = Selectable<OrganizationsTable>
export type WorkspaceRow = Selectable<WorkspacesTable>
export type PrincipalRow = Selectable<PrincipalsTable>
export type PrincipalIdentityRow = Selectable<PrincipalIdentitiesTable>
export type RoleBindingRow = Selectable<RoleBindingsTable>
export type AuditEntryRow = Selectable<AuditEntriesTable>
export type ProviderRow = Selectable<ProvidersTable>
export type ProviderPoolRow = Selectable<ProviderPoolsTable>
export type ProviderClaimRow = Selectable<ProviderClaimsTable>
export type MachineClassRow = Selectable<MachineClassesTable>
export type HostRow = Selectable<HostsTable>
export type HostSetRow = Selectable<HostSetsTable>
export type MachineRequestRow = Selectable<MachineRequestsTable>
export type MachineRow = Selectable<MachinesTable>
export type WorkItemRow = Selectable<WorkItemsTable>
export type SessionRow = Selectable<SessionsTable>
export type OrphanRow = Selectable<OrphansTable>
export type OfferingRow = Selectable<OfferingsTable>
export type ProviderCredentialsRow = Selectable<ProviderCredentialsTable>
export type PriceListRow = Selectable<PriceListsTable>
export type BillingAgreementRow = Selectable<BillingAgreementsTable>
export type QuotaRow = Selectable<QuotasTable>
export type SecretRow = Selectable<SecretsTable>
export type SecretVersionRow = Selectable<SecretVersionsTable>
export type EventRow = Selectable<EventsTable>
export type ChangeRow = Selectable<ChangesTable>
