import * as files from 'node:fs/promises'
import { mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { MachineStore, type FileOperations, type MachineRecord } from './store.js'

const uuid = '22222222-2222-4222-8222-222222222222'

function record(name: string, key = `11111111-1111-4111-8111-111111111111/${uuid}`): MachineRecord {
  return {
    ...{
      version: 1,
      name,
      ownershipKey: key,
      uuid,
      typeId: 'tiny',
      vcpus: 1,
      memoryMib: 256,
      diskGib: 1,
      image: 'guest',
    },
    ...{
      mac: '02:00:00:00:00:01',
      host: 'h',
      workspace: 'w',
      machineClass: 'c',
      phase: 'creating',
      createdAt: '2026-01-01T00:00:00.000Z',
    },
  }
}

async function folder(t: Test): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'slipway-store-'))
  t.teardown(() => rm(made, { recursive: true, force: true }))
  return made
}

class Crash extends Error {}

/** File operations of a process that is killed before its n-th one, and does nothing more. Also counts them. */
function mortal(callsLeft: number): { files: FileOperations; calls: () => number } {
  let calls = 0
  const guard = <Value extends object>(target: Value, counted: (name: string) => boolean): Value =>
    new Proxy(target, {
      get(of, name) {
        const value: unknown = Reflect.get(of, name)
        if (typeof value !== 'function') return value
        return async (...args: unknown[]) => {
          if (counted(String(name)) && ++calls > callsLeft) throw new Crash('killed')
          const result: unknown = await Reflect.apply(value, of, args)
          return name === 'open' ? guard(result as object, (method) => method !== 'close') : result
        }
      },
    })
  return { files: guard({ ...files }, () => true), calls: () => calls }
}

/** Runs something as a process that is killed at its n-th file operation. @returns whether it got through. */
async function upToCrash(
  directory: string,
  callsLeft: number,
  run: (store: MachineStore) => Promise<unknown>,
): Promise<boolean> {
  try {
    await run(await MachineStore.open(directory, mortal(callsLeft).files))
    return true
  } catch (error) {
    if (error instanceof Crash) return false
    throw error
  }
}

async function destroy(store: MachineStore, key: string): Promise<void> {
  const machine = await store.findByKey(key)
  if (machine !== undefined) await store.remove(await store.beginDelete(machine))
}

void t.test('a machine comes, is marked and goes', async (t) => {
  const directory = join(await folder(t), 'deep', 'machines')
  const store = await MachineStore.open(directory)
  t.equal((await stat(directory)).mode & 0o777, 0o700)
  const machine = await store.define(record('m1'))
  t.same(machine, {
    record: record('m1'),
    folder: join(store.directory, 'm1'),
    homeFolder: join(store.directory, 'm1'),
    deleting: false,
  })
  t.equal((await stat(machine.folder)).mode & 0o777, 0o700)
  t.equal((await stat(join(machine.folder, 'machine.json'))).mode & 0o777, 0o600)
  t.same(await store.define({ ...record('m1'), createdAt: 'later' }), machine, 'the record of the first try stays')
  await store.markReady(machine)
  t.equal((await store.find('m1'))?.record.phase, 'ready')
  const going = await store.beginDelete(machine)
  t.match(await store.list(), [
    { deleting: true, folder: join(store.directory, 'm1.deleting'), homeFolder: join(store.directory, 'm1') },
  ])
  await t.rejects(store.define(record('m1')), { code: 'CONFLICT', message: /being deleted/ })
  await t.rejects(store.markReady(machine), { code: 'CONFLICT', message: /deleted meanwhile/ })
  await store.remove(going)
  await store.remove(going)
  t.same(await store.list(), [])
  t.equal(await store.find('m1'), undefined)
})

void t.test('names are machine names, and never paths', async (t) => {
  const store = await MachineStore.open(await folder(t))
  for (const name of ['..', '../x', 'a/b', '.new-x', 'm1.deleting', '', 'A', 'x'.repeat(64)]) {
    t.equal(await store.find(name), undefined, name)
    await t.rejects(store.define(record(name)), { code: 'INVALID_SPEC' }, name)
  }
  t.same(await readdir(store.directory), [])
})

void t.test('a name has one owner', async (t) => {
  const directory = await folder(t)
  const stores = await Promise.all([MachineStore.open(directory), MachineStore.open(directory)])
  const outcomes = await Promise.allSettled(
    stores.map((store, index) => store.define(record('m1', `hub-${index}/request`))),
  )
  t.same(outcomes.map((outcome) => outcome.status).sort(), ['fulfilled', 'rejected'])
  t.match(
    outcomes.find((outcome) => outcome.status === 'rejected'),
    { reason: { code: 'CONFLICT', message: /taken by a machine of the ownership key/ } },
  )
  const same = await Promise.all([...stores, ...stores].map((store) => store.define(record('m2', 'hub/other'))))
  t.equal(new Set(same.map((machine) => machine.record.name)).size, 1)
  t.equal((await stores[0].list()).length, 2)
  t.same((await readdir(directory)).sort(), ['m1', 'm2'])
})

