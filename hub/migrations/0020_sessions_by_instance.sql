--! compatible
-- A process that says Hello again takes the place of its earlier sessions: they are looked up among all that its provider ever had.
create index sessions_by_instance on sessions (provider_id, instance_id);
