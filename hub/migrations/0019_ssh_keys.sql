--! compatible
-- SSH keys that may log in on a host, as they were ordered. Those of host sets and machine requests are in their template and spec.

alter table hosts add column ssh_public_keys text[] not null default '{}';
