--! compatible
-- Controllers that must run once in the whole hub. Whoever holds the row runs; the fence rises with every change of holder, and every write of the
-- controller is made under a lock of this row with that fence, so that a replica that was paused past its lease writes nothing when it wakes up.

create table controllers (
  name text primary key,
  holder text not null,
  fence bigint not null default 1,
  -- Since when the holder has held it without a gap.
  held_since timestamptz not null default clock_timestamp(),
  expires_at timestamptz not null
) with (fillfactor = 70);
