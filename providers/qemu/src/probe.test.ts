import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { configSchema } from './config.js'
import { isLocked, withLock } from './locks.js'
import { bootUnderKvm, chooseAccelerator } from './probe.js'
import { defaultPrograms, programVersion, runProgram, type Programs } from './programs.js'

async function folder(t: Test): Promise<string> {
  const made = await mkdtemp(join(tmpdir(), 'slipway-probe-'))
  t.teardown(() => rm(made, { recursive: true, force: true }))
  return made
}

/** Programs with a shell script in QEMU's place, which writes down each time that it is to boot something. */
async function fakeQemu(
  t: Test,
  script: string,
): Promise<{ programs: Programs; folder: string; boots: () => Promise<number> }> {
  const where = await folder(t)
  const qemu = join(where, 'qemu')
  const log = join(where, 'boots')
  await writeFile(
    qemu,
    `#!/bin/sh\n[ "$1" = --version ] && { echo "QEMU emulator version 9.9.9"; exit; }\necho "$*" >>${log}\n${script}\n`,
  )
  await chmod(qemu, 0o755)
  await writeFile(join(where, 'vmlinuz'), 'a kernel')
  const boots = async (): Promise<number> => (await readFile(log, 'utf8').catch(() => '')).split('\n').length - 1
  return { programs: { ...defaultPrograms, qemu }, folder: where, boots }
}

const boots = 'echo "[    0.000000] Linux version 6.1.0"; exec sleep 60'

void t.test('only a kernel that boots proves KVM', async (t) => {
  const good = await fakeQemu(t, boots)
  t.match(await bootUnderKvm(good.programs, join(good.folder, 'vmlinuz')), { works: true })
  t.match(await readFile(join(good.folder, 'boots'), 'utf8'), /-accel kvm .*-kernel .*vmlinuz/)
  const firmwareOnly = await fakeQemu(t, 'echo "SeaBIOS (version 1.16.2)"; exec sleep 60')
  t.match(await bootUnderKvm(firmwareOnly.programs, '/k', 200), {
    works: false,
    detail: /no sign of life within 200 ms/,
  })
  const refusing = await fakeQemu(t, 'echo "error: failed to set MSR 0x10a" >&2; exit 134')
  t.match(await bootUnderKvm(refusing.programs, '/k'), { works: false, detail: /failed to set MSR 0x10a/ })
  t.match(await bootUnderKvm({ ...defaultPrograms, qemu: join(good.folder, 'missing') }, '/k'), { works: false })
})

void t.test('the choice is made once for each boot of the host', async (t) => {
  const good = await fakeQemu(t, boots)
  const kernel = join(good.folder, 'vmlinuz')
  const config = (accel: string) => configSchema.parse({ images: { guest: { kind: 'kernel', kernel } }, accel })
  const device = join(good.folder, 'kvm')
  const choose = (accel: string) => chooseAccelerator(config(accel), good.programs, good.folder, device)
  t.match(await choose('auto'), { kind: 'tcg', reason: /there is no .*kvm/ })
  await t.rejects(choose('kvm'), { code: 'UNAVAILABLE', message: /asks for KVM, which does not work/ })
  t.equal(await good.boots(), 0)
  await writeFile(device, '')
  t.same(await choose('auto'), { kind: 'kvm' })
  t.same(await choose('kvm'), { kind: 'kvm' })
  t.equal(await good.boots(), 1)
  await writeFile(kernel, 'another kernel')
  t.same(await choose('auto'), { kind: 'kvm' })
  t.equal(await good.boots(), 2, 'what it was tried with has changed')
  t.match(await choose('tcg'), { kind: 'tcg', reason: 'the configuration asks for it' })
  t.equal(await good.boots(), 2)
})

void t.test('programs fail in words that help', async (t) => {
  const where = await folder(t)
  await t.rejects(runProgram({ ...defaultPrograms, qemuImg: join(where, 'no') }, 'qemuImg', []), {
    code: 'UNAVAILABLE',
    message: /Debian the package qemu-utils/,
  })
  await t.rejects(programVersion({ ...defaultPrograms, qemu: join(where, 'no') }, 'qemu'), {
    code: 'UNAVAILABLE',
    message: /qemu-system-x86/,
  })
  const shell = { ...defaultPrograms, qemuImg: 'sh' }
  await t.rejects(runProgram(shell, 'qemuImg', ['-c', 'echo nonsense >&2; exit 3']), {
    code: 'INTERNAL',
    message: /code 3 and said: nonsense/,
  })
  await t.rejects(runProgram(shell, 'qemuImg', ['-c', 'exec sleep 60'], { timeoutMs: 50 }), { code: 'TIMEOUT' })
  const stopping = new AbortController()
  const running = runProgram(shell, 'qemuImg', ['-c', 'exec sleep 60'], { signal: stopping.signal })
  stopping.abort(new Error('not wanted any more'))
  await t.rejects(running, { message: 'not wanted any more' })
  t.same(await runProgram(shell, 'qemuImg', ['-c', 'echo out; exit 7'], { expected: [7] }), {
    exitCode: 7,
    stdout: 'out\n',
  })
})

void t.test('a lock has one holder, and ends with it', async (t) => {
  const lock = join(await folder(t), 'lock')
  t.equal(await isLocked(defaultPrograms, lock), false)
  let inside = 0
  const enter = () =>
    withLock(defaultPrograms, lock, 10_000, async () => {
      t.equal(++inside, 1)
      t.equal(await isLocked(defaultPrograms, lock), true)
      inside--
    })
  await Promise.all([enter(), enter(), enter()])
  t.equal(await isLocked(defaultPrograms, lock), false)
  await t.rejects(
    withLock(defaultPrograms, lock, 1_000, () => Promise.reject(new Error('inside'))),
    { message: 'inside' },
  )
  await withLock(defaultPrograms, lock, 1_000, async () => {
    await t.rejects(
      withLock(defaultPrograms, lock, 50, () => Promise.resolve()),
      { code: 'CONFLICT', message: /not free within 50 ms/ },
    )
  })
  await t.rejects(
    withLock({ ...defaultPrograms, flock: '/no/flock' }, lock, 50, () => Promise.resolve()),
    { code: 'UNAVAILABLE', message: /util-linux/ },
  )
})

void t.test('a lock is free again when its holder is killed', async (t) => {
  const lock = join(await folder(t), 'lock')
  const module = fileURLToPath(new URL('./locks.js', import.meta.url))
  const script = `
    import { withLock } from ${JSON.stringify(module)}
    await withLock(${JSON.stringify(defaultPrograms)}, ${JSON.stringify(lock)}, 1000, () => new Promise(() => { console.log('in'); setInterval(() => {}, 1000) }))`
  const holder = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(holder.stdout, 'data')
  t.equal(await isLocked(defaultPrograms, lock), true)
  holder.kill('SIGKILL')
  await once(holder, 'exit')
  await withLock(defaultPrograms, lock, 10_000, () => Promise.resolve())
  t.pass('the lock was to be had')
})
