import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises'
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'

const run = promisify(execFile)
const mib = 1024 * 1024

const unpackedByFile = new Map<string, Promise<string>>()

/** The image's files, unpacked once for a whole file of tests; what a rehearsal writes of its own lies elsewhere. */
function unpacked(initrd: string): Promise<string> {
  const known = unpackedByFile.get(initrd)
  if (known !== undefined) return known
  const folder = mkdtempSync(join(tmpdir(), 'slipway-rehearsal-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  const unpack = 'zstd -dcq "$1" | (cd "$2" && busybox cpio -idm 2>/dev/null)'
  const promise = run('sh', ['-c', unpack, '-', initrd, folder]).then(() => folder)
  unpackedByFile.set(initrd, promise)
  return promise
}

export interface RehearsalDisk {
  /** As the kernel would name it: `sda`, `nvme0n1`. */
  readonly name: string
  readonly serial: string
  readonly sizeMib: number
}

/**
 * The agent without its kernel: the programs and scripts of its image, run on this machine in a root, a process table and a mount table of their own, over disks that are loop
 * devices and a /sys that the test has written. It sees nothing else, and can switch off nobody but itself. Fast enough for the many ways in which things go wrong.
 */
export class Rehearsal {
  readonly folder: string
  readonly #t: Test
  readonly #root: string
  readonly #loops: string[] = []
  #child: ChildProcess | undefined
  #said = ''

  private constructor(t: Test, folder: string) {
    this.#t = t
    this.folder = folder
    this.#root = join(folder, 'root')
  }

  static async start(
    t: Test,
    options: { readonly initrd: string; readonly disks: readonly RehearsalDisk[]; readonly commandLine: string },
  ): Promise<Rehearsal> {
    const rehearsal = new Rehearsal(t, await mkdtemp(join(tmpdir(), 'slipway-rehearsal-')))
    t.teardown(() => rehearsal.#end())
    await mkdir(rehearsal.#root)
    await run('cp', ['-al', `${await unpacked(options.initrd)}/.`, rehearsal.#root])
    await rehearsal.#write('fake/proc/cmdline', `${options.commandLine}\n`)
    await rehearsal.#write('fake/proc/cpuinfo', 'processor\t: 0\nmodel name\t: Rehearsal "CPU"\nphysical id\t: 0\n')
    await rehearsal.#write('fake/proc/meminfo', 'MemTotal:       1048576 kB\n')
    await symlink('/proc/uptime', join(rehearsal.#root, 'fake/proc/uptime'))
    await rehearsal.#write('fake/sys/class/dmi/id/sys_vendor', 'Re"hearsal\\ Inc.\n')
    await rehearsal.#write('fake/sys/class/dmi/id/product_serial', 'R-1\n')
    await rehearsal.#write('fake/sys/class/dmi/id/product_uuid', '9D5A1F4E-7C0B-4A57-9A1C-0C0FFEE00002\n')
    await mkdir(join(rehearsal.#root, 'fake/dev'), { recursive: true })
    for (const name of ['poweroff', 'reboot']) await rehearsal.fake(name, `echo $0 >>/fake/ended; kill -9 -1`)
    for (const disk of options.disks) await rehearsal.#addDisk(disk)
    return rehearsal
  }

  /** Puts a program of the test's own before the image's. `body` is of a shell script. */
  async fake(name: string, body: string): Promise<void> {
    await this.#write(`fake/bin/${name}`, `#!/bin/sh\n${body}\n`)
    await chmod(join(this.#root, 'fake/bin', name), 0o755)
  }

  /** What a file of the fake /sys says. */
  async sys(path: string, content: string): Promise<void> {
    await this.#write(`fake/sys/${path}`, content)
  }

  /** A file below the agent's root. */
  async put(path: string, content: string): Promise<void> {
    await this.#write(path, content)
  }

  fileOf(disk: string): string {
    return join(this.folder, `${disk}.img`)
  }

  /** A file below the agent's root: what a fake program has noted. Empty: there is none. */
  async note(path: string): Promise<string> {
    return readFile(join(this.#root, path), 'utf8').catch(() => '')
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null
  }

  /** All that it said. */
  get said(): string {
    return this.#said
  }

  /** Starts the agent. */
  begin(): void {
    const script = `set -e
      mount -t proc proc "$1/proc"
      mount --bind /dev "$1/dev"
      mount -t tmpfs tmpfs "$1/run"
      exec chroot "$1" /bin/sh -c 'exec >/run/log 2>&1; tail -f /run/log >&3 & /agent/agent.sh 3>&-; sleep 1'`
    const env = {
      PATH: '/fake/bin:/usr/bin:/bin',
      TOOLS: '/fake/bin /usr/bin /bin',
      SYS: '/fake/sys',
      PROC: '/fake/proc',
      DEV: '/fake/dev',
    }
    this.#child = spawn(
      'unshare',
      ['--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', script, '-', this.#root],
      { env: { ...env, PATH: `${env.PATH}:/usr/sbin:/sbin` }, stdio: ['ignore', 'pipe', 'pipe', 'pipe'] },
    )
    const log = createWriteStream(join(this.folder, 'said.log'))
    for (const stream of [this.#child.stdout, this.#child.stderr, this.#child.stdio[3]])
      stream?.on('data', (chunk: Buffer) => {
        log.write(chunk)
        this.#said += chunk.toString()
      })
  }

  async #addDisk({ name, serial, sizeMib }: RehearsalDisk): Promise<void> {
    const file = this.fileOf(name)
    await writeFile(file, '')
    await truncate(file, sizeMib * mib)
    const loop = (await run('losetup', ['--show', '-f', file])).stdout.trim()
    this.#loops.push(loop)
    await symlink(loop, join(this.#root, 'fake/dev', name))
    const block = `block/${name}`
    // Where the kernel puts a disk tells what it is attached to.
    const place = join(this.#root, 'fake/sys/devices/pci0000:00', name.startsWith('sd') ? 'ata1/host0' : 'device', name)
    await mkdir(place, { recursive: true })
    await mkdir(join(this.#root, 'fake/sys/block'), { recursive: true })
    await symlink(relative(join(this.#root, 'fake/sys/block'), place), join(this.#root, 'fake/sys/block', name))
    await this.sys(`${block}/size`, `${(sizeMib * mib) / 512}\n`)
    await this.sys(`${block}/serial`, `${serial}\n`)
    await this.sys(`${block}/removable`, '0\n')
    await this.sys(`${block}/ro`, '0\n')
    await this.sys(`${block}/stat`, '0 0 0 0 0 0 0 0 0 0 0\n')
    await this.sys(`${block}/queue/rotational`, '0\n')
    await this.sys(`${block}/queue/logical_block_size`, '512\n')
    await this.sys(`${block}/queue/discard_max_bytes`, '0\n')
  }

  async #write(path: string, content: string): Promise<void> {
    const file = join(this.#root, path)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, content)
  }

  async #end(): Promise<void> {
    if (this.running) {
      const exit = once(this.#child ?? process, 'exit')
      this.#child?.kill('SIGKILL')
      await exit
    }
    if (!this.#t.passing()) this.#t.comment(this.#said.split('\n').slice(-60).join('\n'))
    // The kernel may hold a loop device for a moment after its last reader is gone; it goes by itself then.
    for (const loop of this.#loops) await run('losetup', ['-d', loop]).catch(() => undefined)
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}
