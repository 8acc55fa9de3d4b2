--! breaking
-- The first schema. Every resource row is complete in itself, so that a change record (the row as JSON, written by trigger in the same
-- transaction) is all that a watcher needs. What moves often and concerns no watcher (leases, schedules, heartbeats) and what no watcher may
-- see (sealed secrets) lives in tables of its own, without that trigger.

create table hub_meta (
  only_row boolean primary key default true check (only_row),
  hub_id uuid not null default gen_random_uuid(),
  -- Changes whenever revisions of before stop meaning anything: after a restore from backup, for example.
  epoch uuid not null default gen_random_uuid(),
  created_at timestamptz not null default now()
);
insert into hub_meta default values;

create table organizations (
  id uuid primary key,
  name text not null unique,
  created_at timestamptz not null default now()
);

create table workspaces (
  organization_id uuid not null references organizations (id),
  id uuid not null,
  name text not null unique,
  created_at timestamptz not null default now(),
  primary key (organization_id, id)
);

insert into organizations (id, name) values ('00000000-0000-7000-8000-000000000001', 'default');
insert into workspaces (organization_id, id, name)
values ('00000000-0000-7000-8000-000000000001', '00000000-0000-7000-8000-000000000002', 'default');

-- Identity and trust ---------------------------------------------------------------------------------------------------------------

create table certificate_authorities (
  id uuid primary key,
  certificate_der bytea not null,
  -- The private key, sealed with the key-encryption key.
  key_sealed bytea not null,
  created_at timestamptz not null default now(),
  retired_at timestamptz
);

create table client_tokens (
  id text primary key,
  secret_hash bytea not null,
  name text not null,
  bootstrap boolean not null default false,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz
);

