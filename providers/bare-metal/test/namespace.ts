import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Test } from 'tap'

/** What a segment in a namespace needs. */
export const neededPackages = ['dnsmasq-base', 'iproute2', 'busybox-static', 'ipxe', 'curl'] as const

const probes: Readonly<Record<(typeof neededPackages)[number], readonly string[]>> = {
  'dnsmasq-base': ['dnsmasq', '--version'],
  iproute2: ['ip', '-V'],
  'busybox-static': ['busybox', 'true'],
  ipxe: ['test', '-e', '/usr/lib/ipxe/undionly.kpxe'],
  curl: ['curl', '--version'],
}

/** Why namespaces cannot be made here; undefined: they can. */
export function unsupported(): string | undefined {
  const missing = neededPackages.filter((name) => {
    const [command = '', ...args] = probes[name]
    return spawnSync(command, args).status !== 0
  })
  if (missing.length > 0) return `needs the packages ${missing.join(', ')}`
  return spawnSync('ip', ['netns', 'list']).status === 0 && process.getuid?.() === 0
    ? undefined
    : 'needs root, for network namespaces'
}

/** Three namespaces at one bridge: the provider's host at 10.77.0.1/24, the host of the site's own DHCP server at 10.77.0.3, and a machine. */
export class Segment {
  readonly servers: string
  readonly site: string
  readonly client: string
  readonly #children = new Set<ChildProcess>()

  constructor(test: Test) {
    const id = randomBytes(3).toString('hex')
    this.servers = `slw-${id}-s`
    this.site = `slw-${id}-d`
    this.client = `slw-${id}-c`
    test.teardown(() => this.close())
    for (const name of [this.servers, this.site, this.client]) {
      ip('netns', 'add', name)
      ip('-n', name, 'link', 'set', 'lo', 'up')
    }
    ip(
      '-n',
      this.servers,
      'link',
      'add',
      'br0',
      'type',
      'bridge',
      'stp_state',
      '0',
      'forward_delay',
      '0',
      'mcast_snooping',
      '0',
    )
    ip('-n', this.servers, 'addr', 'add', '10.77.0.1/24', 'dev', 'br0')
    ip('-n', this.servers, 'link', 'set', 'br0', 'up')
    for (const [port, name] of [
      ['port-d', this.site],
      ['port-c', this.client],
    ] as const) {
      ip('link', 'add', port, 'netns', this.servers, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
      ip('-n', this.servers, 'link', 'set', port, 'master', 'br0', 'up')
      ip('-n', name, 'link', 'set', 'eth0', 'up')
    }
    ip('-n', this.site, 'addr', 'add', '10.77.0.3/24', 'dev', 'eth0')
    ip('-n', this.client, 'route', 'add', 'default', 'dev', 'eth0')
  }

  /** The MAC of the machine's card. */
  get mac(): string {
    const shown = JSON.parse(ip('-n', this.client, '-j', 'link', 'show', 'eth0')) as { address: string }[]
    return shown[0]?.address ?? ''
  }

  /** Starts a program in one of the namespaces. */
  start(
    namespace: string,
    command: string,
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', namespace, command, ...args], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#children.add(child)
    return child
  }

  /** Runs a program in one of the namespaces to its end. */
  async run(
    namespace: string,
    command: string,
    args: readonly string[],
  ): Promise<{ readonly status: number | null; readonly output: string }> {
    const child = this.start(namespace, command, args)
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => (output += text))
    const [status] = (await once(child, 'close')) as [number | null]
    this.#children.delete(child)
    return { status, output }
  }

  async close(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const ended = once(child, 'close')
      child.kill('SIGKILL')
      await ended
    }
    for (const name of [this.client, this.site, this.servers]) spawnSync('ip', ['netns', 'del', name])
  }
}

function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8' })
}
