import { spawn, type ChildProcess } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pingBmc } from '../../src/power/ipmi/session.js'
import { UdpPort } from '../../src/power/ipmi/udp-port.js'
import type { BmcSecret, IpmiSettings } from '../../src/power/settings.js'

/** OpenIPMI's simulator of a BMC, a peer that is not ours. It speaks cipher suite 3 and not 17. */
export interface IpmiSim {
  readonly settings: IpmiSettings
  readonly secret: BmcSecret
  readonly guid: string
  /** What the machine was told, a line each. */
  told(): Promise<readonly string[]>
  close(): Promise<void>
}

/** The machine behind it: a file for power, a file for the next boot. */
const chassis = `#!/bin/sh
d=$(dirname "$0")
what=$1
shift
[ "$what" = set ] && echo "$*" >> "$d/told"
case $what in
get)
  for name in "$@"; do
    case $name in
    power) echo "power:$(cat "$d/power" 2>/dev/null || echo 0)" ;;
    boot) echo "boot:$(cat "$d/boot" 2>/dev/null || echo none)" ;;
    *) echo "Invalid parameter $name"; exit 1 ;;
    esac
  done ;;
set)
  while [ -n "$1" ]; do
    case $1 in
    power) echo "$2" > "$d/power" ;;
    shutdown) echo 0 > "$d/power" ;;
    boot) echo "$2" > "$d/boot" ;;
    esac
    shift 2
  done ;;
*) exit 1 ;;
esac
`

const emulated = `mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr
mc_enable 0x20
`

const guid = 'aaaaaaaa-0000-4000-8000-0123456789ab'
const secret: BmcSecret = { username: 'admin', password: 's3cret-pw' }

function lanConfiguration(folder: string, port: number, sol: string | undefined): string {
  const kinds = ['callback', 'user', 'operator', 'admin']
  return `name "peer"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 ${port}
    priv_limit admin
${kinds.map((kind) => `    allowed_auths_${kind} none md2 md5 straight`).join('\n')}
    guid ${guid.replaceAll('-', '')}
  endlan
  chassis_control "${folder}/chassis.sh"
${sol === undefined ? '' : `  sol "${sol}" 115200\n`}  startnow false
  user 2 true "${secret.username}" "${secret.password}" admin 10 none md2 md5 straight
`
}

/** @param options.sol what its serial console is, as `tcp:127.0.0.1:9000`. */
export async function startIpmiSim(options: { readonly sol?: string } = {}): Promise<IpmiSim> {
  const folder = await mkdtemp(join(tmpdir(), 'slipway-ipmi-sim-'))
  const port = await freeUdpPort()
  await mkdir(join(folder, 'state'))
  await writeFile(join(folder, 'chassis.sh'), chassis, { mode: 0o700 })
  await writeFile(join(folder, 'lan.conf'), lanConfiguration(folder, port, options.sol), { mode: 0o600 })
  await writeFile(join(folder, 'bmc.emu'), emulated)
  const files = ['-c', join(folder, 'lan.conf'), '-f', join(folder, 'bmc.emu'), '-s', join(folder, 'state')]
  const child = spawn('ipmi_sim', ['-n', ...files], { stdio: 'ignore' })
  const settings: IpmiSettings = {
    kind: 'ipmi',
    address: '127.0.0.1',
    port,
    cipherSuite: 3,
    privilege: 'operator',
    timeoutMs: 2_000,
    tries: 5,
  }
  const close = async (): Promise<void> => {
    await end(child)
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await untilItAnswers(port)
  } catch (error) {
    await close()
    throw error
  }
  const told = async (): Promise<readonly string[]> =>
    (await readFile(join(folder, 'told'), 'utf8').catch(() => '')).split('\n').filter((line) => line !== '')
  return { settings, secret, guid, told, close }
}

async function untilItAnswers(port: number): Promise<void> {
  const udpPort = new UdpPort({ sockets: 1 })
  try {
    const patience = { timeoutMs: 200, tries: 60 }
    await pingBmc(udpPort, { ip: '127.0.0.1', family: 4, port }, patience, AbortSignal.timeout(30_000))
  } finally {
    await udpPort.close()
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const { port } = socket.address()
  await new Promise<void>((resolve) => socket.close(() => resolve()))
  return port
}
