import { randomBytes, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import pino from 'pino'
import t from 'tap'
import { withDatabase } from '../../testing/index.js'
import { HubError } from '../domain/error/errors.js'
import { makeKeyring } from '../secrets/keyring.js'
import { findWorkspaces } from '../store/hosts.js'
import { classSpecOf, findClass } from '../store/machine-classes.js'
import { Wake } from '../store/wake.js'
import { OrderLog, type CheckedOrder } from './order-log.js'

void t.test('orders that come at the same time', async (t) => {
  const { db } = await withDatabase(t)
  const wake = new Wake()
  let woken = 0
  wake.on('host', () => woken++)
  const keyring = makeKeyring([randomBytes(32)])
  const silent = pino({ level: 'silent' })
  const log = new OrderLog({ db, wake, keyring, log: silent, prepareFirstLook: () => undefined })
  await sql`insert into machine_classes (id, name) values (${randomUUID()}, 'small')`.execute(db)
  const small = await findClass(db, 'small')
  const [workspace] = await findWorkspaces(db, ['default'])
  if (workspace === undefined || small === undefined) throw new Error('there is no workspace, or no class')
  const classSpec = classSpecOf(small)
  const placement = { providers: [], families: [], locations: [], labelSelector: '' } as never

  const order = (name: string, more: { key?: string; hash?: string; className?: string; userData?: string } = {}) =>
    log.submit(checked(name, more))
  const checked = (
    name: string,
    { key, hash = name, className = 'small', userData = '' }: Parameters<typeof order>[1] = {},
  ): CheckedOrder => ({
    key:
      key === undefined
        ? undefined
        : {
            scope: 'test',
            key,
            fingerprint: keyring.digest(Buffer.from(hash)),
            isOf: (stored) => keyring.isDigestOf(stored, Buffer.from(hash)),
          },
    cause: { actor: 'test', requestId: name },
    className,
    classSpec,
    placement,
    workspace,
    estimate: null,
    findClass: async (tx) => {
      const row = await findClass(tx, className)
      if (row === undefined) throw new HubError('CLASS_NOT_FOUND', `there is no class ${className}`)
      return row
    },
    toHost: (machineClass) => ({
      workspace,
      name,
      hostname: name,
      classId: machineClass.id,
      className: machineClass.name,
      classSpec,
      shape: null,
      placement,
      providerData: {},
      userData,
      labels: { name },
      annotations: {},
      protected: false,
      priority: 0,
      createdBy: 'test',
    }),
    toEvent: (row) => ({ subject: row.name, reason: 'HostOrdered', message: 'Ordered', severity: 'INFO' }),
    toAnswer: (row) => Buffer.from(row.name),
    nameTaken: () => new HubError('NAME_TAKEN', `${name} is in use`),
  })
  const outcomesOf = async (orders: readonly Promise<Uint8Array>[]) =>
    (await Promise.allSettled(orders)).map((outcome) =>
      outcome.status === 'fulfilled'
        ? Buffer.from(outcome.value).toString()
        : outcome.reason instanceof HubError
          ? outcome.reason.reason
          : `failed: ${String(outcome.reason)}`,
    )
  const count = async (table: string, where: string) =>
    (await sql<{ n: number }>`select count(*)::int as n from ${sql.table(table)} where ${sql.raw(where)}`.execute(db))
      .rows[0]?.n

  await t.test('are all stored, due, told of, and few transactions', async (t) => {
    const before = woken
    const names = Array.from({ length: 100 }, (_, index) => `many-${index}`)
    t.strictSame(
      await outcomesOf(names.map((name) => order(name, { key: name, userData: `secret of ${name}` }))),
      names,
    )
    t.equal(await count('hosts', `name like 'many-%' and state = 'ORDERED'`), 100)
    t.equal(await count('host_schedule', 'due_at <= clock_timestamp()'), 100)
    t.equal(await count('events', `subject like 'many-%'`), 100)
    t.equal(await count('idempotency_keys', `key like 'many-%'`), 100)
    t.equal(woken - before, 1, 'one transaction')
    const sealed = await sql<{ id: string; name: string; sealed: Buffer }>`
      select h.id, h.name, s.user_data_sealed as sealed from hosts h join host_secrets s on s.host_id = h.id
    `.execute(db)
    t.equal(sealed.rows.length, 100)
    for (const row of sealed.rows) {
      t.equal(keyring.open('host.user-data', row.id, row.sealed).toString(), `secret of ${row.name}`)
      t.notOk(row.sealed.includes('secret'), 'nothing is in the clear')
    }
  })

  await t.test('are refused one by one', async (t) => {
    t.strictSame(
      await outcomesOf([
        order('one', { key: 'k1' }),
        order('one', { key: 'k2' }),
        order('many-3'),
        order('two', { className: 'huge' }),
        order('three', { key: 'many-7' }),
        order('many-8', { key: 'many-8' }),
        order('four'),
      ]),
      ['one', 'NAME_TAKEN', 'NAME_TAKEN', 'CLASS_NOT_FOUND', 'IDEMPOTENCY_KEY_REUSED', 'many-8', 'four'],
    )
    t.equal(await count('hosts', `name in ('one', 'two', 'three', 'four', 'many-3', 'many-8')`), 4)
    t.equal(await count('idempotency_keys', `key = 'k2'`), 0, 'what was refused may be tried again')
  })

  await t.test('of one key are stored once', async (t) => {
    const other = new OrderLog({ db, wake, keyring, log: silent, prepareFirstLook: () => undefined })
    const orders = Array.from({ length: 20 }, (_, index) =>
      (index % 2 === 0 ? log : other).submit(checked('same', { key: 'same' })),
    )
    t.strictSame(new Set(await outcomesOf(orders)), new Set(['same']))
    t.equal(await count('hosts', `name = 'same'`), 1)
    t.equal(await count('events', `subject = 'same'`), 1)
  })

  await t.test('of one name are stored once, by several replicas', async (t) => {
    const other = new OrderLog({ db, wake, keyring, log: silent, prepareFirstLook: () => undefined })
    const orders = Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? log : other).submit(checked('race')))
    const outcomes = await outcomesOf(orders)
    t.equal(outcomes.filter((outcome) => outcome === 'race').length, 1)
    t.equal(outcomes.filter((outcome) => outcome === 'NAME_TAKEN').length, 19)
  })

  await t.test('are stored though they cannot be placed at once, and wait for the reconciler', async (t) => {
    const looks: number[] = []
    const other = new OrderLog({
      db,
      wake,
      keyring,
      log: silent,
      prepareFirstLook: (_tx, expected) => ({
        ready: Promise.resolve(),
        look: (hosts) => {
          looks.push(hosts.length, expected.length)
          return Promise.reject(new Error('this cannot be placed'))
        },
      }),
    })
    t.equal(String(Buffer.from(await other.submit(checked('unplaced')))), 'unplaced')
    t.strictSame(looks, [1, 1])
    t.equal(await count('hosts', `name = 'unplaced' and state = 'ORDERED'`), 1)
    t.equal(await count('events', `subject = 'unplaced'`), 1)
    t.equal(
      await count('host_schedule', `due_at <= now() and host_id in (select id from hosts where name = 'unplaced')`),
      1,
    )
  })

  await t.test('and that the database will not take, fail alone', async (t) => {
    const outcomes = await outcomesOf([order('before'), order('bad\u0000name'), order('after')])
    t.match(outcomes, ['before', /^failed: /, 'after'])
  })
})