void t.test('a record that cannot be read fails the listing: a machine is never just left out', async (t) => {
  const store = await MachineStore.open(await folder(t))
  const machine = await store.define(record('m1'))
  await store.define(record('m2', 'hub/other'))
  await writeFile(join(machine.folder, 'machine.json'), '{"version":1,')
  await t.rejects(store.list(), { code: 'INTERNAL', message: /m1\/machine\.json is damaged/ })
  await writeFile(join(machine.folder, 'machine.json'), JSON.stringify(record('m3')))
  await t.rejects(store.find('m1'), { code: 'INTERNAL' }, 'a record of another name is none either')
})

void t.test('a machine that is deleted while it is looked for is seen or gone, and never an error', async (t) => {
  const directory = await folder(t)
  const [one, other] = [await MachineStore.open(directory), await MachineStore.open(directory)]
  for (let round = 0; round < 30; round++) {
    const machine = await one.define(record('m1'))
    const looks = Promise.all(Array.from({ length: 10 }, () => other.list()))
    await one.remove(await one.beginDelete(machine))
    for (const seen of await looks) t.ok(seen.length <= 1)
  }
})

void t.test('killed at any file operation, creating goes on', async (t) => {
  for (let callsLeft = 0, through = false; !through; callsLeft++) {
    const directory = await folder(t)
    through = await upToCrash(directory, callsLeft, async (store) => store.markReady(await store.define(record('m1'))))
    const store = await MachineStore.open(directory)
    const found = await store.list()
    t.ok(found.length <= 1, `killed before operation ${callsLeft + 1}: ${found.length} machines`)
    const machine = await store.define(record('m1'))
    await store.markReady(machine)
    t.match(await store.list(), [{ record: { name: 'm1', phase: 'ready' }, deleting: false }])
    t.ok(through || callsLeft < 100)
  }
})

void t.test('killed at any file operation, deleting goes on, and is listed until all is gone', async (t) => {
  for (let callsLeft = 0, through = false; !through; callsLeft++) {
    const directory = await folder(t)
    const machine = await (await MachineStore.open(directory)).define(record('m1'))
    for (const file of ['disk.qcow2', 'seed.iso', 'console.log']) await writeFile(join(machine.folder, file), file)
    through = await upToCrash(directory, callsLeft, (store) => destroy(store, machine.record.ownershipKey))
    const left = await readdir(directory)
    const leftInside = await Promise.all(left.map((entry) => readdir(join(directory, entry))))
    const store = await MachineStore.open(directory)
    t.equal(
      (await store.list()).length,
      leftInside.flat().length > 0 ? 1 : 0,
      `killed before operation ${callsLeft + 1}`,
    )
    await destroy(store, machine.record.ownershipKey)
    t.same(await store.list(), [])
    t.same(await readdir(directory), [])
  }
})

void t.test('over any sequence of deeds and kills the store is what was asked of it', async () => {
  const deed = fc.record({
    name: fc.constantFrom('m1', 'm2'),
    what: fc.constantFrom('create' as const, 'delete' as const),
    callsLeft: fc.oneof(fc.constant(1_000), fc.integer({ min: 0, max: 45 })),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(deed, { minLength: 1, maxLength: 8 }), async (deeds) => {
      const directory = await mkdtemp(join(tmpdir(), 'slipway-store-'))
      try {
        // What is sure to be there, sure not to be, or (undefined) depends on where the process was killed.
        const sure = new Map<string, boolean | undefined>([
          ['m1', false],
          ['m2', false],
        ])
        for (const { name, what, callsLeft } of deeds) {
          const key = `hub/${name}`
          const before = sure.get(name)
          const through = await upToCrash(directory, callsLeft, async (store) => {
            if (what === 'delete') return destroy(store, key)
            // What was on its way out goes first, as the hub has it.
            if ((await store.find(name))?.deleting === true) await destroy(store, key)
            await store.define(record(name, key))
          })
          const after = what === 'create'
          sure.set(name, through || before === after ? after : undefined)
          const listed = (await (await MachineStore.open(directory)).list()).map((machine) => machine.record.name)
          for (const [machine, isThere] of sure) {
            if (isThere !== undefined && listed.includes(machine) !== isThere)
              throw new Error(`${machine} is ${isThere ? 'lost' : 'still there'}`)
          }
        }
      } finally {
        await rm(directory, { recursive: true, force: true })
      }
    }),
    { numRuns: 60 },
  )
})

void t.test("what a killed process began is cleared away once it is surely nobody's", async (t) => {
  const directory = await folder(t)
  const store = await MachineStore.open(directory)
  t.equal(await upToCrash(directory, 7, (mortalStore) => mortalStore.define(record('m1'))), false)
  const [draft = ''] = await readdir(directory)
  t.match(draft, /^\.new-/)
  await MachineStore.open(directory)
  t.same(await readdir(directory), [draft], 'it may be at work still')
  const longAgo = new Date(Date.now() - 2 * 3_600_000)
  await utimes(join(directory, draft), longAgo, longAgo)
  await MachineStore.open(directory)
  t.same(await readdir(directory), [])
  t.same(await store.list(), [])
})