create table idempotency_keys (
  -- The caller and the method: a key means nothing to anyone else.
  scope text not null,
  key text not null,
  request_hash bytea not null,
  response bytea not null,
  created_at timestamptz not null default now(),
  primary key (scope, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- Providers ------------------------------------------------------------------------------------------------------------------------

create table providers (
  id uuid primary key,
  name text not null,
  family text not null,
  kind text not null check (kind in ('STATIC', 'DYNAMIC')),
  config jsonb not null default '{}',
  config_version bigint not null default 1,
  has_credentials boolean not null default false,
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  auto_accept_machines boolean not null default false,
  draining boolean not null default false,
  -- PENDING until the first session; DRAINING is shown where draining is set.
  state text not null default 'PENDING' check (state in ('PENDING', 'CONNECTED', 'DISCONNECTED')),
  health text not null default 'HEALTHY' check (health in ('HEALTHY', 'DEGRADED', 'UNHEALTHY')),
  health_message text not null default '',
  conditions jsonb not null default '[]',
  last_error jsonb,
  capabilities jsonb not null default '[]',
  config_schema text not null default '',
  credentials_schema text not null default '',
  data_schema text not null default '',
  listing_lag_ms bigint not null default 0,
  offerings_at timestamptz,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
create unique index providers_name on providers (name) where deleted_at is null;

create table provider_credentials (
  provider_id uuid primary key references providers (id),
  sealed bytea not null,
  updated_at timestamptz not null default now()
);

create table join_tokens (
  id text primary key,
  provider_id uuid not null references providers (id),
  secret_hash bytea not null,
  created_at timestamptz not null default now(),
  created_by text not null,
  expires_at timestamptz not null,
  used_at timestamptz,
  used_by text
);

create table provider_certificates (
  serial text primary key,
  provider_id uuid not null references providers (id),
  instance_name text not null,
  issued_at timestamptz not null default now(),
  not_after timestamptz not null,
  revoked_at timestamptz
);
create index provider_certificates_by_provider on provider_certificates (provider_id);

create table sessions (
  id uuid primary key,
  provider_id uuid not null references providers (id),
  instance_id uuid not null,
  instance_name text not null,
  replica text not null,
  sdk text not null,
  provider_version text not null,
  certificate_serial text not null,
  capacity integer not null default 0,
  health text not null default 'HEALTHY',
  health_message text not null default '',
  budgets jsonb not null default '[]',
  connected_at timestamptz not null default now(),
  heartbeat_at timestamptz not null default now(),
  -- Every lease of the session is good until here.
  expires_at timestamptz not null,
  ended_at timestamptz,
  end_reason text
) with (fillfactor = 70);
create index sessions_live_by_provider on sessions (provider_id) where ended_at is null;
create index sessions_live_by_expiry on sessions (expires_at) where ended_at is null;

create table offerings (
  provider_id uuid not null references providers (id),
  type_id text not null,
  location text not null,
  shape jsonb not null,
  price jsonb,
  available boolean not null,
  remaining integer,
  seen_at timestamptz not null default now(),
  -- Set when the provider said CAPACITY or QUOTA: not offered again before.
  held_until timestamptz,
  held_reason text,
  primary key (provider_id, type_id, location)
);

-- Catalog --------------------------------------------------------------------------------------------------------------------------

create table machine_classes (
  id uuid primary key,
  name text not null,
  display_name text not null default '',
  shape jsonb not null default '{}',
  offerings jsonb not null default '[]',
  machine_selector jsonb,
  bootstrap jsonb not null default '{}',
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  auto_created boolean not null default false,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
create unique index machine_classes_name on machine_classes (name) where deleted_at is null;

-- Hosts ----------------------------------------------------------------------------------------------------------------------------

create table hosts (
  organization_id uuid not null,
  id uuid not null,
  workspace_id uuid not null,
  workspace_name text not null,
  name text not null,
  hostname text not null,
  class_id uuid not null references machine_classes (id),
  class_name text not null,
  -- The class as it was ordered: editing it concerns future orders only.
  class_spec jsonb not null,
  shape jsonb,
  placement jsonb not null default '{}',
  provider_data jsonb not null default '{}',
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  protected boolean not null default false,
  state text not null check (state in ('ORDERED', 'PLACED', 'PROVISIONING', 'BOOTSTRAPPING', 'READY', 'ERROR', 'RELEASING', 'RELEASED')),
  state_message text not null default '',
  conditions jsonb not null default '[]',
  last_error jsonb,
  provider_id uuid,
  provider_name text,
  request_id uuid,
  request_name text,
  machine_id uuid,
  machine_name text,
  addresses jsonb not null default '[]',
  power text,
  price jsonb,
  progress jsonb,
  attempts jsonb not null default '[]',
  phone_home_at timestamptz,
  ready_at timestamptz,
  -- Since when it is in the present state.
  state_at timestamptz not null default now(),
  release_requested_at timestamptz,
  released_at timestamptz,
  created_by text not null,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (organization_id, id)
);
create unique index hosts_name on hosts (workspace_name, name) where state <> 'RELEASED';
create index hosts_by_id on hosts (id);
create index hosts_by_workspace on hosts (organization_id, workspace_name, name, id);
create index hosts_by_class on hosts (class_id) where state <> 'RELEASED';
create index hosts_by_labels on hosts using gin (labels jsonb_path_ops);
-- What is under way, for the sweep that makes sure that all of it is scheduled.
create index hosts_under_way on hosts (organization_id, id) where state not in ('READY', 'ERROR', 'RELEASED');

create table host_secrets (
  organization_id uuid not null,
  host_id uuid not null,
  user_data_sealed bytea not null,
  primary key (organization_id, host_id)
);

-- When the reconciler is to look at a host next. No row: nothing is to be done.
create table host_schedule (
  organization_id uuid not null,
  host_id uuid not null,
  due_at timestamptz not null,
  primary key (organization_id, host_id)
) with (fillfactor = 70);
create index host_schedule_due on host_schedule (due_at);

-- Work -----------------------------------------------------------------------------------------------------------------------------

create table machine_requests (
  provider_id uuid not null references providers (id),
  id uuid not null,
  name text not null,
  provider_name text not null,
  organization_id uuid not null,
  workspace_name text not null,
  host_id uuid not null,
  host_name text not null,
  class_id uuid not null,
  class_name text not null,
  state text not null check (state in ('PENDING', 'PROVISIONING', 'PROVISIONED', 'FAILED', 'DEPROVISIONING', 'GONE')),
  desired_presence text not null default 'PRESENT' check (desired_presence in ('PRESENT', 'ABSENT')),
  desired_power text not null default 'ON' check (desired_power in ('ON', 'OFF')),
  reboots bigint not null default 0,
  reboots_done bigint not null default 0,
  operation text not null default 'PROVISION' check (operation in ('PROVISION', 'DEPROVISION')),
  operation_generation bigint not null default 1,
  generation bigint not null default 1,
  observed_generation bigint not null default 0,
  external_name text not null,
  ownership_key text not null,
  type_id text not null default '',
  location text not null default '',
  price jsonb,
  -- What is sent to the provider as MachineSpec, without secrets: shape, provider_data, hostname, labels, bootstrap wishes.
  spec jsonb not null,
  static boolean not null default false,
  machine_id uuid,
  machine_name text,
  external_id text,
  presence text not null default 'UNKNOWN' check (presence in ('UNKNOWN', 'PRESENT', 'ABSENT')),
  power text,
  addresses jsonb not null default '[]',
  attributes jsonb not null default '{}',
  conditions jsonb not null default '[]',
  create_in_doubt boolean not null default false,
  progress jsonb,
  last_error jsonb,
  phoned_home_at timestamptz,
  provisioned_at timestamptz,
  gone_at timestamptz,
  forgotten_by text,
  forgotten_reason text,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (provider_id, id)
);
create index machine_requests_by_id on machine_requests (id);
create unique index machine_requests_name on machine_requests (name);
create index machine_requests_by_host on machine_requests (host_id);
create unique index machine_requests_external on machine_requests (provider_id, external_id) where external_id is not null and state <> 'GONE';
-- A host has one live request at a time: a fallback begins only when the one before is proven gone.
create unique index machine_requests_live_by_host on machine_requests (host_id) where state <> 'GONE';
create index machine_requests_under_way on machine_requests (provider_id, id)
  where state <> 'GONE' and (state <> 'PROVISIONED' or desired_presence = 'ABSENT');

create table machine_request_secrets (
  provider_id uuid not null,
  request_id uuid not null,
  user_data_sealed bytea not null,
  phone_home_token_hash bytea not null,
  phone_home_token_sealed bytea not null,
  phone_home_expires_at timestamptz not null,
  primary key (provider_id, request_id)
);

create table machines (
  provider_id uuid not null references providers (id),
  id uuid not null,
  name text not null,
  provider_name text not null,
  static boolean not null,
  external_id text not null,
  state text not null check (state in (
    'DISCOVERED', 'VERIFYING', 'MANAGEABLE', 'INSPECTING', 'INSPECT_WAIT', 'CLEANING', 'CLEAN_WAIT', 'AVAILABLE', 'PROVISIONING',
    'PROVISION_WAIT', 'ACTIVE', 'ADOPTING', 'VERIFY_FAILED', 'INSPECT_FAILED', 'CLEAN_FAILED', 'PROVISION_FAILED', 'ADOPT_FAILED', 'GONE'
  )),
  hardware jsonb not null default '{}',
  addresses jsonb not null default '[]',
  power text,
  -- A person's wish for a machine without a request; null: as its state asks for.
  desired_power text check (desired_power in ('ON', 'OFF')),
  reboots bigint not null default 0,
  reboots_done bigint not null default 0,
  operation text check (operation in ('VERIFY', 'INSPECT', 'CLEAN', 'POWER')),
  operation_generation bigint not null default 0,
  generation bigint not null default 1,
  observed_generation bigint not null default 0,
  -- The allocation.
  request_id uuid,
  request_name text,
  host_id uuid,
  host_name text,
  labels jsonb not null default '{}',
  provider_labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  maintenance boolean not null default false,
  cordoned boolean not null default false,
  protected boolean not null default false,
  conditions jsonb not null default '[]',
  last_error jsonb,
  attributes jsonb not null default '{}',
  provider_data jsonb not null default '{}',
  seen_at timestamptz,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  gone_at timestamptz,
  primary key (provider_id, id)
);
create index machines_by_id on machines (id);
create unique index machines_name on machines (name);
create unique index machines_external on machines (provider_id, external_id) where state <> 'GONE';
-- A machine belongs to at most one request, and a request to at most one machine.
create unique index machines_request on machines (request_id) where request_id is not null and state <> 'GONE';
create index machines_available on machines (provider_id) where static and state = 'AVAILABLE';
create index machines_under_way on machines (provider_id, id) where static and state in ('VERIFYING', 'INSPECTING', 'CLEANING');
create index machines_by_labels on machines using gin (labels jsonb_path_ops);

-- The claimable half of machine requests and static machines: one mechanism for both. The id is theirs.
create table work_items (
  provider_id uuid not null references providers (id),
  id uuid not null,
  kind text not null check (kind in ('MACHINE_REQUEST', 'MACHINE')),
  -- As on the resource: raised together with it.
  generation bigint not null default 1,
  -- The generation that the holder was told last.
  sent_generation bigint not null default 0,
  -- When it may be claimed. Null: nothing is to be done.
  due_at timestamptz,
  -- The lease: good as long as the session is.
  session_id uuid,
  -- Rises with every claim, and with nothing else.
  fence bigint not null default 0,
  claimed_at timestamptz,
  -- Failures in a row.
  attempt integer not null default 0,
  primary key (provider_id, id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
create index work_items_by_id on work_items (id);
create index work_items_due on work_items (provider_id, due_at) where session_id is null and due_at is not null;
create index work_items_held on work_items (session_id) where session_id is not null;

create table steps (
  provider_id uuid not null,
  item_id uuid not null,
  operation text not null,
  operation_generation bigint not null,
  name text not null,
  result jsonb,
  fence bigint not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (provider_id, item_id, operation, operation_generation, name)
);

-- Orphans: what a provider owns out there and no record knows. Removed rows were removed out there, or found to be ours.
create table orphans (
  provider_id uuid not null references providers (id),
  kind text not null,
  external_id text not null,
  ownership_key text not null,
  name text not null default '',
  first_seen_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now(),
  sightings integer not null default 1,
  removal_ordered_at timestamptz,
  primary key (provider_id, kind, external_id)
);

-- Timelines and changes ------------------------------------------------------------------------------------------------------------

-- Readers order by (xid, id) and stop before pg_snapshot_xmin(pg_current_snapshot()): an id alone is not in commit order.
create table events (
  xid xid8 not null default pg_current_xact_id(),
  id bigint not null generated always as identity,
  event_id uuid not null,
  at timestamptz not null default clock_timestamp(),
  subject text not null,
  related text[] not null default '{}',
  provider_id uuid,
  organization_id uuid,
  reason text not null,
  message text not null,
  severity text not null check (severity in ('INFO', 'WARNING', 'ERROR')),
  actor text not null,
  request_id text not null default '',
  primary key (xid, id)
);
create index events_by_event_id on events (event_id);
create index events_by_subject on events (subject, xid desc, id desc);
create index events_by_related on events using gin (related);
create index events_by_age on events (at);

create table changes (
  xid xid8 not null default pg_current_xact_id(),
  id bigint not null generated always as identity,
  at timestamptz not null default clock_timestamp(),
  resource text not null,
  resource_id uuid not null,
  op text not null check (op in ('CREATED', 'UPDATED', 'DELETED')),
  -- The row after the change.
  doc jsonb not null,
  primary key (xid, id)
);
create index changes_by_age on changes (at);

-- The place up to which changes and events were trimmed. A revision before it cannot be resumed.
create table change_horizon (
  only_row boolean primary key default true check (only_row),
  changes_xid xid8 not null default '0',
  changes_id bigint not null default 0,
  events_xid xid8 not null default '0',
  events_id bigint not null default 0
);
insert into change_horizon default values;

create function touch() returns trigger language plpgsql as $$
begin
  new.version := old.version + 1;
  new.updated_at := clock_timestamp();
  return new;
end
$$;

create function record_change() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    insert into changes (resource, resource_id, op, doc) values (tg_argv[0], new.id, 'CREATED', to_jsonb(new));
  elsif tg_op = 'DELETE' then
    insert into changes (resource, resource_id, op, doc) values (tg_argv[0], old.id, 'DELETED', to_jsonb(old));
  elsif (to_jsonb(new) ->> tg_argv[1]) is not null and (to_jsonb(old) ->> tg_argv[1]) is null then
    insert into changes (resource, resource_id, op, doc) values (tg_argv[0], new.id, 'DELETED', to_jsonb(new));
  else
    insert into changes (resource, resource_id, op, doc) values (tg_argv[0], new.id, 'UPDATED', to_jsonb(new));
  end if;
  return null;
end
$$;

-- A resource's end is the column named second: from then on it is listed on request only, and its watchers see it DELETED.
create trigger touch before update on providers for each row when (old.* is distinct from new.*) execute function touch();
create trigger touch before update on machine_classes for each row when (old.* is distinct from new.*) execute function touch();
create trigger touch before update on hosts for each row when (old.* is distinct from new.*) execute function touch();
create trigger touch before update on machine_requests for each row when (old.* is distinct from new.*) execute function touch();
create trigger touch before update on machines for each row when (old.* is distinct from new.*) execute function touch();

create trigger record_created after insert or delete on providers for each row execute function record_change('provider', 'deleted_at');
create trigger record_changed after update on providers for each row when (old.* is distinct from new.*)
  execute function record_change('provider', 'deleted_at');
create trigger record_created after insert or delete on machine_classes for each row execute function record_change('machine_class', 'deleted_at');
create trigger record_changed after update on machine_classes for each row when (old.* is distinct from new.*)
  execute function record_change('machine_class', 'deleted_at');
create trigger record_created after insert or delete on hosts for each row execute function record_change('host', 'released_at');
create trigger record_changed after update on hosts for each row when (old.* is distinct from new.*)
  execute function record_change('host', 'released_at');
create trigger record_created after insert or delete on machine_requests for each row execute function record_change('machine_request', 'gone_at');
create trigger record_changed after update on machine_requests for each row when (old.* is distinct from new.*)
  execute function record_change('machine_request', 'gone_at');
create trigger record_created after insert or delete on machines for each row execute function record_change('machine', 'gone_at');
create trigger record_changed after update on machines for each row when (old.* is distinct from new.*)
  execute function record_change('machine', 'gone_at');
