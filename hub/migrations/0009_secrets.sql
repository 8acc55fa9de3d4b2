--! breaking
-- Secrets: documents that are written and used, and never read back. What is sealed is in a table of its own, without a trigger that records changes. Breaking, because
-- from here on values are sealed in a form that can be wrapped anew under another key-encryption key, which older hubs cannot open.

create table secrets (
  organization_id uuid not null references organizations (id),
  id uuid not null,
  name text not null,
  description text not null default '',
  labels jsonb not null default '{}',
  annotations jsonb not null default '{}',
  current_version bigint not null default 1,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (organization_id, id)
);
create unique index secrets_name on secrets (organization_id, name);
create trigger touch before update on secrets for each row when (old.* is distinct from new.*) execute function touch();

create table secret_versions (
  organization_id uuid not null,
  secret_id uuid not null,
  version bigint not null,
  -- Null once it is destroyed: that there was one, and who made it, stays known for a while.
  sealed bytea,
  created_at timestamptz not null default clock_timestamp(),
  created_by text not null,
  destroyed_at timestamptz,
  primary key (organization_id, secret_id, version),
  foreign key (organization_id, secret_id) references secrets (organization_id, id) on delete cascade,
  check ((sealed is null) = (destroyed_at is not null))
);

-- A provider's credentials: its own, sealed, or a version of a secret. The newest row is what its instances are to use; an older one is what they fall back on until
-- all of them have reported that the newest works. So there are two rows at most, and two only while something is being proven.
alter table provider_credentials add column config_version bigint;
update provider_credentials c set config_version = p.config_version from providers p where p.id = c.provider_id;
alter table provider_credentials
  alter column config_version set not null,
  alter column sealed drop not null,
  add column organization_id uuid,
  add column secret_id uuid,
  add column secret_version bigint,
  drop constraint provider_credentials_pkey,
  add primary key (provider_id, config_version),
  add foreign key (organization_id, secret_id, secret_version) references secret_versions (organization_id, secret_id, version),
  add check ((sealed is null) = (secret_id is not null));
create index provider_credentials_by_secret on provider_credentials (organization_id, secret_id) where secret_id is not null;

-- The resource name of the secret, as watchers are shown it.
alter table providers add column credentials_secret text not null default '';
-- The latest version of the configuration that the instance has said to work, or was welcomed with.
alter table sessions add column configured_version bigint not null default 0;

create or replace function touch_provider() returns trigger language plpgsql as $$
begin
  if (new.name, new.family, new.kind, new.config, new.config_version, new.labels, new.annotations, new.auto_accept_machines, new.draining,
      new.orphan_mode, new.orphan_min_age_ms, new.orphan_max_per_pass, new.orphan_max_percent, new.credentials_secret, new.deleted_at)
     is distinct from
     (old.name, old.family, old.kind, old.config, old.config_version, old.labels, old.annotations, old.auto_accept_machines, old.draining,
      old.orphan_mode, old.orphan_min_age_ms, old.orphan_max_per_pass, old.orphan_max_percent, old.credentials_secret, old.deleted_at) then
    new.version := old.version + 1;
  end if;
  new.updated_at := clock_timestamp();
  return new;
end
$$;

-- The hub's own: what a tenant may do with its secrets, the hub does for it.
call protect_table('secrets');
call protect_table('secret_versions');
