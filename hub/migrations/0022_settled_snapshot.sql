--! compatible
-- A place in a watch is a snapshot, and outlives the server. What was begun and never committed may be forgotten when PostgreSQL crashes: its transaction id is then given to
-- another, which commits under it, and which an old snapshot takes for one whose end it has seen. So a place reaches no further than the newest transaction that has left
-- something in a feed: that one was on disk before anybody saw it, and no id up to its own is ever given again.
create function settled_snapshot() returns text language plpgsql stable security definer set search_path from current as $$
declare
  newest xid8;
  behind text;
  first text;
  open text;
begin
  select greatest(
    changes_xid, events_xid,
    (select xid from changes order by xid desc limit 1),
    (select xid from events order by xid desc limit 1)
  ) into newest from change_horizon;
  behind := (newest::text::bigint + 1)::text;
  select string_agg(xid::text, ',' order by xid), (array_agg(xid::text order by xid))[1] into open, first
  from pg_snapshot_xip(pg_current_snapshot()) as xip (xid) where xid <= newest;
  return format('%s:%s:%s', coalesce(first, behind), behind, coalesce(open, ''));
end $$;
