--! compatible
-- Lists of a million: what people filter by is found by an index, and not by reading everything in the order of names.

-- A selector sees a machine's own labels and its provider's as one.
drop index machines_by_labels;
create index machines_by_labels on machines using gin ((provider_labels || labels) jsonb_path_ops);
alter index machines_by_labels alter column 1 set statistics 1000;
create index machines_by_provider_state on machines (provider_name, state, name);

-- Hosts are listed in this order, released ones too.
drop index hosts_by_workspace;
create index hosts_by_workspace on hosts (workspace_name, name, id);
create index hosts_in_error on hosts (workspace_name, name, id) where state = 'ERROR';

-- People ask for a host's requests by its name.
drop index machine_requests_by_host;
create index machine_requests_by_host_name on machine_requests (host_name, id);

-- What an expression over a row's labels selects is guessed at without these.
analyze machines, hosts;
