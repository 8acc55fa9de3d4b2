import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { monitorSocketName } from '../src/command.js'
import { isLocked } from '../src/locks.js'
import { findProcesses, signalProcess } from '../src/process-table.js'
import { defaultPrograms } from '../src/programs.js'
import { QmpClient } from '../src/qmp.js'
import { ensureGuest, type Guest } from '../testing/guest.js'
import {
  bootstrapOf,
  canRun,
  consoleShows,
  listenForCalls,
  machineFolder,
  never,
  openMachines,
  order,
  until,
} from './host.js'

// Real machines: a kernel boots in each.

const mibBytes = 1024 ** 2

if (canRun(t)) {
  const guest = await ensureGuest()
  lifecycle(guest)
  unwilling()
  accidents(guest)
  settings(guest)
  images()
}

function lifecycle(guest: Guest): void {
  void t.test('a machine is born, phones home, is switched and rebooted, and is gone', async (t) => {
    const directory = await machineFolder(t)
    const phone = await listenForCalls(t)
    const settings = { images: { guest: guest.image } }
    const machines = await openMachines(directory, settings)
    const wanted = order(1)

    const times: string[] = []
    let startedMs = performance.now()
    const took = (what: string): void => {
      times.push(`${what} ${Math.round(performance.now() - startedMs)} ms`)
      startedMs = performance.now()
    }

    t.equal(await machines.define(wanted), 'sw-1')
    t.match(await machines.observe('sw-1'), { power: 'off', ownershipKey: wanted.ownershipKey })
    await machines.prepare('sw-1', bootstrapOf('web-1', phone.url), never)
    await machines.boot('sw-1', never)
    took('started')
    await until('the phone call', async () => phone.calls.length > 0)
    took('phoned home')
    t.same(phone.calls, [
      { method: 'POST', path: '/v1/phone-home/secret-token', body: 'instance_id=sw-1&hostname=web-1&fqdn=web-1' },
    ])
    await consoleShows(directory, 'sw-1', /GUEST ready/)

    const running = await machines.observe('sw-1')
    t.match(running, { power: 'on', attributes: { status: 'running', accelerator: 'tcg' } })
    for (const file of ['machine.json', 'seed.iso', 'disk.qcow2']) {
      t.equal((await stat(join(directory, 'sw-1', file))).mode & 0o077, 0, `${file} is for the owner alone`)
    }
    t.notMatch(await readFile(join(directory, 'sw-1', 'machine.json'), 'utf8'), /secret-token/)
    t.equal((await stat(join(directory, 'sw-1'))).mode & 0o777, 0o700)

    // As after a restart of the provider: what runs is found, and nothing is made again.
    const successor = await openMachines(directory, settings)
    t.equal(await successor.findDefined(wanted.ownershipKey), 'sw-1')
    t.equal(await successor.define(wanted), 'sw-1')
    await successor.prepare('sw-1', bootstrapOf('web-1', phone.url), never)
    await successor.boot('sw-1', never)
    await successor.powerOn('sw-1', never)
    t.same(await successor.observe('sw-1'), running, 'it is the same process')
    t.same(await successor.list(), [running])

    startedMs = performance.now()
    await successor.powerOff('sw-1', never)
    took('shut down')
    t.match(await consoleShows(directory, 'sw-1', /Power down/), /GUEST power button/, 'the guest shut itself down')
    t.match(await successor.observe('sw-1'), { power: 'off', attributes: { status: 'off' } })
    t.same(await findProcesses(directory), [])
    await successor.powerOff('sw-1', never)
    await successor.boot('sw-1', never)
    t.match(await successor.list(), [{ power: 'off' }], 'what has run before is not started by a repeated create')

    startedMs = performance.now()
    await successor.powerOn('sw-1', never)
    await consoleShows(directory, 'sw-1', /GUEST boot 2 [^]*GUEST ready/)
    took('booted from its disk')
    await successor.reboot('sw-1', never)
    await consoleShows(directory, 'sw-1', /GUEST boot 3 [^]*GUEST ready/)
    took('rebooted')
    t.equal(phone.calls.length, 1, 'the same instance phones home once')
    t.equal((await findProcesses(directory)).length, 1)

    // The guest switches itself off: its machine is off, and still there.
    const monitor = await QmpClient.connect(join(directory, 'sw-1'), monitorSocketName)
    await monitor.execute('system_powerdown')
    monitor.close()
    await until('the guest to be off', async () => (await successor.observe('sw-1'))?.power === 'off')
    await successor.powerOn('sw-1', never)

    startedMs = performance.now()
    await successor.delete(wanted.ownershipKey, never)
    took('deleted')
    t.same(await findProcesses(directory), [])
    t.equal(await successor.observe('sw-1'), undefined)
    t.same(await machines.list(), [])
    await successor.delete(wanted.ownershipKey, never)
    t.pass('deleting what is gone is nothing')
    t.comment(times.join(', '))
  })
}

