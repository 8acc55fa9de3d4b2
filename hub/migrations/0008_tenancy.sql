--! compatible
-- Tenancy: organizations and workspaces that people can make, principals and what they may do, the audit log, and row-level security as a second wall beneath the policy
-- layer. Tokens that are made from here on have other prefixes than those of before, which an older hub refuses: it would take each for an administrator's.

-- Two roles that own nothing and bypass nothing. The hub takes on the first one for its own work and for callers with a role for the whole hub, the second one for each call
-- of a tenant, who then sees what its settings name and nothing else. Roles are the cluster's, and another database may be migrated at this very moment.
do $$
declare
  wanted text;
begin
  foreach wanted in array array['slipway_hub', 'slipway_tenant'] loop
    if not exists (select from pg_roles where rolname = wanted) then
      begin
        execute format('create role %I nologin', wanted);
      exception
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
          raise exception 'the role % is missing, and % may not create it: have an administrator of the database run «create role % nologin; grant % to %;»',
            wanted, current_user, wanted, wanted, current_user;
      end;
    end if;
    if not (select rolsuper from pg_roles where rolname = current_user) then
      begin
        execute format('grant %I to current_user', wanted);
      exception when insufficient_privilege then
        if not pg_has_role(current_user, wanted, 'member') then raise; end if;
      end;
    end if;
  end loop;
end
$$;

-- Organizations, workspaces --------------------------------------------------------------------------------------------------------------

-- Names are unique for ever, deleted ones included: what speaks of a workspace by its name never comes to mean another one.
alter table organizations
  add column display_name text not null default '',
  add column labels jsonb not null default '{}',
  add column annotations jsonb not null default '{}',
  add column version bigint not null default 1,
  add column updated_at timestamptz not null default now(),
  add column deleted_at timestamptz;

alter table workspaces
  add column organization_name text not null default 'default',
  add column display_name text not null default '',
  add column labels jsonb not null default '{}',
  add column annotations jsonb not null default '{}',
  add column version bigint not null default 1,
  add column updated_at timestamptz not null default now(),
  add column deleted_at timestamptz;
alter table workspaces alter column organization_name drop default;

-- Principals -----------------------------------------------------------------------------------------------------------------------------

create table principals (
  id uuid primary key,
  -- Whose it is. Null: the hub's own.
  organization_id uuid references organizations (id),
  organization_name text,
  name text not null,
  kind text not null check (kind in ('USER', 'SERVICE_ACCOUNT')),
  display_name text not null default '',
  disabled boolean not null default false,
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  check ((organization_id is null) = (organization_name is null))
);
create unique index principals_name on principals ((coalesce(organization_name, '')), name) where deleted_at is null;

create table role_bindings (
  id uuid primary key,
  name text not null,
  principal_id uuid not null references principals (id),
  role text not null check (role in ('OWNER', 'OPERATOR', 'HOST_CREATOR', 'VIEWER', 'ADMINISTRATOR', 'PROVIDER_OPERATOR', 'AUDITOR')),
  -- Where: nowhere in particular is the whole hub.
  organization_id uuid references organizations (id),
  organization_name text,
  -- Null: the organization and all of its workspaces.
  workspace_name text references workspaces (name),
  created_by text not null,
  created_at timestamptz not null default now(),
  check ((role in ('ADMINISTRATOR', 'PROVIDER_OPERATOR', 'AUDITOR')) = (organization_id is null)),
  check (workspace_name is null or organization_id is not null),
  check ((organization_id is null) = (organization_name is null))
);
create unique index role_bindings_once on role_bindings (principal_id, role, (coalesce(organization_name, '')), (coalesce(workspace_name, '')));
create index role_bindings_by_organization on role_bindings (organization_id);

-- Whoever had a token before there were principals might do anything, and still may.
insert into principals (id, name, kind, display_name)
values ('00000000-0000-7000-8000-000000000003', 'administrator', 'SERVICE_ACCOUNT', 'Tokens made on the hub itself');
insert into role_bindings (id, name, principal_id, role, created_by)
values ('00000000-0000-7000-8000-000000000004', 'administrator', '00000000-0000-7000-8000-000000000003', 'ADMINISTRATOR', 'hub');

alter table client_tokens
  add column principal_id uuid not null default '00000000-0000-7000-8000-000000000003' references principals (id),
  add column created_by text not null default 'hub';
create index client_tokens_by_principal on client_tokens (principal_id);

-- Audit ----------------------------------------------------------------------------------------------------------------------------------

-- Written with the change, by whoever makes it, and in no order: nobody waits for a chain.
create table audit_entries (
  xid xid8 not null default pg_current_xact_id(),
  -- Of the call: what one call changes in one transaction is one entry.
  id uuid not null,
  at timestamptz not null default clock_timestamp(),
  -- Null: it concerns the hub itself.
  organization_id uuid,
  principal text not null,
  token_id text not null,
  source text not null,
  method text not null,
  resource text not null,
  result text not null check (result in ('OK', 'DENIED')),
  request_id text not null,
  primary key (xid, id)
);

