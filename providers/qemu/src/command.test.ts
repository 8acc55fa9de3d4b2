import fc from 'fast-check'
import t from 'tap'
import { countFitting } from './capacity.js'
import { macAddress, qemuArguments, type LaunchPlan } from './command.js'
import { configSchema, hubHostOf, imageIdOf } from './config.js'
import { fromProgramOutput, fromSystemError } from './errors.js'
import { parseCommandLine, parseStat } from './process-table.js'

const uuid = '22222222-2222-4222-8222-222222222222'
const key = `11111111-1111-4111-8111-111111111111/${uuid}`

const plan: LaunchPlan = {
  record: {
    ...{
      version: 1,
      name: 'sw-1',
      ownershipKey: key,
      uuid,
      typeId: 'tiny',
      vcpus: 2,
      memoryMib: 256,
      diskGib: 1,
      image: 'guest',
    },
    ...{
      mac: macAddress(uuid),
      host: 'h',
      workspace: 'w',
      machineClass: 'c',
      phase: 'creating',
      createdAt: '2026-01-01T00:00:00.000Z',
    },
  },
  folder: '/var/lib/slip,way/sw-1',
  image: { kind: 'kernel', kernel: '/boot/vm,linuz', initrd: '/boot/initrd', cmdline: 'console=ttyS0 a,b' },
  network: { kind: 'user', isolated: false },
  accelerator: { kind: 'tcg', reason: 'test' },
  tcgCacheMib: 128,
}

/** The values that follow a flag. */
function valuesOf(args: readonly string[], flag: string): readonly (string | undefined)[] {
  return args.flatMap((argument, index) => (argument === flag ? [args[index + 1]] : []))
}

void t.test('the command line says what the machine has', async (t) => {
  const args = qemuArguments(plan)
  t.same(valuesOf(args, '-smp'), ['2'])
  t.same(valuesOf(args, '-m'), ['256M'])
  t.same(valuesOf(args, '-accel'), ['tcg,thread=multi,tb-size=128'])
  t.same(valuesOf(args, '-kernel'), ['/boot/vm,linuz'], 'a value of its own takes commas as they are')
  t.same(valuesOf(args, '-append'), ['console=ttyS0 a,b'])
  t.same(
    valuesOf(args, '-drive').map((drive) => drive?.match(/file=(.*),format/)?.[1]),
    ['/var/lib/slip,,way/sw-1/disk.qcow2', '/var/lib/slip,,way/sw-1/seed.iso'],
    'in a list of options commas are doubled',
  )
  t.same(valuesOf(args, '-netdev'), ['user,id=net0'])
  t.ok(args.includes('-nodefaults') && args.includes('-no-user-config'))
  t.match(valuesOf(args, '-sandbox'), [/elevateprivileges=deny,spawn=deny/])
  t.notOk(args.includes('-daemonize'))
})

void t.test('networks, accelerators and images make the difference that they should', async (t) => {
  const isolated = qemuArguments({
    ...plan,
    network: { kind: 'user', isolated: true },
    record: { ...plan.record, sshPort: 2201 },
  })
  t.same(valuesOf(isolated, '-netdev'), ['user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:2201-:22'])
  const bridged = qemuArguments({ ...plan, network: { kind: 'bridge', bridge: 'br0' } })
  t.same(valuesOf(bridged, '-netdev'), ['bridge,id=net0,br=br0'])
  t.notMatch(valuesOf(bridged, '-sandbox')[0], /spawn=deny/, 'the bridge helper has to be started')
  t.same(valuesOf(qemuArguments({ ...plan, accelerator: { kind: 'kvm' } }), '-accel'), ['kvm'])
  const disk = qemuArguments({ ...plan, image: { kind: 'disk', path: '/i.qcow2', format: 'qcow2' } })
  t.notOk(
    disk.includes('-kernel') || disk.some((argument) => argument.includes('/i.qcow2')),
    'the disk itself names its image',
  )
})

void t.test('a machine has a MAC address of its own that stays the same', async (t) => {
  t.match(macAddress(uuid), /^02(:[0-9a-f]{2}){5}$/)
  t.equal(macAddress(uuid), macAddress(uuid))
  t.not(macAddress(uuid), macAddress(uuid.replace('2', '3')))
})

void t.test('a process is known by what it was started with', async (t) => {
  const args = qemuArguments(plan)
  const identity = { folder: plan.folder, uuid, ownershipKey: key, accelerator: 'tcg' }
  t.same(parseCommandLine(['/usr/bin/qemu-system-x86_64', ...args, '']), { ...identity, isQemu: true })
  t.same(parseCommandLine(['flock', '--exclusive', '/x/lock', 'qemu-system-x86_64', ...args]), {
    ...identity,
    isQemu: false,
  })
  t.equal(parseCommandLine([]), undefined)
  t.equal(parseCommandLine(['vim', 'qemu.pid']), undefined)
  for (const missing of ['-uuid', '-pidfile', '-fw_cfg']) {
    const at = args.indexOf(missing)
    t.equal(
      parseCommandLine(['qemu', ...args.slice(0, at), ...args.slice(at + 2)]),
      undefined,
      `not without ${missing}`,
    )
  }
  t.equal(parseCommandLine(['qemu', ...args.map((argument) => argument.replace('qemu.pid', 'other.pid'))]), undefined)
})

