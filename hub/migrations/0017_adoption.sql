--! breaking
-- Servers that exist already at dynamic providers, and come into hosts as they are. Breaking, because an older hub would have the server of an adoption that is given
-- up removed, as if it had been made.

alter table machine_requests
  -- The server that it takes over, by its id out there. Null: its machine is made, or was the hub's before.
  add column adopt_external_id text,
  drop constraint machine_requests_operation_check,
  add constraint machine_requests_operation_check check (operation in ('PROVISION', 'REINSTALL', 'DEPROVISION', 'ADOPT', 'UNADOPT')),
  -- What was given up before its host was ready is let go of, and what was not adopted cannot be.
  add check (operation <> 'UNADOPT' or adopt_external_id is not null);
-- Of two that want the same server, one has it.
create unique index machine_requests_adoption on machine_requests (provider_id, adopt_external_id)
  where adopt_external_id is not null and state <> 'GONE';

-- Whoever resumes a watch from before is shown these, too.
update changes set doc = '{"adopt_external_id": null}'::jsonb || doc where resource = 'machine_request';
