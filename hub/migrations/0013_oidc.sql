--! compatible
-- People who sign in at an OpenID Connect issuer: who there is which principal, and ID tokens that were exchanged.

create table principal_identities (
  id uuid primary key,
  name text not null unique,
  principal_id uuid not null references principals (id),
  -- The issuer's identifier.
  issuer text not null,
  -- Null until the first sign-in, of one that is recognized by its e-mail address.
  subject text,
  email text,
  created_by text not null,
  created_at timestamptz not null default clock_timestamp(),
  -- Until when a first sign-in is waited for. Null: it is not.
  expires_at timestamptz,
  last_used_at timestamptz,
  check (subject is not null or (email is not null and expires_at is not null))
);
create unique index principal_identities_subject on principal_identities (issuer, subject) where subject is not null;
create unique index principal_identities_email on principal_identities (issuer, email) where subject is null;
create index principal_identities_by_principal on principal_identities (principal_id);

-- By which identity a session was begun. Null: the token is no session.
alter table client_tokens add column identity_id uuid;
create index client_tokens_by_identity on client_tokens (identity_id) where identity_id is not null;

create table used_id_tokens (
  digest bytea primary key,
  -- When it would be refused for its age alone.
  expires_at timestamptz not null
);
create index used_id_tokens_by_end on used_id_tokens (expires_at);

call protect_table('principal_identities');
call protect_table('used_id_tokens');

grant select, insert, delete on principal_identities to slipway_tenant;
create policy tenant_read on principal_identities for select to slipway_tenant
  using (principal_id = (select own_principal())
    or exists (select from principals p where p.id = principal_id and p.organization_id = any ((select readable_organizations())::uuid[])));
create policy tenant_add on principal_identities for insert to slipway_tenant
  with check (exists (select from principals p where p.id = principal_id and p.organization_id = any ((select writable_organizations())::uuid[])));
create policy tenant_remove on principal_identities for delete to slipway_tenant
  using (exists (select from principals p where p.id = principal_id and p.organization_id = any ((select writable_organizations())::uuid[])));
