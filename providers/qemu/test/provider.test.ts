import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ProviderError, type MachineSpec, type OwnedMachine, type PowerWish, type WorkContext } from '@slipway/sdk'
import { pino } from 'pino'
import t from 'tap'
import { configSchema, type Config, type Data } from '../src/config.js'
import { findProcesses } from '../src/process-table.js'
import { defaultPrograms } from '../src/programs.js'
import { qemuDefinition } from '../src/provider.js'
import { bootstrapOf, canRun, hubId, machineFolder, never, order } from './host.js'

// The provider's functions, as the runtime calls them.

type Work = WorkContext<Config, Record<string, never>>

/** A context that keeps no steps, and writes down what was done. */
function contextOf(config: Config, done: string[] = []): Work {
  return {
    ...{
      config,
      credentials: {},
      provider: 'providers/test',
      hubId,
      signal: never,
      log: pino({ level: 'silent' }),
      attempt: 1,
      last: {},
    },
    budget: () => Promise.resolve(),
    event: () => undefined,
    calledBack: () => undefined,
    wait: () => Promise.reject(new Error('nothing here is waited for')),
    progress: () => undefined,
    step: async (name, work) => {
      done.push(name)
      if (typeof work === 'function') return work(never)
      return (await work.find(never)) ?? work.run(never)
    },
    report: async (observed) => void done.push(`report ${observed.externalId}`),
    poll: () => Promise.reject(new Error('nothing here is polled for')),
  }
}

function spec(changes: Partial<MachineSpec<Data>> = {}): MachineSpec<Data> {
  const { name, ownershipKey, typeId, host } = order(1)
  return {
    name,
    ownershipKey,
    typeId,
    location: '',
    shape: { vcpus: 1, memoryMib: 32, diskGib: 1 },
    data: {},
    bootstrap: bootstrapOf('web-1'),
    host,
    ...changes,
  }
}

