--! breaking
-- Orphans get a name, a history and an order to remove them; providers a policy. What was in the table is seen again by the next listing.

drop table orphans;

create table orphans (
  provider_id uuid not null references providers (id),
  id uuid not null,
  name text not null,
  provider_name text not null,
  kind text not null,
  external_id text not null,
  external_name text not null default '',
  ownership_key text not null,
  -- The request that the key names; null where it cannot be read.
  request_id uuid,
  power text,
  addresses jsonb not null default '[]',
  first_seen_at timestamptz not null,
  -- When the last complete listing that showed it was taken in.
  last_seen_at timestamptz not null,
  -- Complete listings in a row that showed it; those that overlap count once.
  sightings integer not null default 1,
  last_listing_id uuid not null,
  -- When the first of the complete listings in a row that did not show it was taken in.
  missed_at timestamptz,
  -- Why it is kept. Null: its removal is ordered.
  keep_reason text,
  keep_message text not null default '',
  kept_by text,
  kept_for text not null default '',
  -- The order. `policy`, or who gave it.
  removal_ordered_at timestamptz,
  removal_ordered_by text,
  -- Changes with every order; it is what an instance echoes.
  removal_order_id uuid,
  -- When the order is to be given, or given again. Null: there is none, or it was carried out.
  removal_due_at timestamptz,
  removal_attempts integer not null default 0,
  -- When it was given last, while no answer has come.
  removal_sent_at timestamptz,
  -- When an instance said that it is gone.
  removal_done_at timestamptz,
  refused_at timestamptz,
  last_error jsonb,
  version bigint not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (provider_id, id)
);
create unique index orphans_external on orphans (provider_id, kind, external_id);
create unique index orphans_name on orphans (name);
create index orphans_by_id on orphans (id);
create index orphans_due on orphans (provider_id, removal_due_at) where removal_due_at is not null;

-- Being seen once more changes nothing that a decision could rest on.
create trigger touch before update on orphans for each row when (
  (old.ownership_key, old.keep_reason, old.kept_by, old.kept_for, old.removal_order_id, old.removal_done_at, old.last_error)
  is distinct from
  (new.ownership_key, new.keep_reason, new.kept_by, new.kept_for, new.removal_order_id, new.removal_done_at, new.last_error)
) execute function touch();

-- One row a provider: its lock makes one pass of it at a time, over all replicas.
create table orphan_passes (
  provider_id uuid primary key references providers (id),
  -- When the last complete listing was taken in.
  at timestamptz not null,
  listing_id uuid not null
) with (fillfactor = 70);

alter table providers
  add column effect_timeout_ms bigint not null default 600000,
  add column orphan_mode text not null default 'REPORT' check (orphan_mode in ('REPORT', 'REMOVE')),
  add column orphan_min_age_ms bigint not null default 3600000,
  add column orphan_max_per_pass integer not null default 5,
  add column orphan_max_percent integer not null default 10,
  -- Since when the removal of orphans has stopped itself.
  add column orphan_stopped_at timestamptz;

-- When the database was last restored from a backup, which whoever restored it says by changing the epoch. Null: never.
alter table hub_meta add column restored_at timestamptz;

create function note_restore() returns trigger language plpgsql as $$
begin
  new.restored_at := clock_timestamp();
  return new;
end
$$;
create trigger note_restore before update of epoch on hub_meta for each row when (old.epoch is distinct from new.epoch)
  execute function note_restore();
