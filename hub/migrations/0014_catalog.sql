--! compatible
-- What tenants use and pay: a ledger of the times at which hosts had machines, had them ready for use and switched on, and at what price. It is written by a trigger, in the very
-- transaction that changes the host, whoever changes it; nothing in it is ever changed, and it outlives its hosts.

-- What goes on: at most one row for each host.
create table usage_open (
  organization_id uuid not null,
  host_id uuid not null,
  workspace_name text not null,
  host_name text not null,
  class_name text not null,
  provider_id uuid not null,
  provider_name text not null,
  request_id uuid not null,
  -- Null: not known, and nothing is charged.
  price jsonb,
  -- It is charged for: the machine has been READY.
  billable boolean not null,
  powered_on boolean not null,
  -- Set-up is due with it: the first time that the host is charged for this price at this provider.
  sets_up boolean not null,
  started_at timestamptz not null check (started_at = date_trunc('milliseconds', started_at)),
  primary key (organization_id, host_id)
);
create index usage_open_order on usage_open (organization_id, workspace_name, host_name, host_id);

-- What is over. Intervals of one host never overlap: each begins where the open one before it ended, or later.
create table usage_intervals (
  organization_id uuid not null,
  host_id uuid not null,
  workspace_name text not null,
  host_name text not null,
  class_name text not null,
  provider_id uuid not null,
  provider_name text not null,
  request_id uuid not null,
  price jsonb,
  billable boolean not null,
  powered_on boolean not null,
  sets_up boolean not null,
  started_at timestamptz not null,
  ended_at timestamptz not null,
  primary key (organization_id, host_id, started_at),
  unique (organization_id, host_id, ended_at),
  check (started_at < ended_at)
);
create index usage_intervals_order on usage_intervals (organization_id, workspace_name, host_name, host_id, ended_at);

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is only ever added to', tg_table_name;
end
$$;
create trigger only_added_to before update or delete on usage_intervals for each row execute function refuse_change();
create trigger only_added_to_at_once before truncate on usage_intervals for each statement execute function refuse_change();

-- Runs as the owner of the tables: nobody else may write them. The host's row is locked by whoever changes it, so all this is done for one change at a time.
create function record_usage() returns trigger language plpgsql security definer set search_path from current as $$
declare
  held usage_open;
  moment timestamptz := date_trunc('milliseconds', clock_timestamp());
  host hosts;
  allocated boolean := false;
  charged boolean := false;
begin
  if tg_op = 'DELETE' then host := old; else host := new; end if;
  select * into held from usage_open where organization_id = host.organization_id and host_id = host.id;
  if tg_op <> 'DELETE' and host.request_id is not null and host.provider_id is not null then
    allocated := case host.state
      when 'PLACED' then true
      when 'PROVISIONING' then true
      when 'BOOTSTRAPPING' then true
      when 'READY' then true
      -- A host whose machine is kept for a person to look after still has it.
      when 'ERROR' then exists (
        select from machine_requests r
        where r.provider_id = host.provider_id and r.id = host.request_id and r.state in ('PENDING', 'PROVISIONING', 'PROVISIONED')
          and r.desired_presence = 'PRESENT' and r.presence <> 'ABSENT'
      )
      else false
    end;
    charged := allocated and (host.state = 'READY' or (held.request_id is not distinct from host.request_id and held.billable));
  end if;
  if not allocated and held.host_id is null then return null; end if;
  if allocated and held.request_id is not distinct from host.request_id and held.price is not distinct from host.price
    and held.billable = charged and held.powered_on = (host.power is not distinct from 'ON') then return null; end if;
  if held.host_id is not null then
    -- A clock that was set back costs nobody anything, and makes no two intervals of one time.
    moment := greatest(moment, held.started_at);
    if moment > held.started_at then
      insert into usage_intervals (organization_id, host_id, workspace_name, host_name, class_name, provider_id, provider_name, request_id, price,
                                   billable, powered_on, sets_up, started_at, ended_at)
      values (held.organization_id, held.host_id, held.workspace_name, held.host_name, held.class_name, held.provider_id, held.provider_name,
              held.request_id, held.price, held.billable, held.powered_on, held.sets_up, held.started_at, moment);
    end if;
    delete from usage_open where organization_id = held.organization_id and host_id = held.host_id;
  else
    moment := greatest(moment, (select max(ended_at) from usage_intervals where organization_id = host.organization_id and host_id = host.id));
  end if;
  if allocated then
    insert into usage_open (organization_id, host_id, workspace_name, host_name, class_name, provider_id, provider_name, request_id, price,
                            billable, powered_on, sets_up, started_at)
    values (host.organization_id, host.id, host.workspace_name, host.name, host.class_name, host.provider_id, coalesce(host.provider_name, ''),
            host.request_id, host.price, charged, host.power is not distinct from 'ON',
            charged and host.price is not null and not exists (
              select from usage_intervals u
              where u.organization_id = host.organization_id and u.host_id = host.id and u.sets_up
                and u.provider_id = host.provider_id and u.price = host.price
            ),
            moment);
  end if;
  return null;
end
$$;
revoke execute on function record_usage() from public;

create trigger record_usage_added after insert on hosts for each row when (new.request_id is not null) execute function record_usage();
create trigger record_usage_changed after update on hosts for each row
  when ((old.state, old.request_id, old.provider_id, old.price, old.power) is distinct from (new.state, new.request_id, new.provider_id, new.price, new.power))
  execute function record_usage();
create trigger record_usage_deleted after delete on hosts for each row execute function record_usage();

-- Hosts that are there already: what they used before was not recorded, and set-up is taken to be paid.
insert into usage_open (organization_id, host_id, workspace_name, host_name, class_name, provider_id, provider_name, request_id, price,
                        billable, powered_on, sets_up, started_at)
select organization_id, id, workspace_name, name, class_name, provider_id, coalesce(provider_name, ''), request_id, price,
       state = 'READY', power is not distinct from 'ON', false, date_trunc('milliseconds', clock_timestamp())
from hosts
where state in ('PLACED', 'PROVISIONING', 'BOOTSTRAPPING', 'READY') and request_id is not null and provider_id is not null;

call protect_table('usage_open');
call protect_table('usage_intervals');
grant select on usage_open, usage_intervals to slipway_tenant;
create policy tenant_read on usage_open for select to slipway_tenant using (workspace_name = any ((select readable_workspaces())::text[]));
create policy tenant_read on usage_intervals for select to slipway_tenant using (workspace_name = any ((select readable_workspaces())::text[]));

-- Classes that the hub made for a shape are taken away when they have not been used for a time.
create index hosts_released_by_class on hosts (class_id, released_at) where state = 'RELEASED';
create index machine_classes_auto_created on machine_classes (name) where auto_created and deleted_at is null;