function unwilling(): void {
  void t.test('a machine that ignores its power button is switched off all the same', async (t) => {
    const directory = await machineFolder(t)
    const blank = join(directory, 'blank.raw')
    await writeFile(blank, '')
    await truncate(blank, mibBytes)
    const machines = await openMachines(directory, {
      images: { guest: { kind: 'disk', path: blank, format: 'raw' } },
      shutdownTimeoutMs: 300,
    })
    await machines.define(order(1))
    await machines.prepare('sw-1', bootstrapOf('web-1'), never)
    await machines.boot('sw-1', never)
    await machines.powerOff('sw-1', never)
    t.match(await machines.observe('sw-1'), { power: 'off' })

    await machines.powerOn('sw-1', never)
    const [qemu] = await findProcesses(directory)
    if (qemu === undefined) throw new Error('nothing runs')
    // Stopped, it answers nobody: only killing it helps.
    await signalProcess(qemu, 'SIGSTOP')
    t.match(await machines.observe('sw-1'), { power: 'on', attributes: { status: 'unresponsive' } })
    await machines.delete(order(1).ownershipKey, never)
    t.same(await findProcesses(directory), [])
  })
}

function accidents(guest: Guest): void {
  void t.test('accidents', async (t) => {
    const directory = await machineFolder(t)
    const machines = await openMachines(directory, { images: { guest: guest.image } })
    const make = async (number: number): Promise<string> => {
      const name = await machines.define(order(number))
      await machines.prepare(name, bootstrapOf(`web-${number}`), never)
      await machines.boot(name, never)
      return name
    }

    await t.test('a QEMU that was killed is a machine that is off', async (t) => {
      const name = await make(1)
      const [qemu] = await findProcesses(directory)
      if (qemu === undefined) throw new Error('nothing runs')
      await signalProcess(qemu, 'SIGKILL')
      await until('the end', async () => (await machines.observe(name))?.power === 'off')
      t.equal(await signalProcess(qemu, 'SIGKILL'), false)
      t.match(await machines.list(), [{ name, power: 'off' }])
      await machines.powerOn(name, never)
      t.match(await machines.observe(name), { power: 'on', attributes: { status: 'running' } })
    })

    await t.test('a pid file that names another process is not believed', async (t) => {
      const before = await machines.observe('sw-1')
      await writeFile(join(directory, 'sw-1', 'qemu.pid'), `${process.pid}\n`)
      t.same(await machines.observe('sw-1'), before)
      await rm(join(directory, 'sw-1', 'qemu.pid'))
      t.same(await machines.observe('sw-1'), before, 'nor is a missing one taken for an end')
      await machines.powerOn('sw-1', never)
      t.equal((await findProcesses(directory)).length, 1)
    })

    await t.test('a QEMU whose folder was removed is listed and deleted', async (t) => {
      await rm(join(directory, 'sw-1'), { recursive: true })
      t.match(await machines.list(), [
        { name: 'sw-1', power: 'on', ownershipKey: order(1).ownershipKey, attributes: { status: 'without a folder' } },
      ])
      await machines.delete(order(1).ownershipKey, never)
      t.same(await findProcesses(directory), [])
      t.same(await machines.list(), [])
    })

    await t.test('a deletion that broke off is seen and resumed', async (t) => {
      const name = await make(2)
      await rename(join(directory, name), join(directory, `${name}.deleting`))
      t.match(await machines.list(), [{ name, power: 'on', attributes: { status: 'deleting' } }])
      t.match(await machines.observe(name), { power: 'on' })
      await t.rejects(machines.powerOn(name, never), { code: 'CONFLICT', message: /being deleted/ })
      await t.rejects(machines.define(order(2)), { code: 'CONFLICT' })
      await machines.delete(order(2).ownershipKey, never)
      t.same(await findProcesses(directory), [])
      t.same(await machines.list(), [])
    })

    await t.test('a machine that two delete at once is gone for both', async (t) => {
      const { ownershipKey } = order(7)
      const another = await openMachines(directory, { images: { guest: guest.image } })
      for (let round = 0; round < 5; round += 1) {
        await machines.define(order(7))
        await Promise.all([machines.delete(ownershipKey, never), another.delete(ownershipKey, never)])
        t.same(await machines.list(), [])
      }
      t.equal(await isLocked(defaultPrograms, join(directory, 'sw-7.deleting', 'lock')), false)
    })

    await t.test('QEMU says why it cannot start', async (t) => {
      const broken = join(directory, 'vmlinuz')
      await writeFile(broken, 'no kernel at all')
      const others = await openMachines(directory, { images: { guest: { kind: 'kernel', kernel: broken } } })
      await others.define(order(3))
      await t.rejects(others.powerOn('sw-3', never), { code: 'INTERNAL', message: /no disk or no seed/ })
      await others.prepare('sw-3', bootstrapOf('web-3'), never)
      await t.rejects(others.boot('sw-3', never), { code: 'INTERNAL', message: /ended with code 1 and said: .*kernel/ })
      t.match(await others.observe('sw-3'), { power: 'off' })
      const without = await openMachines(
        directory,
        { images: { guest: guest.image } },
        { programs: { qemu: 'no-qemu', qemuImg: 'qemu-img', flock: 'flock' } },
      )
      await t.rejects(without.powerOn('sw-3', never), {
        code: 'UNAVAILABLE',
        message: /install it \(on Debian the package qemu-system-x86\)/,
      })
      await machines.powerOn('sw-3', never)
      t.match(await machines.observe('sw-3'), { power: 'on' }, 'and can be started once that is mended')
      await machines.delete(order(3).ownershipKey, never)
    })
  })
}

