--! breaking
-- The life of static machines: waiting states, pauses, adoption, and what providers tell. A hub that does not know them would claim what a person holds, and hand an
-- adoption over as if there were nothing to do.

alter table work_items
  -- Nobody may claim it: its machine is in maintenance, or held.
  add column paused boolean not null default false;

alter table machine_requests
  -- Since when its machine is left alone; null: it is not.
  add column paused_at timestamptz,
  -- For how long in all, since its present deadline began to count.
  add column paused_ms bigint not null default 0,
  drop constraint machine_requests_operation_check,
  add constraint machine_requests_operation_check check (operation in ('PROVISION', 'REINSTALL', 'DEPROVISION', 'ADOPT'));

alter table machines
  -- Its provider says that it is in use: it can be adopted, and not accepted.
  add column in_use boolean not null default false,
  add column maintenance_by text not null default '',
  -- What the system began, the system may end.
  add column maintenance_by_system boolean not null default false,
  add column maintenance_reason text not null default '',
  add column maintenance_at timestamptz,
  -- A person's hold. Null: there is none.
  add column hold_at timestamptz,
  add column hold_by text not null default '',
  add column hold_reason text not null default '',
  -- Since when it is left alone, for whichever of the two. Null: it is not.
  add column paused_at timestamptz,
  -- What it waits for, since when, and until when. Null: it does not.
  add column waiting_for text not null default '',
  add column waiting_at timestamptz,
  add column waiting_until_at timestamptz,
  drop constraint machines_operation_check,
  add constraint machines_operation_check check (operation in ('VERIFY', 'INSPECT', 'CLEAN', 'POWER', 'ADOPT'));

drop index machines_under_way;
create index machines_under_way on machines (provider_id, id)
  where static and state in ('VERIFYING', 'INSPECTING', 'INSPECT_WAIT', 'CLEANING', 'CLEAN_WAIT', 'ADOPTING');
create index machines_waiting on machines (waiting_until_at) where waiting_until_at is not null;
-- A moved machine is recognised by what it is made of.
create index machines_by_serial on machines ((hardware ->> 'serial')) where static and state <> 'GONE';
-- How full a rack is.
create index machines_in_racks on machines (provider_id, ((provider_labels || labels) ->> 'rack')) where static and request_id is not null;

-- What was in maintenance before stays so, and is a person's.
update machines set maintenance_by = 'hub', maintenance_at = updated_at, paused_at = updated_at where maintenance and state <> 'GONE';
update machine_requests r set paused_at = m.paused_at from machines m where m.request_id = r.id and m.paused_at is not null;
update work_items w set paused = true from machines m where m.paused_at is not null and (w.id = m.id or w.id = m.request_id);

alter table events
  -- What a provider tells again and again is one line.
  add column count bigint not null default 1,
  add column last_at timestamptz;

-- Whoever resumes a watch from before is shown these, too.
update changes
set doc = '{"in_use": false, "maintenance_by": "", "maintenance_by_system": false, "maintenance_reason": "", "maintenance_at": null, "hold_at": null,
            "hold_by": "", "hold_reason": "", "paused_at": null, "waiting_for": "", "waiting_at": null, "waiting_until_at": null}'::jsonb || doc
where resource = 'machine';
update changes set doc = '{"paused_at": null, "paused_ms": 0}'::jsonb || doc where resource = 'machine_request';
