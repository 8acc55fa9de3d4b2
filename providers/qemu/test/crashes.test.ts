import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { findProcesses } from '../src/process-table.js'
import { canRun, machineFolder, never, openMachines, order } from './host.js'

// Provider processes that are killed at any moment, or that race: there is never more than one QEMU for a machine, and what was
// begun can always be finished. The machines' disks are blank; what matters is the processes.

const workerScript = fileURLToPath(new URL('./worker.js', import.meta.url))

if (canRun(t)) {
  void t.test('provider processes', async (t) => {
    t.setTimeout(200_000)
    const directory = await machineFolder(t)
    const workshop = await Workshop.make(t, directory)
    await t.test('a create that is killed at any moment goes on, and makes one machine', (t) =>
      killedCreate(t, workshop),
    )
    await t.test('a delete that is killed at any moment goes on, and leaves nothing', (t) => killedDelete(t, workshop))
    await t.test('of many that start a machine at once one does', (t) => racingStarts(t, workshop))
    await t.test('a delete wins over whoever starts the machine meanwhile', (t) => deleteAgainstStarts(t, workshop))
  })
}

interface Worker {
  readonly child: ChildProcess
  /** What it said as it failed; empty where it did not. */
  readonly ended: Promise<string>
}

class Workshop {
  readonly directory: string
  readonly settings: object
  readonly #qemu: string
  readonly #log: string

  private constructor(directory: string, folder: string) {
    this.directory = directory
    const image = { kind: 'disk', path: join(folder, 'blank.raw'), format: 'raw' }
    this.settings = {
      images: { guest: image },
      types: { tiny: { vcpus: 1, memoryMib: 32, diskGib: 1 } },
      shutdownTimeoutMs: 0,
    }
    this.#qemu = join(folder, 'qemu')
    this.#log = join(folder, 'starts')
  }

  static async make(t: Test, directory: string): Promise<Workshop> {
    const folder = await mkdtemp(join(tmpdir(), 'slipway-crashes-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const workshop = new Workshop(directory, folder)
    await writeFile(join(folder, 'blank.raw'), '')
    await truncate(join(folder, 'blank.raw'), 1024 ** 2)
    // The real QEMU, behind something that writes down each start that got the machine's lock.
    await writeFile(workshop.#qemu, `#!/bin/sh\necho start >>${workshop.#log}\nexec qemu-system-x86_64 "$@"\n`)
    await chmod(workshop.#qemu, 0o755)
    return workshop
  }

  async starts(): Promise<number> {
    return (await readFile(this.#log, 'utf8').catch(() => '')).split('\n').length - 1
  }

  async forgetStarts(): Promise<void> {
    await rm(this.#log, { force: true })
  }

  /** Starts a provider process, and returns when it is about to do its deed. */
  async begin(deed: string, number = 1): Promise<Worker> {
    const args = [workerScript, this.directory, JSON.stringify(this.settings), this.#qemu, deed, String(number)]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
    const ended = once(child, 'close').then(([code]) => (code === 0 ? '' : `code ${code}: ${said}`))
    await once(child.stdout, 'data')
    return { child, ended }
  }

  /** Runs a provider process to its end. */
  async run(deed: string, number = 1): Promise<string> {
    return (await this.begin(deed, number)).ended
  }

  /** Kills a provider process after a while, unless it has ended by then. */
  async kill({ child, ended }: Worker, afterMs: number): Promise<void> {
    await Promise.race([ended, sleep(afterMs)])
    child.kill('SIGKILL')
    await ended
  }

  async running(): Promise<number> {
    return (await findProcesses(this.directory)).filter((process) => process.isQemu).length
  }
}

const moment = fc.integer({ min: 0, max: 400 })

async function killedCreate(t: Test, workshop: Workshop): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.array(moment, { minLength: 1, maxLength: 2 }), async (moments) => {
      await workshop.forgetStarts()
      for (const afterMs of moments) {
        await workshop.kill(await workshop.begin('create'), afterMs)
        if ((await workshop.running()) > 1) throw new Error('two run')
      }
      const failure = await workshop.run('create')
      if (failure !== '') throw new Error(failure)
      const [running, starts] = [await workshop.running(), await workshop.starts()]
      if (running !== 1 || starts !== 1) throw new Error(`${running} run after ${starts} starts`)
      const machines = await openMachines(workshop.directory, workshop.settings)
      const listed = await machines.list()
      if (listed.length !== 1 || listed[0]?.power !== 'on') throw new Error(JSON.stringify(listed))
      await machines.delete(order(1).ownershipKey, never)
    }),
    { numRuns: 6 },
  )
  t.same(await findProcesses(workshop.directory), [])
}

async function killedDelete(t: Test, workshop: Workshop): Promise<void> {
  await fc.assert(
    fc.asyncProperty(fc.array(moment, { minLength: 1, maxLength: 2 }), async (moments) => {
      const created = await workshop.run('create')
      if (created !== '') throw new Error(created)
      for (const afterMs of moments) {
        await workshop.kill(await workshop.begin('delete'), afterMs / 4)
        const machines = await openMachines(workshop.directory, workshop.settings)
        const isListed = (await machines.list()).length > 0
        const isThere = (await workshop.running()) > 0
        if (isThere && !isListed) throw new Error('what runs is not listed')
      }
      const failure = await workshop.run('delete')
      if (failure !== '') throw new Error(failure)
      const left = (await readdir(workshop.directory)).filter((entry) => !entry.startsWith('.'))
      if ((await workshop.running()) > 0 || left.length > 0) throw new Error(`left: ${left.join(', ')}`)
    }),
    { numRuns: 5 },
  )
  t.same(await findProcesses(workshop.directory), [])
}

async function racingStarts(t: Test, workshop: Workshop): Promise<void> {
  await workshop.forgetStarts()
  const creating = await Promise.all(['create', 'create', 'create'].map((deed) => workshop.begin(deed)))
  t.same(await Promise.all(creating.map((worker) => worker.ended)), ['', '', ''], 'all of them have their machine')
  t.equal(await workshop.starts(), 1)
  t.equal(await workshop.running(), 1)

  const machines = await openMachines(workshop.directory, workshop.settings)
  await machines.powerOff('sw-1', never)
  await workshop.forgetStarts()
  await Promise.all([1, 2, 3, 4].map(() => machines.powerOn('sw-1', never)))
  t.equal(await workshop.running(), 1)
  await machines.delete(order(1).ownershipKey, never)
}

async function deleteAgainstStarts(t: Test, workshop: Workshop): Promise<void> {
  for (let round = 0; round < 3; round++) {
    t.equal(await workshop.run('create'), '')
    const others = await Promise.all([workshop.begin('reboot'), workshop.begin('on')])
    const ends = others.map((worker) => worker.ended)
    t.equal(await workshop.run('delete'), '')
    for (const failure of await Promise.all(ends)) {
      t.ok(failure === '' || /deleted|there is no machine|does not end|AbortError/.test(failure), failure)
    }
    t.equal(await workshop.running(), 0, 'nothing was started behind the delete')
    t.same(
      (await readdir(workshop.directory)).filter((entry) => !entry.startsWith('.')),
      [],
    )
  }
}
