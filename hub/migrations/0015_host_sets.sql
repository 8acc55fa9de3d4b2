--! compatible
-- Hosts with a time to end, and sets of like hosts. A member is an ordinary host that names its set and its number in it: the order and its record are one row, and no
-- crash can come between them.

alter table hosts
  -- When it is released by itself. Null: never.
  add column expires_at timestamptz,
  -- When its end is looked at next. Null: when something changes.
  add column expiry_look_at timestamptz,
  add column host_set_id uuid,
  add column host_set_name text,
  -- Its number in the set, which no other member ever has.
  add column host_set_ordinal bigint,
  -- The revision of the template that it was ordered by.
  add column host_set_revision bigint,
  -- Where it was ordered for, for spreading.
  add column host_set_domain text;
create index hosts_by_expiry on hosts (expiry_look_at) where expiry_look_at is not null;
create unique index hosts_by_host_set on hosts (host_set_id, host_set_ordinal) where host_set_id is not null;

create table host_sets (
  organization_id uuid not null references organizations (id),
  id uuid not null,
  workspace_id uuid not null,
  workspace_name text not null,
  name text not null,
  replicas integer not null check (replicas >= 0),
  template jsonb not null,
  -- Rises with each change of the template that replaces members.
  template_revision bigint not null default 1,
  -- Rises with each change of what is wanted: what was decided before it is not carried out after it.
  spec_revision bigint not null default 1,
  spread text not null check (spread in ('NONE', 'PROVIDER', 'LOCATION', 'FAILURE_DOMAIN')),
  max_surge integer not null,
  max_unavailable integer not null,
  progress_deadline_ms bigint not null,
  max_repairs integer not null,
  max_unhealthy_percent integer not null,
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  pause_reason text check (pause_reason in ('ByRequest', 'RolloutFailed')),
  failures_from bigint not null default 0,
  next_ordinal bigint not null default 0,
  refused_orders integer not null default 0,
  next_order_at timestamptz,
  repairs_in_row integer not null default 0,
  next_repair_at timestamptz,
  state text not null default 'PROGRESSING' check (state in ('PROGRESSING', 'READY', 'DEGRADED', 'PAUSED', 'DELETING')),
  state_message text not null default '',
  counts jsonb not null default '{}',
  conditions jsonb not null default '[]',
  delete_requested_at timestamptz,
  created_by text not null,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (organization_id, id),
  check (max_surge + max_unavailable > 0)
);
create unique index host_sets_name on host_sets (workspace_name, name);
create unique index host_sets_by_id on host_sets (id);
create trigger touch before update on host_sets for each row when (old.* is distinct from new.*) execute function touch();
create trigger record_created after insert or delete on host_sets for each row execute function record_change('host_set', 'deleted_at');
create trigger record_changed after update on host_sets for each row when (old.* is distinct from new.*)
  execute function record_change('host_set', 'deleted_at');

create table host_set_secrets (
  organization_id uuid not null,
  host_set_id uuid not null,
  user_data_sealed bytea not null,
  primary key (organization_id, host_set_id),
  foreign key (organization_id, host_set_id) references host_sets (organization_id, id) on delete cascade
);

-- When a set was looked at, and when it is next, if nothing happens to its members before.
create table host_set_schedule (
  organization_id uuid not null,
  host_set_id uuid not null,
  looked_at timestamptz not null default '-infinity',
  due_at timestamptz not null default now(),
  primary key (organization_id, host_set_id),
  foreign key (organization_id, host_set_id) references host_sets (organization_id, id) on delete cascade
);

call protect_table('host_sets');
call protect_table('host_set_secrets');
call protect_table('host_set_schedule');
grant select, insert, update, delete on host_sets to slipway_tenant;
create policy tenant_read on host_sets for select to slipway_tenant using (workspace_name = any ((select readable_workspaces())::text[]));
create policy tenant_add on host_sets for insert to slipway_tenant with check (workspace_name = any ((select writable_workspaces())::text[]));
create policy tenant_change on host_sets for update to slipway_tenant using (workspace_name = any ((select writable_workspaces())::text[]));
create policy tenant_remove on host_sets for delete to slipway_tenant using (workspace_name = any ((select writable_workspaces())::text[]));
grant select, insert, update, delete on host_set_secrets, host_set_schedule to slipway_tenant;
create policy tenant on host_set_secrets to slipway_tenant
  using (exists (select from host_sets s where s.organization_id = host_set_secrets.organization_id and s.id = host_set_id));
create policy tenant on host_set_schedule to slipway_tenant
  using (exists (select from host_sets s where s.organization_id = host_set_schedule.organization_id and s.id = host_set_id));
