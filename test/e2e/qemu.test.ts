import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { ensureGuest, missingPackages } from '@slipway/provider-qemu/testing'
import t from 'tap'
import { Slipway, until } from '../tools/processes.js'

// A real machine: ordered through the command line, booted by QEMU, phoned home by itself, power-cycled, released, and gone from the process table; with the provider
// killed once while it creates and once while it deletes.

const qemu = 'providers/qemu/dist/src/main.js'

/** QEMU processes whose command line names something in `folder`. */
function qemuProcesses(folder: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
        return /qemu-system/.test(line.split('\0')[0] ?? '') && line.includes(folder) ? [Number(pid)] : []
      } catch {
        // It ended while we looked.
        return []
      }
    })
}

const missing = missingPackages()
const skip = missing.length > 0 && process.env['CI'] !== 'true' ? `needs the packages ${missing.join(' ')}` : false

void t.test('a real machine under QEMU', { timeout: 540_000, skip }, async (t) => {
  const guest = await ensureGuest()
  const slipway = await Slipway.start(t)
  const machines = join(slipway.folder, 'machines')
  const everSeen = new Set<number>()
  let most = 0
  const watch = setInterval(() => {
    const now = qemuProcesses(machines)
    for (const pid of now) everSeen.add(pid)
    most = Math.max(most, now.length)
  }, 100)
  t.teardown(() => {
    clearInterval(watch)
    for (const pid of qemuProcesses(machines)) spawnSync('kill', ['-9', String(pid)])
  })
  await slipway.addProvider('here', 'qemu', 'dynamic', {
    config: {
      directory: machines,
      accel: 'tcg',
      images: { tiny: guest.image },
    },
  })
  const provider = await slipway.startProvider('here', qemu, [], {
    env: { SLIPWAY_FAILPOINTS: 'sdk.effect.after=kill' },
  })
  await slipway.apply({
    kind: 'MachineClass',
    name: 'tiny',
    shape: { vcpus: 1, memoryMib: 256 },
    offerings: [{ family: 'qemu', typeId: 'tiny', providerData: { image: 'tiny' } }],
    bootstrap: { phoneHome: true },
  })

  await slipway.ok('host', 'order', 'real-1', '--class', 'tiny', '--no-wait')
  t.equal(await provider.ended(120_000), 'SIGKILL', 'the provider was killed between the effect and its record')
  provider.start({ SLIPWAY_FAILPOINTS: '' })
  await slipway.ok('wait', 'host/real-1', '--for', 'ready', '--timeout', '180s')
  t.match(await slipway.json('get', 'host', 'real-1'), { state: 'HOST_STATE_READY', phoneHomeTime: /.+/ })
  t.equal(qemuProcesses(machines).length, 1, 'one machine runs')

  const { machine } = await slipway.json<{ machine: string }>('get', 'host', 'real-1')
  await slipway.ok('machine', 'power', machine, 'off', '--wait', '--timeout', '120s')
  t.equal(qemuProcesses(machines).length, 0, 'switched off, it has no process')
  await slipway.ok('machine', 'power', machine, 'on', '--wait', '--timeout', '120s')
  t.equal(qemuProcesses(machines).length, 1, 'switched on, it has one again')
  await slipway.ok('machine', 'power', machine, 'reboot', '--wait', '--timeout', '120s')

  await provider.end('SIGTERM')
  t.equal(qemuProcesses(machines).length, 1, 'machines outlive their provider')
  provider.start({ SLIPWAY_FAILPOINTS: 'sdk.delete.after=kill' })
  await slipway.ok('host', 'release', 'real-1', '--yes')
  t.equal(await provider.ended(120_000), 'SIGKILL', 'the provider was killed while it deleted')
  provider.start({ SLIPWAY_FAILPOINTS: '' })
  await slipway.ok('wait', 'host/real-1', '--for', 'released', '--timeout', '120s')
  await until('the machine to leave the process table', () => qemuProcesses(machines).length === 0)
  t.strictSame(await slipway.json('get', 'machinerequests'), [])
  t.equal(most, 1, 'never were there two machines')
  t.ok(everSeen.size >= 1 && everSeen.size <= 3, `the machine ran in ${everSeen.size} processes, one after another`)
})