if (canRun(t)) {
  void t.test('the provider', async (t) => {
    const directory = await machineFolder(t)
    const blank = join(directory, 'blank.raw')
    await writeFile(blank, '')
    await truncate(blank, 1024 ** 2)
    const settings = {
      ...{ directory, accel: 'tcg', shutdownTimeoutMs: 0, limits: { machines: 3, memoryMib: 128 } },
      ...{
        images: {
          blank: { kind: 'disk', path: blank, format: 'raw' },
          gone: { kind: 'disk', path: '/gone', format: 'raw' },
        },
        defaultImage: 'blank',
      },
      ...{ types: { tiny: { vcpus: 1, memoryMib: 32, diskGib: 1 }, huge: { vcpus: 1, memoryMib: 4096, diskGib: 1 } } },
    }
    const configure = (changes: object = {}): Config => configSchema.parse({ ...settings, ...changes })
    const config = configure()
    const definition = qemuDefinition({ defaultDirectory: '/nowhere/at/all' })
    const check = async (context: Work, of = definition): Promise<void> => of.check?.(context)
    const validate = async (under: Config, changes: Partial<MachineSpec<Data>>) =>
      (await definition.validate?.(contextOf(under), spec(changes))) ?? []
    const offerings = async () => definition.offerings?.(contextOf(config))
    const power = async (wish: PowerWish): Promise<void> => definition.power?.(contextOf(config), 'sw-1', wish)

    await t.test('checks its host', async (t) => {
      await check(contextOf(config))
      await t.rejects(check(contextOf(configure({ defaultImage: 'none' }))), {
        code: 'INVALID_SPEC',
        message: /none of images: blank, gone/,
      })
      await t.rejects(check(contextOf(configure({ network: { kind: 'bridge', bridge: 'no-such-bridge' } }))), {
        code: 'UNAVAILABLE',
        message: /bridge.conf/,
      })
      await t.rejects(check(contextOf(configure({ directory: join(blank, 'machines') }))), ProviderError)
      const without = qemuDefinition({
        defaultDirectory: directory,
        programs: { ...defaultPrograms, qemu: 'no-such-qemu' },
      })
      await t.rejects(check(contextOf(config), without), {
        code: 'UNAVAILABLE',
        message: /install it \(on Debian the package qemu-system-x86\)/,
      })
    })

    await t.test('finds what is wrong with an order', async (t) => {
      const fieldsOf = async (changes: Partial<MachineSpec<Data>>, under = config) =>
        (await validate(under, changes)).map((violation) => violation.field)
      t.same(await fieldsOf({}), [])
      t.same(await fieldsOf({ typeId: 'none' }), ['spec.type_id'])
      t.same(await fieldsOf({ typeId: 'huge' }), ['spec.type_id'])
      t.same(await fieldsOf({ location: 'fra1' }), ['spec.location'])
      t.same(await fieldsOf({ shape: { ...spec().shape, architecture: 'arm64' } }), ['spec.shape.architecture'])
      t.same(await fieldsOf({ data: { image: 'gone' } }), ['spec.provider_data.image'])
      t.same(await fieldsOf({ data: { image: '/etc/shadow' } }), ['spec.provider_data.image'])
      t.same(await fieldsOf({ typeId: 'none', location: 'x', data: { image: 'none' } }), [
        'spec.type_id',
        'spec.location',
        'spec.provider_data.image',
      ])
      const { defaultImage: _default, ...rest } = settings
      t.same(
        await fieldsOf({}, configSchema.parse(rest)),
        ['spec.provider_data.image'],
        'of two images one has to be named',
      )
      const isolated = configure({ network: { kind: 'user', isolated: true } })
      t.same(await fieldsOf({ bootstrap: bootstrapOf('web-1', 'http://127.0.0.1/phone') }, isolated), [
        'spec.bootstrap.phone_home_url',
      ])
      t.same(await fieldsOf({}, isolated), [])
    })

    await t.test('makes, switches, lists and deletes', async (t) => {
      const listAll = async (): Promise<OwnedMachine[]> => {
        const all: OwnedMachine[] = []
        for await (const machine of definition.list(contextOf(config))) all.push(machine)
        return all
      }
      t.match(await offerings(), [
        {
          typeId: 'tiny',
          shape: { vcpus: 1, memoryMib: 32, diskGib: 1, architecture: 'amd64' },
          available: true,
          remaining: 3,
        },
        { typeId: 'huge', available: false, remaining: 0 },
      ])
      const done: string[] = []
      t.match(await definition.create(contextOf(config, done), spec()), {
        externalId: 'sw-1',
        power: 'on',
        attributes: { status: 'running', image: 'blank' },
      })
      t.same(done, ['define', 'report sw-1', 'prepare', 'boot'], 'the id is told before anything is waited for')
      t.match(await definition.create(contextOf(config), spec()), { externalId: 'sw-1', power: 'on' })
      t.equal((await findProcesses(directory)).length, 1)
      t.match(await offerings(), [{ remaining: 2 }, { available: false }])
      t.match(await listAll(), [{ externalId: 'sw-1', name: 'sw-1', ownershipKey: spec().ownershipKey, power: 'on' }])

      await power('off')
      t.match(await definition.observe(contextOf(config), 'sw-1'), { power: 'off' })
      await power('on')
      const [before] = await findProcesses(directory)
      await power('reboot')
      const [after] = await findProcesses(directory)
      t.not(after?.pid, before?.pid)
      t.match(await definition.observe(contextOf(config), 'sw-1'), { power: 'on' })

      await definition.delete(contextOf(config), { ownershipKey: spec().ownershipKey, name: 'sw-1' })
      t.same(await findProcesses(directory), [])
      t.same(await listAll(), [])
      t.equal(await definition.observe(contextOf(config), 'sw-1'), undefined)
      t.equal(await definition.observe(contextOf(config), '../../etc'), undefined)
      await definition.delete(contextOf(config), { ownershipKey: spec().ownershipKey, name: 'sw-1' })
    })
  })
}
