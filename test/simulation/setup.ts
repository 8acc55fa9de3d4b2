import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { Kysely, PostgresDialect } from 'kysely'
import {
  Authority,
  inTransaction,
  machineTransitions,
  makeKeyring,
  migrate,
  readMeta,
  recordCertificate,
  type Keyring,
  type Tables,
} from '@slipway/hub/testing/simulation'
import { makeSigningRequest } from '@slipway/sdk/testing'
import { connectionOptions } from './database.js'

// The records that every seed begins with: providers, their certificates, classes. They are made once, by the hub's own code where it has any, and copied back before each seed.

export interface SetUp {
  readonly url: string
  readonly keyring: Keyring
  readonly authority: Authority
  readonly hubId: string
  readonly epoch: string
  /** The certificate of each provider, by its name. */
  readonly certificates: ReadonlyMap<string, Buffer>
}

/** Providers of the simulated world: two clouds of different manners, and a rack. */
export const providers = [
  { id: '00000000-0000-7000-8000-00000000000a', name: 'cloud-a', family: 'cloud-a', kind: 'DYNAMIC' },
  { id: '00000000-0000-7000-8000-00000000000b', name: 'cloud-b', family: 'cloud-b', kind: 'DYNAMIC' },
  { id: '00000000-0000-7000-8000-00000000000c', name: 'rack', family: 'rack', kind: 'STATIC' },
] as const

export const rackMachines = 2

/** Makes a database of the worker's own, and what is to be in it. Drop it with {@link dropDatabase}. */
export async function setUp(server: string, name: string): Promise<SetUp> {
  await administer(server, `drop database if exists ${name} with (force)`)
  await administer(server, `create database ${name}`)
  const url = new URL(server)
  url.pathname = `/${name}`
  await administer(url.toString(), clockStatements)
  const pool = new pg.Pool({ connectionString: url.toString(), options: connectionOptions, max: 2 })
  const db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) })
  try {
    await migrate(db)
    const keyring = makeKeyring([randomBytes(32)])
    const { hubId, epoch } = await readMeta(db)
    const authority = await Authority.load(db, keyring, hubId)
    const certificates = new Map<string, Buffer>()
    for (const provider of providers) {
      await db
        .insertInto('providers')
        .values({ ...provider, auto_accept_machines: provider.kind === 'STATIC' })
        .execute()
      const { csrDer } = makeSigningRequest()
      const issued = await authority.issueProviderCertificate({
        csrDer,
        providerId: provider.id,
        instanceName: provider.name,
      })
      await inTransaction(db, (tx) =>
        recordCertificate(tx, {
          serial: issued.serial,
          providerId: provider.id,
          instanceName: provider.name,
          notAfter: new Date('2200-01-01'),
        }),
      )
      certificates.set(provider.name, Buffer.from(issued.certificateDer))
    }
    await insertClasses(db)
    await administer(url.toString(), resetStatements)
    return { url: url.toString(), keyring, authority, hubId, epoch, certificates }
  } finally {
    await db.destroy()
  }
}

export async function dropDatabase(server: string, name: string): Promise<void> {
  await administer(server, `drop database if exists ${name} with (force)`)
}

async function insertClasses(db: Kysely<Tables>): Promise<void> {
  const bootstrap = { phoneHome: false, phoneHomeTimeoutMs: 60_000, provisionTimeoutMs: 600_000, userData: '' }
  const offering = { provider: '', typeId: '', locations: [], providerData: {} }
  const cloud = ['cloud-a', 'cloud-b'].map((family) => ({ ...offering, family }))
  const classes = [
    { name: 'any-cloud', offerings: cloud, machine_selector: null, bootstrap },
    {
      name: 'calls-home',
      offerings: cloud.slice(0, 1),
      machine_selector: null,
      bootstrap: { ...bootstrap, phoneHome: true },
    },
    {
      name: 'metal',
      offerings: [],
      machine_selector: { labelSelector: '', provider: 'rack', providerData: {} },
      bootstrap,
    },
  ]
  for (const [index, row] of classes.entries()) {
    await db
      .insertInto('machine_classes')
      .values({
        id: `00000000-0000-7000-8000-00000000010${index}`,
        name: row.name,
        shape: JSON.stringify({ vcpus: 0, memoryMib: 0, diskGib: 0, diskClass: '', architecture: '' }),
        offerings: JSON.stringify(row.offerings),
        machine_selector: row.machine_selector === null ? null : JSON.stringify(row.machine_selector),
        bootstrap: JSON.stringify(row.bootstrap),
      })
      .execute()
  }
}

// A sequence, because what it says is the same for all transactions at once, whatever they have seen before.
const clockStatements = `
  create schema sim;
  create sequence sim.clock start 1893456000000;
  create function sim.clock_timestamp() returns timestamptz language plpgsql volatile as
    $$ begin return to_timestamp((select last_value from sim.clock) / 1000.0); end $$;
  create function sim.now() returns timestamptz language plpgsql volatile as
    $$ begin return to_timestamp((select last_value from sim.clock) / 1000.0); end $$;
`

