--! breaking
-- Reinstalls in place, and rescue systems. A hub that does not know them would hand a reinstall over as if there were nothing to do.

alter table machine_requests
  add column reinstalls bigint not null default 0,
  add column reinstalls_done bigint not null default 0,
  -- When the latest one was wished for: its deadline counts from here.
  add column reinstall_wished_at timestamptz,
  -- The wish for the rescue system, with the keys that may log in. Null: the machine's own system.
  add column rescue jsonb,
  -- Rises with every such wish, and outlives it.
  add column rescue_revision bigint not null default 0,
  -- The revision under which it runs its rescue system, as observed. 0: it runs its own.
  add column rescue_seen bigint not null default 0,
  drop constraint machine_requests_operation_check,
  add constraint machine_requests_operation_check check (operation in ('PROVISION', 'REINSTALL', 'DEPROVISION'));

alter table machines
  add column reinstalls bigint not null default 0,
  add column reinstalls_done bigint not null default 0,
  add column desired_rescue boolean not null default false,
  add column rescue boolean not null default false;

-- Whoever resumes a watch from before is shown these, too.
update changes
set doc = '{"reinstalls": 0, "reinstalls_done": 0, "desired_rescue": false, "rescue": false}'::jsonb || doc
where resource = 'machine';