function settings(guest: Guest): void {
  void t.test('what there is room for, and ports', async (t) => {
    const directory = await machineFolder(t)
    const occupied = createServer().listen(0, '127.0.0.1')
    await once(occupied, 'listening')
    t.teardown(() => void occupied.close())
    const from = (occupied.address() as AddressInfo).port
    const network = { kind: 'user', isolated: true, sshPorts: { from, to: from + 20 } }
    const machines = await openMachines(directory, {
      images: { guest: guest.image },
      network,
      limits: { machines: 2 },
      consoleKib: 16,
    })
    await Promise.all([machines.define(order(1)), machines.define(order(2))])
    await t.rejects(machines.define(order(3)), { code: 'CAPACITY', message: /2 machines share/ })
    t.equal(await machines.define(order(1)), 'sw-1', 'what is there has its room already')
    await t.rejects(machines.define(order(4, { typeId: 'huge' })), {
      code: 'INVALID_SPEC',
      message: /the types are tiny/,
    })
    await t.rejects(machines.define(order(4, { image: 'other' })), {
      code: 'INVALID_SPEC',
      message: /the images are guest/,
    })
    await t.rejects(machines.define(order(4, { ownershipKey: 'nonsense' })), { code: 'INVALID_SPEC' })
    const ports = (await machines.list()).map((view) =>
      Number((view.attributes['ssh'] as string).replace('127.0.0.1:', '')),
    )
    t.equal(new Set(ports).size, 2)
    t.notOk(ports.includes(from), 'a port that somebody has is not given away')

    await machines.prepare('sw-1', bootstrapOf('web-1'), never)
    await machines.boot('sw-1', never)
    const socket = connect(ports[0] ?? 0, '127.0.0.1')
    await once(socket, 'connect')
    socket.destroy()

    await consoleShows(directory, 'sw-1', /GUEST started/)
    await writeFile(join(directory, 'sw-1', 'console.log'), 'x'.repeat(20_000), { flag: 'a' })
    await machines.list()
    t.ok((await stat(join(directory, 'sw-1', 'console.1.log'))).size > 20_000)
    const bounded = await consoleShows(directory, 'sw-1', /GUEST ready/)
    t.notMatch(bounded, /GUEST started|x{100}|\0/, 'what follows begins a new part')
  })
}

