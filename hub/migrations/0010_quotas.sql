--! compatible
-- Quotas and budgets. A quota is a set of limits, each with what counts against it, and each host's part of that: so what a host took up can be given back exactly, whatever
-- has become of its class, its price or the quota since. Whoever orders locks the limits that concern the order; where there are none, nobody waits for anybody.

create table quotas (
  organization_id uuid not null references organizations (id),
  id uuid not null,
  name text not null,
  display_name text not null default '',
  workspace_id uuid,
  workspace_name text,
  class_name text not null default '',
  family text not null default '',
  max_hosts bigint,
  max_vcpus bigint,
  max_memory_mib bigint,
  currency text not null default '',
  max_hourly_micros bigint,
  max_monthly_micros bigint,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (organization_id, id),
  check ((workspace_id is null) = (workspace_name is null)),
  check ((currency = '') = (max_hourly_micros is null and max_monthly_micros is null))
);
create unique index quotas_name on quotas (organization_id, name);
create trigger touch before update on quotas for each row when (old.* is distinct from new.*) execute function touch();

create table quota_limits (
  id uuid primary key,
  organization_id uuid not null,
  quota_id uuid not null,
  -- The quota's resource name, for people.
  quota_name text not null,
  workspace_id uuid,
  kind text not null check (kind in ('HOSTS', 'VCPUS', 'MEMORY_MIB', 'HOURLY_MICROS', 'MONTHLY_MICROS')),
  class_name text not null default '',
  family text not null default '',
  currency text not null default '',
  maximum bigint not null,
  -- The sum of its charges.
  used bigint not null default 0,
  -- The month that a monthly budget is reckoned in; null for all others.
  period timestamptz,
  unique (quota_id, kind),
  foreign key (organization_id, quota_id) references quotas (organization_id, id) on delete cascade,
  check ((kind = 'MONTHLY_MICROS') = (period is not null))
) with (fillfactor = 70);
create index quota_limits_by_organization on quota_limits (organization_id);

create table quota_charges (
  host_id uuid not null,
  limit_id uuid not null references quota_limits (id) on delete cascade,
  amount bigint not null,
  -- Of a monthly budget: what is spent already, and what goes on being spent since when.
  settled bigint not null default 0,
  price jsonb,
  since timestamptz,
  primary key (host_id, limit_id)
);
create index quota_charges_by_limit on quota_charges (limit_id);

call protect_table('quotas');
call protect_table('quota_limits');
call protect_table('quota_charges');
grant select on quotas, quota_limits to slipway_tenant;
create policy tenant_read on quotas for select to slipway_tenant
  using (organization_id = any ((select readable_organizations())::uuid[]) or workspace_name = any ((select readable_workspaces())::text[]));
create policy tenant_read on quota_limits for select to slipway_tenant
  using (exists (select from quotas q where q.id = quota_id));
