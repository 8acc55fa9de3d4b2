--! breaking
-- The order of changes. Transaction ids alone do not put the changes of one resource in the order in which they were made: a transaction that had its id early may wait
-- for the lock of a row that a later one changes first. So a change is placed by the greater of its own transaction's id and the place of the resource's last change. A
-- place is never before its own transaction, and so is not passed by readers before that has ended. `writer` is the transaction itself, by which a snapshot tells whether it
-- shows the change.

alter table providers add column changed_xid xid8 not null default pg_current_xact_id();
alter table machine_classes add column changed_xid xid8 not null default pg_current_xact_id();
alter table hosts add column changed_xid xid8 not null default pg_current_xact_id();
alter table machine_requests add column changed_xid xid8 not null default pg_current_xact_id();
alter table machines add column changed_xid xid8 not null default pg_current_xact_id();

alter table changes add column writer xid8;
update changes set writer = xid;
alter table changes alter column writer set not null, alter column writer set default pg_current_xact_id();

create or replace function touch() returns trigger language plpgsql as $$
begin
  new.version := old.version + 1;
  new.updated_at := clock_timestamp();
  new.changed_xid := greatest(old.changed_xid, pg_current_xact_id());
  return new;
end
$$;

create or replace function record_change() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    insert into changes (xid, resource, resource_id, op, doc)
    values (new.changed_xid, tg_argv[0], new.id, 'CREATED', to_jsonb(new));
  elsif tg_op = 'DELETE' then
    insert into changes (xid, resource, resource_id, op, doc)
    values (greatest(old.changed_xid, pg_current_xact_id()), tg_argv[0], old.id, 'DELETED', to_jsonb(old));
  elsif (to_jsonb(new) ->> tg_argv[1]) is not null and (to_jsonb(old) ->> tg_argv[1]) is null then
    insert into changes (xid, resource, resource_id, op, doc)
    values (new.changed_xid, tg_argv[0], new.id, 'DELETED', to_jsonb(new));
  else
    insert into changes (xid, resource, resource_id, op, doc)
    values (new.changed_xid, tg_argv[0], new.id, 'UPDATED', to_jsonb(new));
  end if;
  return null;
end
$$;