function images(): void {
  void t.test('disks', async (t) => {
    const directory = await machineFolder(t)
    const images = join(directory, 'Images')
    await mkdir(images)
    const base = join(images, 'base.qcow2')
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', base, '2G'])
    const leading = join(images, 'leading.qcow2')
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-b', '/etc/hostname', '-F', 'raw', leading])
    const outside = join(directory, 'outside.raw')
    await writeFile(outside, Buffer.alloc(mibBytes))
    const disk = (path: string, format: string) => ({ kind: 'disk', path, format })
    const machines = await openMachines(
      directory,
      {
        images: {
          guest: disk(base, 'qcow2'),
          leading: disk(leading, 'qcow2'),
          outside: disk(outside, 'raw'),
          wrong: disk(outside, 'qcow2'),
          missing: disk('/missing', 'raw'),
        },
        types: { tiny: { vcpus: 1, memoryMib: 64, diskGib: 1 }, small: { vcpus: 1, memoryMib: 64, diskGib: 5 } },
      },
      { imageRoot: images },
    )
    t.equal(await machines.inspect('guest', never), 2)
    await t.rejects(machines.inspect('leading', never), {
      code: 'INVALID_SPEC',
      message: /builds upon another file \(\/etc\/hostname\)/,
    })
    await t.rejects(machines.inspect('outside', never), { code: 'INVALID_SPEC', message: /SLIPWAY_QEMU_IMAGE_DIR/ })
    await t.rejects(machines.inspect('wrong', never), { code: 'INVALID_SPEC', message: /cannot be used as qcow2/ })
    await t.rejects(machines.inspect('missing', never), {
      code: 'INVALID_SPEC',
      message: /no file that the provider can read/,
    })

    await machines.define(order(1))
    await t.rejects(machines.prepare('sw-1', bootstrapOf('web-1'), never), {
      code: 'INVALID_SPEC',
      message: /needs a disk of 2 GiB/,
    })
    const before = await readFile(base)
    await machines.define(order(2, { typeId: 'small' }))
    await Promise.all([1, 2, 3].map(() => machines.prepare('sw-2', bootstrapOf('web-2'), never)))
    const made = await stat(join(directory, 'sw-2', 'disk.qcow2'))
    await machines.boot('sw-2', never)
    const info = JSON.parse(
      execFileSync('qemu-img', ['info', '-U', '--output=json', join(directory, 'sw-2', 'disk.qcow2')]).toString(),
    )
    t.match(info, { 'virtual-size': 5 * 1024 ** 3, 'backing-filename': base, 'backing-filename-format': 'qcow2' })
    await machines.prepare('sw-2', bootstrapOf('web-2'), never)
    t.equal((await stat(join(directory, 'sw-2', 'disk.qcow2'))).ino, made.ino, 'a disk is never replaced')
    t.ok(before.equals(await readFile(base)), 'the image is only read')
    await machines.delete(order(2).ownershipKey, never)
    t.ok((await stat(base)).isFile(), 'and stays')
  })
}
