--! compatible
-- The labels of machines one by one, in the order in which machines are listed: a page of those with one label is read from where it begins, however many there are. Row-level
-- security keeps PostgreSQL from using what it knows of the labels' distribution, so it cannot choose well between all that match and all in their order; here it has no choice.
-- Labels that are longer than any that a selector is likely to name are left out, because an index takes no long values.

create table machine_labels (
  -- `key=value`, as a selector sees it.
  label text not null,
  machine_name text not null,
  primary key (label, machine_name)
);

create function labels_one_by_one(labels jsonb) returns setof text language sql immutable parallel safe as $$
  select key || '=' || value from jsonb_each_text(labels) where octet_length(key) + octet_length(value) <= 600
$$;

create function record_machine_labels() returns trigger language plpgsql security definer set search_path from current as $$
begin
  if tg_op <> 'INSERT' then
    delete from machine_labels where label = any (array(select labels_one_by_one(old.provider_labels || old.labels))) and machine_name = old.name;
  end if;
  if tg_op <> 'DELETE' then
    -- Keys of providers may hold an equals sign, too: two labels may then read alike.
    insert into machine_labels (label, machine_name) select labels_one_by_one(new.provider_labels || new.labels), new.name on conflict do nothing;
  end if;
  return null;
end
$$;
revoke execute on function record_machine_labels() from public;

create trigger record_labels_added after insert on machines for each row
  when (new.provider_labels || new.labels <> '{}')
  execute function record_machine_labels();
create trigger record_labels_changed after update on machines for each row
  when ((old.name, old.provider_labels || old.labels) is distinct from (new.name, new.provider_labels || new.labels))
  execute function record_machine_labels();
create trigger record_labels_removed after delete on machines for each row
  when (old.provider_labels || old.labels <> '{}')
  execute function record_machine_labels();

-- With a million machines it takes longer than statements of the hub may.
set local statement_timeout = 0;
insert into machine_labels (label, machine_name)
select labels_one_by_one(provider_labels || labels), name from machines
on conflict do nothing;

call protect_table('machine_labels');