void t.test('the start time is read whatever a process is called', async (t) => {
  const fields = (state: string) => `${state} 1 10 10 0 -1 4194304 3664 0 0 0 1 3 0 0 20 0 6 0 408866 657063936 9050`
  t.same(parseStat(`10 (qemu-system-x86) ${fields('S')}`), { startTicks: '408866', hasEnded: false })
  t.same(parseStat(`10 (a) Z 1 (b)) ${fields('R')}`), { startTicks: '408866', hasEnded: false })
  t.same(parseStat(`10 (x) ${fields('Z')}`), { startTicks: '408866', hasEnded: true })
  t.equal(parseStat(''), undefined)
})

void t.test('what fits never exceeds the budget, and one more always would', async () => {
  const amount = fc.integer({ min: 0, max: 64 })
  const need = fc.record({ vcpus: fc.integer({ min: 1, max: 8 }), memoryMib: fc.integer({ min: 1, max: 16 }) })
  const budget = fc.record({ machines: amount, memoryMib: amount, vcpus: amount })
  fc.assert(
    fc.property(budget, fc.array(need, { maxLength: 6 }), need, (budget, existing, type) => {
      const fits = (count: number): boolean => {
        const all = [...existing, ...Array.from({ length: count }, () => type)]
        const sum = (of: (one: typeof type) => number): number => all.reduce((total, one) => total + of(one), 0)
        return (
          all.length <= budget.machines &&
          sum((one) => one.memoryMib) <= budget.memoryMib &&
          sum((one) => one.vcpus) <= budget.vcpus
        )
      }
      const count = countFitting(budget, existing, type)
      return (count === 0 || fits(count)) && !fits(count + 1)
    }),
  )
})

void t.test('the configuration is checked, and has its defaults', async (t) => {
  const images = { guest: { kind: 'kernel', kernel: '/boot/vmlinuz' } }
  const config = configSchema.parse({ images })
  t.match(config, {
    network: { kind: 'user', isolated: false },
    accel: 'auto',
    limits: { machines: 64 },
    images: { guest: { cmdline: 'console=ttyS0' } },
  })
  t.ok('tiny' in config.types)
  t.equal(imageIdOf(config, {}), 'guest', 'the only image needs no naming')
  t.equal(
    imageIdOf({ images: { ...config.images, other: { kind: 'disk', path: '/x', format: 'raw' } } }, {}),
    undefined,
  )
  t.equal(hubHostOf(config), '10.0.2.2')
  t.equal(hubHostOf({ network: { kind: 'bridge', bridge: 'br0' } }), undefined)
  t.equal(hubHostOf({ network: { kind: 'bridge', bridge: 'br0' }, phoneHomeHost: '10.9.8.7' }), '10.9.8.7')
  const wrong: readonly (readonly [string, unknown])[] = [
    ['images', {}],
    ['images', { images: {} }],
    ['images.guest.kernel', { images: { guest: { kind: 'kernel', kernel: 'vmlinuz' } } }],
    ['images.guest', { images: { guest: { kind: 'disk', path: '/x', program: '/bin/sh' } } }],
    ['network.sshPorts.from', { images, network: { kind: 'user', sshPorts: { from: 3000, to: 2000 } } }],
    ['network.bridge', { images, network: { kind: 'bridge', bridge: 'br0,id=x' } }],
    ['', { images, qemu: '/bin/sh' }],
  ]
  for (const [field, value] of wrong) {
    const issues = configSchema.safeParse(value).error?.issues ?? []
    t.ok(
      issues.some((issue) => issue.path.join('.').startsWith(field)),
      `${field}: ${JSON.stringify(issues.map((issue) => issue.message))}`,
    )
  }
  t.equal(typeof configSchema['~standard'].jsonSchema.input({ target: 'draft-2020-12' })['properties'], 'object')
})

void t.test('failures are sorted by what they mean', async (t) => {
  const system = (code: string): Error => Object.assign(new Error(`${code}: no`), { code })
  t.match(fromSystemError(system('ENOSPC'), 'the disk'), {
    code: 'CAPACITY',
    message: 'the disk: ENOSPC: no',
    externalCode: 'ENOSPC',
  })
  t.match(fromSystemError(system('EACCES'), 'x'), { code: 'UNAVAILABLE' })
  t.match(fromSystemError(system('ENOTDIR'), 'x'), { code: 'INTERNAL' })
  const abort = new DOMException('stopped', 'AbortError')
  t.equal(fromSystemError(abort, 'x'), abort, 'an abort is none of them')
  t.match(fromProgramOutput('qemu', 'code 1', 'cannot set up guest memory: Cannot allocate memory'), {
    code: 'CAPACITY',
  })
  t.match(fromProgramOutput('qemu', 'code 1', 'Failed to get "write" lock'), { code: 'CONFLICT' })
  t.match(fromProgramOutput('qemu', 'SIGSEGV', ''), {
    code: 'INTERNAL',
    message: 'qemu ended with SIGSEGV and said nothing',
  })
})
