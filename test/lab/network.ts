import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { createServer, connect, type Server } from 'node:net'
import { once } from 'node:events'
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import { root, until } from '../tools/processes.js'

const run = promisify(execFile)

/** The provider's own address in the segment of its machines. */
export const providerAddress = '10.77.0.1'
const siteAddress = '10.77.0.2'

export const tapOf = (machine: number): string => `tap${machine}`
export const bmcAddressOf = (machine: number): string => `10.88.0.${machine}`

let made = 0

/** What is started in a namespace dies with the test, even where that is killed. */
function within(namespace: string): readonly string[] {
  return ['setpriv', '--pdeathsig', 'KILL', 'ip', 'netns', 'exec', namespace]
}

/** Ends every process in a namespace, and takes it away. */
async function clear(namespace: string): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'pids', namespace]).catch(() => ({ stdout: '' }))
  for (const pid of stdout.split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL')
    } catch {
      // It ended by itself meanwhile.
    }
  }
  await run('ip', ['netns', 'del', namespace]).catch(() => undefined)
}

/** What tests left that were killed. */
async function clearStale(): Promise<void> {
  const { stdout } = await run('ip', ['netns', 'list'])
  for (const [name = '', pid = ''] of stdout.matchAll(/^slipway-lab-(\d+)-\S+/gm))
    if (!existsSync(`/proc/${pid}`)) await clear(name)
}

/**
 * A datacenter's network: a namespace with a switch, on which the machines' cards and the provider are, and the addresses of their BMCs; and a second one for the site's own
 * DHCP server, which gives addresses and knows nothing of booting. Nothing of it is seen from outside.
 */
export class LabNetwork {
  readonly name: string
  readonly site: string
  readonly #t: Test
  readonly #folder: string
  readonly #children: ChildProcess[] = []

  private constructor(t: Test, folder: string) {
    this.#t = t
    this.#folder = folder
    made += 1
    this.name = `slipway-lab-${process.pid}-${made}`
    this.site = `${this.name}-s`
  }

  static async start(t: Test, folder: string, machines: number): Promise<LabNetwork> {
    await clearStale()
    const network = new LabNetwork(t, folder)
    t.teardown(() => network.#end())
    await network.#build(machines)
    await network.#startSiteDhcp()
    return network
  }

  /** What has to stand before a command so that it runs inside. The process keeps its id. */
  get inside(): readonly string[] {
    return within(this.name)
  }

  /** Runs a program inside to its end, and gives what it printed. */
  async run(program: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
    const [command = '', ...rest] = [...this.inside, program, ...args]
    const { stdout } = await run(command, rest, { env: { ...process.env, ...env } })
    return stdout
  }

  /** Starts a program inside, which ends with the network. */
  start(program: string, args: readonly string[], namespace = this.name, cwd = this.#folder): ChildProcess {
    const [command = '', ...words] = [...within(namespace), program, ...args]
    const child = spawn(command, words, { stdio: 'ignore', cwd })
    this.#children.push(child)
    return child
  }

  /** Lets those inside reach a port of the host's loopback: at `address` and `port`. It goes over a socket of the file system, as nothing else leads out. */
  async openWay(address: string, port: number, hostPort: number): Promise<void> {
    const path = join(this.#folder, `way-${address}-${port}`)
    const server: Server = createServer((incoming) => {
      const outgoing = connect(hostPort, '127.0.0.1')
      incoming.pipe(outgoing).pipe(incoming)
      incoming.on('error', () => outgoing.destroy())
      outgoing.on('error', () => incoming.destroy())
    }).listen(path)
    await once(server, 'listening')
    this.#t.teardown(() => {
      server.close()
      rmSync(path, { force: true })
    })
    this.start(process.execPath, [join(root, 'test/lab/way.mjs'), address, String(port), path])
    await until(`a way to ${port}`, async () => (await this.#listens(address, port)) || undefined)
  }

  async #listens(address: string, port: number): Promise<boolean> {
    const listening = await this.run('ss', ['-Hltn', `sport = :${port}`])
    return listening.includes(`${address}:${port}`)
  }

  async #build(machines: number): Promise<void> {
    const { name, site } = this
    await run('ip', ['netns', 'add', name])
    await run('ip', ['netns', 'add', site])
    const lines = [
      'link set lo up',
      'link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0',
      `addr add ${providerAddress}/24 dev br0`,
      'link set br0 up',
      `link add uplink type veth peer name eth0 netns ${site}`,
      'link set uplink master br0 up',
    ]
    for (let machine = 1; machine <= machines; machine += 1) {
      lines.push(`tuntap add dev ${tapOf(machine)} mode tap`, `link set ${tapOf(machine)} master br0 up`)
      lines.push(`addr add ${bmcAddressOf(machine)}/32 dev lo`)
    }
    await this.#ip(name, lines)
    await this.#ip(site, [
      'link set lo up',
      `addr add ${siteAddress}/24 dev eth0`,
      'addr add fd77::2/64 dev eth0 nodad',
      'link set eth0 up',
    ])
  }

  async #ip(namespace: string, lines: readonly string[]): Promise<void> {
    const file = join(this.#folder, `${namespace}.ip`)
    writeFileSync(file, `${lines.join('\n')}\n`)
    await run('ip', ['-n', namespace, '-batch', file])
  }

  /** Only addresses: no boot server, no boot file. */
  async #startSiteDhcp(): Promise<void> {
    const log = join(this.#folder, 'site-dhcp.log')
    // prettier-ignore
    this.start('dnsmasq', [
      '--keep-in-foreground', '--conf-file=/dev/null', '--port=0', '--interface=eth0', '--bind-interfaces', '--dhcp-authoritative', '--no-ping', '--user=root',
      '--dhcp-range=10.77.0.100,10.77.0.200,255.255.255.0,10m', `--dhcp-leasefile=${join(this.#folder, 'site-leases')}`, '--log-dhcp', `--log-facility=${log}`,
      `--pid-file=${join(this.#folder, 'site-dhcp.pid')}`, '--dhcp-option=3',
      // iPXE waits half a minute for a router of IPv6 unless there is one.
      '--enable-ra', '--dhcp-range=fd77::,ra-only',
    ], this.site)
    await until('the site’s DHCP server', async () => {
      const { stdout } = await run('ip', ['netns', 'exec', this.site, 'ss', '-Hlun', 'sport = :67'])
      return stdout.includes(':67')
    })
  }

  /** Ends every process inside, and takes the namespaces away. */
  async #end(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL')
    for (const namespace of [this.name, this.site]) await clear(namespace)
  }
}
