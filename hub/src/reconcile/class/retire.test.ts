import { sql } from 'kysely'
import t from 'tap'
import { Rig } from '../../../testing/reconcile-rig.js'
import { inTransaction, type Tx } from '../../store/database.js'
import { ensureClassForShape, insertClass, nameForShape } from '../../store/machine-classes.js'
import { retireClasses } from './retire.js'

const dayMs = 86_400_000
const shape = { vcpus: 2, memoryMib: 4096, diskGib: 0, diskClass: '', architecture: '' }
const content = {
  ...{ displayName: '', labels: {}, annotations: {} },
  spec: {
    ...{ shape, offerings: [], machineSelector: null },
    bootstrap: { phoneHome: false, phoneHomeTimeoutMs: 1_000, provisionTimeoutMs: 1_000, userData: '' },
  },
}

void t.test('classes that were made for shapes go when nothing has used them for a time', async (t) => {
  const rig = await Rig.start(t)
  const write = <T>(work: (tx: Tx) => Promise<T>) => inTransaction(rig.db, work)
  for (const name of ['auto-unused', 'auto-used', 'auto-lately', 'auto-long-ago', 'auto-new'])
    await write((tx) => ensureClassForShape(tx, name, content))
  await write((tx) => insertClass(tx, 'made-by-hand', content))
  await sql`update machine_classes set created_at = now() - interval '9 days' where name <> 'auto-new'`.execute(rig.db)
  for (const [host, name, released] of [
    ['a', 'auto-used', null],
    ['b', 'auto-lately', 1],
    ['c', 'auto-long-ago', 8],
  ] as const) {
    const id = await rig.order(host)
    await sql`
      update hosts set class_id = (select id from machine_classes where name = ${name}), class_name = ${name},
        state = ${released === null ? 'ORDERED' : 'RELEASED'}, released_at = now() - ${released ?? 0} * interval '1 day'
      where id = ${id}::uuid
    `.execute(rig.db)
  }
  const left = async () => {
    const rows = await rig.db
      .selectFrom('machine_classes')
      .select('name')
      .where('deleted_at', 'is', null)
      .where('name', 'not like', 'class-%')
      .orderBy('name')
      .execute()
    return rows.map((row) => row.name)
  }
  t.equal(await retireClasses({ write }, 7 * dayMs), 2)
  t.strictSame(await left(), ['auto-lately', 'auto-new', 'auto-used', 'made-by-hand'])
  t.strictSame(await rig.reasons('machineClasses/auto-unused'), ['ClassDeleted'])
  t.equal(await retireClasses({ write }, 7 * dayMs), 0, 'and only once')
  const again = await write((tx) => ensureClassForShape(tx, 'auto-unused', content))
  t.match(again, { name: 'auto-unused', auto_created: true, deleted_at: null }, 'it is made again when it is needed')

  await sql`update machine_classes set created_at = now() - interval '9 days' where name = 'auto-unused'`.execute(
    rig.db,
  )
  const order = await rig.order('d')
  await inTransaction(rig.db, async (tx) => {
    await sql`update hosts set class_id = (select id from machine_classes where name = 'auto-unused' and deleted_at is null) where id = ${order}::uuid`.execute(
      tx,
    )
    t.equal(await retireClasses({ write }, 7 * dayMs), 0, 'one that is just being ordered is passed over')
  })
  t.ok((await left()).includes('auto-unused'))
})

void t.test('every shape has a name of its own', (t) => {
  const shapes = [1, 2].flatMap((vcpus) =>
    ['', 'ssd', 'SSD', 'a-b', 'a.b', 'amd64'].flatMap((diskClass) =>
      ['', 'amd64', 'arm64', 'ssd', 'a-b'].map((architecture) => ({ ...shape, vcpus, diskClass, architecture })),
    ),
  )
  const names = shapes.map(nameForShape)
  t.equal(new Set(names).size, names.length)
  t.ok(names.every((name) => /^auto-[a-z0-9]([a-z0-9-]{0,56}[a-z0-9])?$/.test(name)))
  t.equal(nameForShape({ ...shape, diskClass: 'ssd', architecture: 'amd64' }), 'auto-2c-4096m-0g-ssd-amd64')
  t.end()
})
