--! compatible
-- What is scarce: what providers said that they have none of, where creates keep failing, and whose turn it is where hosts wait for machines that exist already.

-- Not offered again for a while. CAPACITY is said of one type in one location and market; QUOTA of all that the same credential is good for, and that needs at least as much.
-- What a hub of before this one holds back, it holds back for itself: offerings.held_until is read no more.
create table capacity_holds (
  -- Whose it is: a secret's, at all providers of one family that use it, or one provider's own.
  credential text not null,
  code text not null check (code in ('CAPACITY', 'QUOTA')),
  type_id text not null,
  -- Empty for QUOTA: everywhere.
  location text not null,
  -- As provider_data names it; empty: the provider's ordinary one.
  market text not null,
  -- Who said so.
  provider_id uuid not null references providers (id),
  provider_name text not null,
  -- What was asked for, where that is known.
  shape jsonb,
  reason text not null,
  held_at timestamptz not null default clock_timestamp(),
  held_until timestamptz not null,
  primary key (credential, code, type_id, location, market)
);
create index capacity_holds_over on capacity_holds (held_until);

-- Creates that failed lately, at places where any did: the number halves with time. Whoever succeeds writes nothing.
create table place_failures (
  provider_id uuid not null references providers (id),
  type_id text not null,
  location text not null,
  -- Of static machines: which one. Zeros: of none.
  machine_id uuid not null default '00000000-0000-0000-0000-000000000000',
  -- As it was at failed_at.
  failures double precision not null,
  -- How many were asked for there in the time before.
  creates integer not null,
  failed_at timestamptz not null default clock_timestamp(),
  primary key (provider_id, type_id, location, machine_id)
);
create index place_failures_over on place_failures (failed_at);

-- Hosts that wait for static machines stand in lanes: one for each workspace, priority and kind of wish. Hosts of one lane differ in nothing but their age.
create table machine_lanes (
  id uuid primary key,
  organization_id uuid not null,
  workspace_id uuid not null,
  priority smallint not null,
  -- A digest of what is wished for.
  wish text not null,
  -- A machine of this provider is there, and it is its turn. Null: it is not.
  turn_provider_id uuid,
  -- It had its turn, and took nothing: maybe it looked a moment too early.
  missed_at timestamptz,
  -- It had its turn once more, and could take nothing: others go first until then.
  passed_until timestamptz,
  joined_at timestamptz not null default clock_timestamp(),
  unique (workspace_id, priority, wish)
) with (fillfactor = 50);
create table machine_waits (
  organization_id uuid not null,
  host_id uuid not null,
  lane_id uuid not null,
  -- Since when.
  since timestamptz not null,
  primary key (organization_id, host_id),
  foreign key (organization_id, host_id) references hosts (organization_id, id) on delete cascade
);
create index machine_waits_in_lanes on machine_waits (lane_id, since, host_id);

-- Whoever waits no more leaves its lane, however that came about.
create function leave_lane() returns trigger language plpgsql security definer set search_path from current as $$
begin
  delete from machine_waits where organization_id = new.organization_id and host_id = new.id;
  return null;
end
$$;
revoke execute on function leave_lane() from public;
create trigger leave_lane after update on hosts for each row
  when (old.state = 'ORDERED' and new.state <> 'ORDERED' and new.class_spec -> 'machineSelector' <> 'null'::jsonb)
  execute function leave_lane();

-- How far each workspace has come at a provider whose machines several wait for, in virtual time; and the provider's own clock, which stands still while nobody competes.
create table machine_shares (
  provider_id uuid not null references providers (id),
  workspace_id uuid not null,
  pass double precision not null,
  primary key (provider_id, workspace_id)
) with (fillfactor = 50);
create table machine_clocks (
  provider_id uuid primary key references providers (id),
  clock double precision not null
) with (fillfactor = 50);

call protect_table('capacity_holds');
call protect_table('place_failures');
call protect_table('machine_lanes');
call protect_table('machine_waits');
call protect_table('machine_shares');
call protect_table('machine_clocks');