/** Which tables are kept as they were set up; all others begin empty. */
const kept = [
  'provider_pools',
  'hub_meta',
  'organizations',
  'workspaces',
  'certificate_authorities',
  'provider_certificates',
  'machine_classes',
  'change_horizon',
  'schema_migrations',
]

const resetStatements = `
  do $$
  declare name text;
  begin
    -- What PostgreSQL does by itself in the background would make two runs of one seed differ.
    for name in select table_name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE' loop
      execute format('alter table public.%I set (autovacuum_enabled = off)', name);
    end loop;
  end $$;
  create table sim.providers as select * from public.providers;
  create table sim.violations (invariant text not null, message text not null);

  create function sim.violate(invariant text, message text) returns void language sql as
    $$ insert into sim.violations values (invariant, message) $$;

  -- A fence rises with every claim, and with nothing else but a person's word; and only the same process is bound again under the same one.
  create function sim.check_item() returns trigger language plpgsql as $$
  begin
    if new.fence < old.fence then
      perform sim.violate('I3', format('the fence of %s fell from %s to %s', old.id, old.fence, new.fence));
    end if;
    if new.generation < old.generation then
      perform sim.violate('S7', format('the generation of %s fell', old.id));
    end if;
    if new.session_id is not null and new.session_id is distinct from old.session_id and new.fence = old.fence and old.session_id is not null and not exists (
      select 1 from public.sessions a join public.sessions b on a.instance_id = b.instance_id where a.id = old.session_id and b.id = new.session_id
    ) then
      perform sim.violate('I3', format('%s went from one process to another under fence %s', old.id, old.fence));
    end if;
    return null;
  end $$;
  create table sim.holders (item uuid, fence bigint, instance uuid, primary key (item, fence));
  create function sim.check_holder() returns trigger language plpgsql as $$
  declare
    holder uuid;
    before uuid;
  begin
    select instance_id into holder from public.sessions where id = new.session_id;
    select instance into before from sim.holders where item = new.id and fence = new.fence;
    if before is null then
      insert into sim.holders values (new.id, new.fence, holder);
    elsif before <> holder then
      perform sim.violate('I3', format('two processes have held %s under fence %s', new.id, new.fence));
    end if;
    return null;
  end $$;
  create trigger sim_check_holder after update on public.work_items for each row when (new.session_id is not null) execute function sim.check_holder();
  create trigger sim_check after update on public.work_items for each row execute function sim.check_item();

  -- A result is stored by the present holder alone.
  create function sim.check_step() returns trigger language plpgsql as $$
  begin
    if not exists (select 1 from public.work_items w where w.id = new.item_id and w.fence = new.fence and w.session_id is not null) then
      perform sim.violate('I3', format('step %s of %s was stored under fence %s, which is over', new.name, new.item_id, new.fence));
    end if;
    return null;
  end $$;
  create trigger sim_check after insert on public.steps for each row execute function sim.check_step();

  -- What is gone stays gone.
  create function sim.check_end() returns trigger language plpgsql as $$
  begin
    if old.state = tg_argv[0] and new.state <> tg_argv[0] then
      perform sim.violate('S7', format('%s went from %s back to %s', old.name, old.state, new.state));
    end if;
    if new.version <= old.version and new is distinct from old then
      perform sim.violate('S7', format('the version of %s did not rise', old.name));
    end if;
    return null;
  end $$;
  create trigger sim_check after update on public.machine_requests for each row execute function sim.check_end('GONE');
  create trigger sim_check after update on public.hosts for each row execute function sim.check_end('RELEASED');

  -- Looked at when a transaction commits: what others have committed by then is seen, too.
  create function sim.check_quota() returns trigger language plpgsql as $$
  declare
    held record;
  begin
    for held in
      select l.quota_name, l.maximum, l.used, count(h.id) as hosts,
        (select coalesce(sum(c.amount), 0) from public.quota_charges c where c.limit_id = l.id) as charged
      from public.quota_limits l left join public.hosts h on h.organization_id = l.organization_id and h.state <> 'RELEASED'
      where l.kind = 'HOSTS' group by l.id
    loop
      if held.hosts > held.maximum then
        perform sim.violate('I9', format('%s allows %s hosts, and there are %s', held.quota_name, held.maximum, held.hosts));
      elsif held.used <> held.charged or held.hosts <> held.charged then
        perform sim.violate('I9', format('%s counts %s hosts, of which %s are charged and %s are there', held.quota_name, held.used, held.charged, held.hosts));
      end if;
    end loop;
    return null;
  end $$;
  create constraint trigger sim_check_quota after insert or update on public.hosts deferrable initially deferred
    for each row execute function sim.check_quota();

  -- A machine moves by the table, or by two of its moves at once; it is said what a waiting one waits for; and a wipe that failed makes nothing available.
  create table sim.moves (one text, other text, primary key (one, other));
  insert into sim.moves values ${machineMoves()
    .map(([one, other]) => `('${one}', '${other}')`)
    .join(', ')};
  create function sim.check_machine() returns trigger language plpgsql as $$
  begin
    if new.state <> old.state and not exists (select 1 from sim.moves where one = old.state and other = new.state) then
      perform sim.violate('S8', format('%s went from %s to %s', old.name, old.state, new.state));
    end if;
    if (new.state in ('INSPECT_WAIT', 'CLEAN_WAIT', 'PROVISION_WAIT')) <> (new.waiting_until_at is not null) then
      perform sim.violate('S8', format('%s is %s, and its wait ends %s', new.name, new.state, new.waiting_until_at));
    end if;
    if (new.maintenance or new.hold_at is not null) <> (new.paused_at is not null) then
      perform sim.violate('S8', format('%s is paused since %s, for maintenance %s and hold %s', new.name, new.paused_at, new.maintenance, new.hold_at));
    end if;
    if old.request_id is null and new.request_id is not null and new.paused_at is not null then
      perform sim.violate('S8', format('%s was taken by an order while it is left alone', new.name));
    end if;
    return null;
  end $$;
  create trigger sim_check_machine after update on public.machines for each row when (new.static) execute function sim.check_machine();

  -- Nobody begins anything on a machine that is to be left alone.
  create function sim.check_claim() returns trigger language plpgsql as $$
  begin
    if new.fence > old.fence and new.session_id is not null and new.paused then
      perform sim.violate('S8', format('%s was claimed while it is paused', new.id));
    end if;
    return null;
  end $$;
  create trigger sim_check_claim after update on public.work_items for each row execute function sim.check_claim();

  -- A member is ordered only where there is room for it, by what is wanted at that moment.
  create function sim.check_member() returns trigger language plpgsql as $$
  declare
    wanted record;
    members integer;
  begin
    select * into wanted from public.host_sets where id = new.host_set_id;
    select count(*) into members from public.hosts where host_set_id = new.host_set_id and state not in ('RELEASING', 'RELEASED');
    if wanted is null or wanted.delete_requested_at is not null then
      perform sim.violate('H1', format('%s was ordered for a set that is being deleted, or gone', new.name));
    elsif members > wanted.replicas + wanted.max_surge then
      perform sim.violate('H1', format('%s is one of %s members, of %s and %s more', new.name, members, wanted.replicas, wanted.max_surge));
    end if;
    return null;
  end $$;
  create trigger sim_check_member after insert on public.hosts for each row when (new.host_set_id is not null) execute function sim.check_member();

  create function sim.reset() returns void language plpgsql as $$
  declare
    emptied text;
    one uuid;
  begin
    -- What nothing was written to since is empty yet, and to truncate it again would cost files.
    select string_agg(format('public.%I', relname), ', ' order by relname) into emptied
    from pg_class
    where relnamespace = 'public'::regnamespace and relkind = 'r' and pg_relation_size(oid) > 0
      and relname not in (${kept.map((name) => `'${name}'`).join(', ')}, 'providers');
    -- Ledgers refuse to be emptied, by their triggers.
    perform set_config('session_replication_role', 'replica', true);
    execute 'truncate ' || emptied || ' cascade';
    perform setval(format('%I.%I', schemaname, sequencename), 1, false) from pg_sequences where schemaname = 'public' and last_value is not null;
    perform set_config('session_replication_role', 'origin', true);
    update public.change_horizon set changes_xid = '0', changes_id = 0, events_xid = '0', events_id = 0;
    truncate sim.violations, sim.holders;
    -- Other tables refer to it: it cannot be emptied, and is written anew in the same order.
    for one in select id from sim.providers order by id loop
      update public.providers p set
        state = s.state, health = s.health, health_message = s.health_message, conditions = s.conditions, last_error = s.last_error,
        capabilities = s.capabilities, config_schema = s.config_schema, credentials_schema = s.credentials_schema, data_schema = s.data_schema,
        listing_lag_ms = s.listing_lag_ms, offerings_at = s.offerings_at, draining = s.draining
      from sim.providers s where s.id = one and p.id = s.id;
    end loop;
    truncate public.changes;
  end $$;
`

/** What the table allows in one commit: a move, or one that follows from another by itself. */
function machineMoves(): readonly (readonly [string, string])[] {
  const pairs = new Set(machineTransitions.map(({ from, to }) => `${from} ${to}`))
  pairs.add('VERIFYING INSPECTING')
  return [...pairs].map((pair) => pair.split(' ') as [string, string])
}

async function administer(server: string, statements: string): Promise<void> {
  const client = new pg.Client({ connectionString: server, options: connectionOptions })
  await client.connect()
  try {
    await client.query(statements)
  } finally {
    await client.end()
  }
}
