--! compatible
-- Every claim and every release writes an item anew in each of its indexes: there are as few of them as will do. A key that begins with the id serves those who
-- know nothing but the id as well.
drop index work_items_by_id;
alter table work_items drop constraint work_items_pkey, add primary key (id, provider_id);

-- Entries of one session are all different, so that its many claims are not all told apart at the same place of the index.
drop index work_items_held;
create index work_items_held on work_items (session_id, id) where session_id is not null;
