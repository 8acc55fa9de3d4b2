--! breaking
-- Providers that not everybody may use: owned by an organization or a workspace, or claimed from a pool. And shares of what is scarce: whose work waits, and how much of a
-- provider each workspace is due. Breaking, because an older hub would place anybody's hosts with any provider.

-- Workspaces -------------------------------------------------------------------------------------------------------------------------------

alter table workspaces
  add column weight integer not null default 1 check (weight between 1 and 1000),
  -- Of its orders that say nothing; and the highest that its orders may ask for.
  add column priority smallint not null default 0 check (priority between -1 and 1),
  add column max_priority smallint not null default 0 check (max_priority between -1 and 1),
  add check (priority <= max_priority);
create unique index workspaces_by_id on workspaces (id);
-- Nobody sets its own share.
revoke insert, update on workspaces from slipway_tenant;
grant insert (organization_id, organization_name, id, name, display_name, labels, annotations), update (display_name, labels, annotations, deleted_at)
  on workspaces to slipway_tenant;

alter table hosts add column priority smallint not null default 0 check (priority between -1 and 1);

-- Pools ------------------------------------------------------------------------------------------------------------------------------------

create table provider_pools (
  id uuid primary key,
  name text not null unique,
  display_name text not null default '',
  family text not null,
  region text not null default '',
  -- When a workspace gets a provider of it without anybody's doing. MANUAL: never.
  claim_on text not null check (claim_on in ('WORKSPACE_CREATED', 'FIRST_ORDER', 'MANUAL')),
  -- Names; empty: any.
  organizations text[] not null default '{}',
  workspace_selector text not null default '',
  -- Null: as many as the provider has.
  included_hosts integer check (included_hosts > 0),
  -- Null: for good.
  trial_ms bigint check (trial_ms > 0),
  -- Null: only with the end of the workspace or of the trial.
  idle_release_ms bigint check (idle_release_ms > 0),
  -- Whoever has brought a provider of that family gets none.
  unless_own boolean not null default false,
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create trigger touch before update on provider_pools for each row when (old.* is distinct from new.*) execute function touch();

-- Who had what of a pool, and until when. What is claimed now stands on the provider too.
create table provider_claims (
  id uuid primary key,
  pool_id uuid not null references provider_pools (id) on delete cascade,
  provider_id uuid not null references providers (id),
  organization_id uuid not null,
  workspace_id uuid not null,
  workspace_name text not null,
  included_hosts integer,
  trial_ends_at timestamptz,
  claimed_at timestamptz not null default clock_timestamp(),
  -- Since when nothing of the workspace has been there. Null: something is, or nobody has looked.
  idle_since timestamptz,
  released_at timestamptz
);
create unique index provider_claims_provider on provider_claims (provider_id) where released_at is null;
create unique index provider_claims_workspace on provider_claims (workspace_id, pool_id) where released_at is null;
create index provider_claims_trials on provider_claims (pool_id, organization_id) where trial_ends_at is not null;

alter table providers
  add column region text not null default '',
  add column residency text[] not null default '{}',
  -- Whose it is. Both null: nobody's.
  add column owner_organization_id uuid references organizations (id),
  add column owner_workspace_id uuid references workspaces (id),
  add column owner_name text not null default '',
  add column pool_id uuid references provider_pools (id),
  add column pool_name text not null default '',
  add column claim_workspace_id uuid references workspaces (id),
  add column claim_workspace_name text not null default '',
  add column claimed_at timestamptz,
  add check (owner_workspace_id is null or owner_organization_id is not null),
  add check (pool_id is null or owner_organization_id is null),
  add check (claim_workspace_id is null or pool_id is not null);
create index providers_of_pool on providers (pool_id, name) where pool_id is not null and deleted_at is null;

create or replace function touch_provider() returns trigger language plpgsql as $$
begin
  if (new.name, new.family, new.kind, new.config, new.config_version, new.labels, new.annotations, new.auto_accept_machines, new.draining,
      new.orphan_mode, new.orphan_min_age_ms, new.orphan_max_per_pass, new.orphan_max_percent, new.credentials_secret, new.deleted_at,
      new.region, new.residency, new.owner_name, new.pool_name)
     is distinct from
     (old.name, old.family, old.kind, old.config, old.config_version, old.labels, old.annotations, old.auto_accept_machines, old.draining,
      old.orphan_mode, old.orphan_min_age_ms, old.orphan_max_per_pass, old.orphan_max_percent, old.credentials_secret, old.deleted_at,
      old.region, old.residency, old.owner_name, old.pool_name) then
    new.version := old.version + 1;
  end if;
  new.updated_at := clock_timestamp();
  return new;
end
$$;

-- Shares -----------------------------------------------------------------------------------------------------------------------------------

-- What waits stands in lanes, one for each workspace and priority; what is nobody's (the machines' own work) has one too.
alter table work_items
  add column workspace_id uuid not null default '00000000-0000-0000-0000-000000000000',
  add column priority smallint not null default 0;
update work_items w set workspace_id = h.workspace_id
from machine_requests r join hosts h on h.organization_id = r.organization_id and h.id = r.host_id
where w.kind = 'MACHINE_REQUEST' and r.provider_id = w.provider_id and r.id = w.id;
drop index work_items_due;
create index work_items_due on work_items (provider_id, workspace_id, priority, due_at)
  where session_id is null and due_at is not null and not paused;

-- How far each workspace's work has come at a provider, in virtual time; and the provider's own clock, which stands still while nobody competes.
create table work_shares (
  provider_id uuid not null references providers (id),
  workspace_id uuid not null,
  -- Where its latest turn began, and where it ended.
  began double precision not null,
  pass double precision not null,
  primary key (provider_id, workspace_id)
) with (fillfactor = 50);
create table work_clocks (
  provider_id uuid primary key references providers (id),
  clock double precision not null
) with (fillfactor = 50);

-- Who sees what ------------------------------------------------------------------------------------------------------------------------------

call protect_table('provider_pools');
call protect_table('provider_claims');
call protect_table('work_shares');
call protect_table('work_clocks');

-- Of providers that it may use, a tenant sees what it needs to choose one: no configuration, no accounts of errors, no annotations.
create function usable_organizations() returns uuid[] language sql stable parallel safe as $$
  select coalesce(array_agg(organization_id), '{}') || readable_organizations() from workspaces where name = any (readable_workspaces())
$$;
grant select (id, name, family, kind, labels, draining, state, health, capabilities, data_schema, offerings_at, version, created_at, updated_at, deleted_at,
  region, residency, owner_organization_id, owner_workspace_id, owner_name, pool_id, claim_workspace_id, claim_workspace_name, claimed_at)
  on providers to slipway_tenant;
create policy tenant_read on providers for select to slipway_tenant using (
  case
    when pool_id is not null then claim_workspace_name = any ((select readable_workspaces())::text[])
    when owner_workspace_id is not null then substr(owner_name, length('workspaces/') + 1) = any ((select readable_workspaces())::text[])
    when owner_organization_id is not null then owner_organization_id = any ((select usable_organizations())::uuid[])
    else true
  end);
grant select on offerings to slipway_tenant;
create policy tenant_read on offerings for select to slipway_tenant using (exists (select from providers p where p.id = provider_id));
