--! compatible
-- What tenants pay: price lists, and what was agreed with one organization. A host keeps the price that it was placed at.

create table price_lists (
  id uuid primary key,
  name text not null unique,
  display_name text not null default '',
  is_default boolean not null default false,
  entries jsonb not null default '[]',
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create unique index price_lists_default on price_lists (is_default) where is_default;
create trigger touch before update on price_lists for each row when (old.* is distinct from new.*) execute function touch();

create table billing_agreements (
  organization_id uuid not null references organizations (id),
  id uuid not null,
  name text not null,
  display_name text not null default '',
  -- Null: the default one.
  price_list_id uuid references price_lists (id),
  discount_basis_points integer not null default 0 check (discount_basis_points between 0 and 10000),
  entries jsonb not null default '[]',
  starts_at timestamptz,
  ends_at timestamptz,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (organization_id, id),
  check (starts_at < ends_at)
);
create unique index billing_agreements_name on billing_agreements (organization_id, name);
create index billing_agreements_by_list on billing_agreements (price_list_id) where price_list_id is not null;
create trigger touch before update on billing_agreements for each row when (old.* is distinct from new.*) execute function touch();

call protect_table('price_lists');
call protect_table('billing_agreements');
-- Of the list that its agreement is based on, a tenant sees the name.
grant select (id, name) on price_lists to slipway_tenant;
create policy tenant_read on price_lists for select to slipway_tenant using (exists (select from billing_agreements b where b.price_list_id = price_lists.id));
grant select on billing_agreements to slipway_tenant;
create policy tenant_read on billing_agreements for select to slipway_tenant using (organization_id = any ((select readable_organizations())::uuid[]));
