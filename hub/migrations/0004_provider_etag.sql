--! compatible
-- A provider's etag covers what clients write. What its instances tell of it comes every few seconds, and must not make a careful client's update fail.

create function touch_provider() returns trigger language plpgsql as $$
begin
  if (new.name, new.family, new.kind, new.config, new.config_version, new.labels, new.annotations, new.auto_accept_machines, new.draining,
      new.orphan_mode, new.orphan_min_age_ms, new.orphan_max_per_pass, new.orphan_max_percent, new.deleted_at)
     is distinct from
     (old.name, old.family, old.kind, old.config, old.config_version, old.labels, old.annotations, old.auto_accept_machines, old.draining,
      old.orphan_mode, old.orphan_min_age_ms, old.orphan_max_per_pass, old.orphan_max_percent, old.deleted_at) then
    new.version := old.version + 1;
  end if;
  new.updated_at := clock_timestamp();
  return new;
end
$$;

drop trigger touch on providers;
create trigger touch before update on providers for each row when (old.* is distinct from new.*) execute function touch_provider();