-- One chain for each organization, and one (all zeros) for the hub itself. One sealer writes it.
create table audit_chain (
  chain uuid not null,
  sequence bigint not null,
  entry_xid xid8 not null,
  entry_id uuid not null,
  hash bytea not null,
  sealed_at timestamptz not null default clock_timestamp(),
  primary key (chain, sequence)
);
create unique index audit_chain_entry on audit_chain (entry_xid, entry_id);

create table audit_heads (
  chain uuid not null,
  sequence bigint not null,
  hash bytea not null,
  signed_at timestamptz not null,
  signature bytea not null,
  primary key (chain, sequence)
);

-- Everything of transactions before this one is sealed.
create table audit_cursor (
  only_row boolean primary key default true check (only_row),
  sealed_before xid8 not null default '0',
  -- The database's epoch when it was written: after a restore, everything is looked through again.
  epoch uuid not null default '00000000-0000-0000-0000-000000000000'
);
insert into audit_cursor default values;

-- Changes ---------------------------------------------------------------------------------------------------------------------------------

create trigger touch before update on organizations for each row when (old.* is distinct from new.*) execute function touch();
create trigger touch before update on workspaces for each row when (old.* is distinct from new.*) execute function touch();
create trigger touch before update on principals for each row when (old.* is distinct from new.*) execute function touch();
create trigger record_created after insert or delete on organizations for each row execute function record_change('organization', 'deleted_at');
create trigger record_changed after update on organizations for each row when (old.* is distinct from new.*)
  execute function record_change('organization', 'deleted_at');
create trigger record_created after insert or delete on workspaces for each row execute function record_change('workspace', 'deleted_at');
create trigger record_changed after update on workspaces for each row when (old.* is distinct from new.*)
  execute function record_change('workspace', 'deleted_at');
create trigger record_created after insert or delete on principals for each row execute function record_change('principal', 'deleted_at');
create trigger record_changed after update on principals for each row when (old.* is distinct from new.*)
  execute function record_change('principal', 'deleted_at');

-- A tenant's timeline, newest first.
create index events_by_organization on events (organization_id, xid desc, id desc) where organization_id is not null;

-- Row-level security ------------------------------------------------------------------------------------------------------------------------

-- The hub's own role sees all rows of all tables; a condition that is plainly true costs its plans nothing. Later migrations protect their tables with this, and then say what
-- tenants may see of them, which is nothing otherwise.
create procedure protect_table(target regclass) language plpgsql as $$
begin
  execute format('alter table %s enable row level security', target);
  execute format('create policy hub on %s to slipway_hub using (true) with check (true)', target);
  execute format('grant select, insert, update, delete on %s to slipway_hub', target);
end
$$;

do $$
declare
  target regclass;
begin
  for target in
    select c.oid::regclass from pg_class c
    where c.relkind = 'r' and c.relnamespace = current_schema()::regnamespace and c.relname <> 'schema_migrations'
  loop
    call protect_table(target);
  end loop;
end
$$;
grant select on schema_migrations to slipway_hub, slipway_tenant;
do $$
begin
  execute format('grant usage on schema %I to slipway_hub, slipway_tenant', current_schema());
end
$$;

-- What a call may see and change, as its transaction says. Asked for as (select …), so that it is reckoned once for a statement, and its result can be looked up in an index.
create function reach_of(setting text) returns text[] language sql stable parallel safe as $$
  select coalesce(string_to_array(nullif(current_setting('slipway.' || setting, true), ''), ','), '{}')
$$;
create function own_principal() returns uuid language sql stable parallel safe as $$
  select nullif(current_setting('slipway.principal', true), '')::uuid
$$;
create function readable_organizations() returns uuid[] language sql stable parallel safe as $$ select reach_of('read_organizations')::uuid[] $$;
create function writable_organizations() returns uuid[] language sql stable parallel safe as $$ select reach_of('write_organizations')::uuid[] $$;
create function readable_workspaces() returns text[] language sql stable parallel safe as $$
  select coalesce(array_agg(name), '{}') from workspaces
  where organization_id = any (readable_organizations()) or name = any (reach_of('read_workspaces'))
$$;
create function writable_workspaces() returns text[] language sql stable parallel safe as $$
  select coalesce(array_agg(name), '{}') from workspaces
  where organization_id = any (writable_organizations()) or name = any (reach_of('write_workspaces'))
$$;

-- The workspace that an event is about, directly or by what is related to it.
create function event_workspace(subject text, related text[]) returns text language sql immutable parallel safe as $$
  select split_part(name, '/', 2) from unnest(subject || related) as name where name like 'workspaces/%' limit 1
$$;

grant select, update on organizations to slipway_tenant;
create policy tenant_read on organizations for select to slipway_tenant using (id = any ((select readable_organizations())::uuid[]));
create policy tenant_change on organizations for update to slipway_tenant using (id = any ((select writable_organizations())::uuid[]));

