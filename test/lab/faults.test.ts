import t from 'tap'
import { until } from '../tools/processes.js'
import { Lab, type MachineJson } from './lab.js'
import { whySkipped } from './places.js'

// What a datacenter does to those who trust it: controllers that refuse, that say nothing, that lie; and two orders for one machine.

const minutes = 60_000

t.setTimeout(40 * minutes)

void t.test(
  'controllers at odds, and two hosts for one machine',
  { skip: whySkipped(), timeout: 40 * minutes },
  async (t) => {
    const lab = await Lab.start(t, [
      { firmware: 'bios', disk: 'nvme' },
      { firmware: 'bios', disk: 'virtio' },
    ])
    const { slipway } = lab
    const [bmc, other] = lab.bmcs
    const [machine] = lab.machines
    if (bmc === undefined || other === undefined || machine === undefined) throw new Error('the lab has two machines')
    const wrongPassword = 'not-this-one'
    await lab.startProvider([1, 2])
    const credentials = lab.credentials({ [other.machine.uuid]: wrongPassword })
    await slipway.apply({ kind: 'Provider', name: 'iron', credentials })
    const accept = async (number: number) => {
      const { name } = await until('the machine', () => lab.machine(number))
      await slipway.ok('machine', 'accept', name.replace('machines/', ''))
    }
    const seen = (what: string, check: (machine: MachineJson) => boolean, number = 1) =>
      until(
        what,
        async () => {
          const now = await lab.machine(number)
          return now !== undefined && check(now) && now
        },
        15 * minutes,
      )
    const saying = (pattern: RegExp) => (now: MachineJson) =>
      pattern.test(JSON.stringify([now.conditions, now.lastError]))

    await t.test('a login that is refused is this machine’s condition alone', async (t) => {
      await accept(2)
      const refused = await seen('the refusal to be seen', saying(/another password/), 2)
      t.match(refused, { state: 'MACHINE_STATE_VERIFYING', lastError: { externalCode: 'bmc/wrong-password' } })
      t.match(await slipway.json('get', 'provider', 'iron'), { state: 'PROVIDER_STATE_CONNECTED' })
      t.equal(other.machine.starts, 0)
      t.notMatch(JSON.stringify(refused), wrongPassword)
    })

    await t.test('one that says nothing is told of, and is waited for', async (t) => {
      bmc.mood = 'deaf'
      await accept(1)
      const silent = await seen('the silence to be seen', ({ lastError }) => lastError !== undefined)
      t.match(silent, { state: 'MACHINE_STATE_VERIFYING', lastError: { externalCode: /^bmc\/(unreachable|timeout)/ } })
      t.equal(machine.starts, 0)
      bmc.mood = 'honest'
      await seen('the machine to be available', ({ state }) => state === 'MACHINE_STATE_AVAILABLE')
    })

    await t.test('of two hosts that are ordered for one machine one waits', async (t) => {
      await Promise.all(
        ['one', 'two'].map((host) => slipway.ok('host', 'order', host, '--class', 'metal', '--no-wait')),
      )
      const hosts = async () => {
        const all = await slipway.json<readonly { name: string; state: string }[]>('get', 'hosts')
        return all.map(({ name: host, state }) => [host.split('/').at(-1) ?? '', state] as const)
      }
      const ready = await until(
        'one of them to be ready',
        async () => (await hosts()).find(([, state]) => state === 'HOST_STATE_READY'),
        10 * minutes,
      )
      const other = (await hosts()).find(([host]) => host !== ready[0])
      t.equal(other?.[1], 'HOST_STATE_ORDERED')
      await slipway.ok('host', 'release', ready[0], '--yes')
      await slipway.ok('wait', `host/${other?.[0]}`, '--for', 'ready', '--timeout', '900s')
      t.match(machine.console(), new RegExp(`TENANT hostname ${other?.[0]}`))
    })

    await t.test('one that accepts and does nothing is found out', async (t) => {
      const [host] = await slipway.json<readonly { name: string }[]>('get', 'hosts')
      bmc.mood = 'lying'
      await slipway.ok('host', 'release', host?.name.split('/').at(-1) ?? '', '--yes')
      const lied = await seen('the lie to be seen', saying(/off|power/i))
      t.notMatch(lied.state, /AVAILABLE/)
      t.ok(machine.isOn)
      bmc.mood = 'honest'
      await seen('the machine to be available', ({ state }) => state === 'MACHINE_STATE_AVAILABLE')
      t.equal(await machine.countOnDisk(lab.os.secret), 0)
    })
  },
)
