import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'

/** A disk of a machine under test: a raw file of the host. */
export interface MachineDisk {
  readonly file: string
  readonly kind: 'virtio' | 'nvme'
  readonly serial: string
}

/** A machine under QEMU without acceleration, started directly with a kernel, behind QEMU's own network: the host's loopback is its 10.0.2.2. */
export class Machine {
  readonly console: string
  readonly #child: ChildProcess

  constructor(
    t: Test,
    folder: string,
    options: {
      readonly kernel: string
      readonly initrd: string
      readonly commandLine: string
      readonly disks: readonly MachineDisk[]
      readonly mac?: string
      readonly memoryMib?: number
      readonly args?: readonly string[]
    },
  ) {
    this.console = join(folder, 'console.log')
    const disks = options.disks.flatMap(({ file, kind, serial }, index) => [
      ...['-drive', `file=${file},if=none,id=d${index},format=raw,discard=unmap,cache=unsafe`],
      ...['-device', `${kind === 'nvme' ? 'nvme' : 'virtio-blk-pci'},drive=d${index},serial=${serial}`],
    ])
    this.#child = spawn(
      'qemu-system-x86_64',
      [
        ...['-machine', 'q35,usb=off', '-accel', 'tcg,thread=multi,tb-size=128', '-cpu', 'max', '-smp', '1'],
        ...['-m', String(options.memoryMib ?? 512), '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
        ...['-serial', 'stdio', '-device', 'virtio-rng-pci'],
        ...[
          '-smbios',
          'type=1,manufacturer=Slipway,product=Test,serial=TEST-1,uuid=9d5a1f4e-7c0b-4a57-9a1c-0c0ffee00001',
        ],
        ...[
          '-netdev',
          'user,id=n0',
          '-device',
          `virtio-net-pci,netdev=n0,mac=${options.mac ?? '52:54:00:12:34:56'},romfile=`,
        ],
        ...disks,
        ...['-kernel', options.kernel, '-initrd', options.initrd, '-append', options.commandLine],
        ...(options.args ?? []),
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
    const log = createWriteStream(this.console)
    this.#child.stdout?.pipe(log)
    this.#child.stderr?.pipe(log)
    t.teardown(async () => {
      await this.end()
      if (!t.passing()) t.comment(this.output().split('\n').slice(-80).join('\n'))
    })
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  output(): string {
    return readFileSync(this.console, 'utf8')
  }

  /** Takes its power away. */
  async end(): Promise<void> {
    if (!this.running) return
    const exit = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exit
  }
}