grant select, insert, update on workspaces to slipway_tenant;
create policy tenant_read on workspaces for select to slipway_tenant
  using (organization_id = any ((select readable_organizations())::uuid[]) or name = any ((select reach_of('read_workspaces'))::text[]));
create policy tenant_add on workspaces for insert to slipway_tenant with check (organization_id = any ((select writable_organizations())::uuid[]));
create policy tenant_change on workspaces for update to slipway_tenant
  using (organization_id = any ((select writable_organizations())::uuid[]) or name = any ((select reach_of('write_workspaces'))::text[]));

grant select, insert, update on principals to slipway_tenant;
create policy tenant_read on principals for select to slipway_tenant
  using (organization_id = any ((select readable_organizations())::uuid[]) or id = (select own_principal()));
create policy tenant_add on principals for insert to slipway_tenant with check (organization_id = any ((select writable_organizations())::uuid[]));
create policy tenant_change on principals for update to slipway_tenant using (organization_id = any ((select writable_organizations())::uuid[]));

grant select, insert, delete on role_bindings to slipway_tenant;
create policy tenant_read on role_bindings for select to slipway_tenant
  using (organization_id = any ((select readable_organizations())::uuid[]) or workspace_name = any ((select reach_of('read_workspaces'))::text[])
    or principal_id = (select own_principal()));
create policy tenant_add on role_bindings for insert to slipway_tenant
  with check (organization_id = any ((select writable_organizations())::uuid[]) or workspace_name = any ((select reach_of('write_workspaces'))::text[]));
create policy tenant_remove on role_bindings for delete to slipway_tenant
  using (organization_id = any ((select writable_organizations())::uuid[]) or workspace_name = any ((select reach_of('write_workspaces'))::text[]));

grant select, insert, update on client_tokens to slipway_tenant;
create policy tenant_read on client_tokens for select to slipway_tenant
  using (principal_id = (select own_principal())
    or exists (select from principals p where p.id = principal_id and p.organization_id = any ((select readable_organizations())::uuid[])));
create policy tenant_add on client_tokens for insert to slipway_tenant
  with check (principal_id = (select own_principal())
    or exists (select from principals p where p.id = principal_id and p.organization_id = any ((select writable_organizations())::uuid[])));
create policy tenant_change on client_tokens for update to slipway_tenant
  using (principal_id = (select own_principal())
    or exists (select from principals p where p.id = principal_id and p.organization_id = any ((select writable_organizations())::uuid[])));

-- The catalog is everyone's.
grant select on machine_classes to slipway_tenant;
create policy tenant_read on machine_classes for select to slipway_tenant using (true);

grant select, update on hosts to slipway_tenant;
create policy tenant_read on hosts for select to slipway_tenant using (workspace_name = any ((select readable_workspaces())::text[]));
create policy tenant_change on hosts for update to slipway_tenant using (workspace_name = any ((select writable_workspaces())::text[]));

grant select, insert, update on host_schedule to slipway_tenant;
create policy tenant on host_schedule to slipway_tenant
  using (exists (select from hosts h where h.organization_id = host_schedule.organization_id and h.id = host_schedule.host_id));

grant select on machine_requests, machines to slipway_tenant;
create policy tenant_read on machine_requests for select to slipway_tenant using (workspace_name = any ((select readable_workspaces())::text[]));
create policy tenant_read on machines for select to slipway_tenant using (split_part(host_name, '/', 2) = any ((select readable_workspaces())::text[]));

grant select, insert on events to slipway_tenant;
create policy tenant_read on events for select to slipway_tenant
  using (organization_id = any ((select readable_organizations())::uuid[])
    or (organization_id is not null and event_workspace(subject, related) = any ((select reach_of('read_workspaces'))::text[])));
-- What they tell of has been through its own table's policy.
create policy tenant_add on events for insert to slipway_tenant with check (actor = 'token/' || current_setting('slipway.token', true));

-- Written by trigger, read by the hub alone.
grant insert on changes to slipway_tenant;
create policy tenant_add on changes for insert to slipway_tenant with check (true);

grant select, insert on idempotency_keys to slipway_tenant;
create policy tenant on idempotency_keys to slipway_tenant using (split_part(scope, ' ', 1) = current_setting('slipway.token', true));

grant select, insert on audit_entries to slipway_tenant;
create policy tenant_read on audit_entries for select to slipway_tenant
  using (organization_id = any ((select readable_organizations())::uuid[]) or token_id = current_setting('slipway.token', true));
create policy tenant_add on audit_entries for insert to slipway_tenant with check (token_id = current_setting('slipway.token', true));
grant select on audit_chain, audit_heads, audit_cursor to slipway_tenant;
create policy tenant_read on audit_chain for select to slipway_tenant using (chain = any ((select readable_organizations())::uuid[]));
create policy tenant_read on audit_heads for select to slipway_tenant using (chain = any ((select readable_organizations())::uuid[]));
create policy tenant_read on audit_cursor for select to slipway_tenant using (true);
