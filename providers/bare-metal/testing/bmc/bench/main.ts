import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { PowerSupervisor } from '../../../src/power/driver.js'
import { createPowerSupervisor } from '../../../src/power/supervisor.js'
import { simulatedSecret } from '../fleet.js'
import { until } from '../until.js'
import type { FleetOrder, FleetSays } from './fleet-process.js'

/**
 * Measures what it costs to watch and switch many BMCs on a lossy network: `node dist/testing/bmc/bench/main.js --bmcs 1000 --loss 0.05`. The BMCs are
 * simulated in another process; figures are of the supervisor's.
 */

const { values } = parseArgs({
  options: {
    bmcs: { type: 'string', default: '1000' },
    loss: { type: 'string', default: '0.05' },
    seed: { type: 'string', default: '1' },
    dead: { type: 'string', default: '10' },
    steadySeconds: { type: 'string', default: '60' },
  },
})
const count = Number(values.bmcs)
const longMs = 600_000

class Fleet {
  readonly #child: ChildProcess

  private constructor(child: ChildProcess) {
    this.#child = child
  }

  static async start(): Promise<{ fleet: Fleet; ports: readonly number[] }> {
    const path = fileURLToPath(new URL('fleet-process.js', import.meta.url))
    const child = fork(path, [values.bmcs, values.loss, values.seed])
    const [said] = (await once(child, 'message')) as [FleetSays]
    if (said.said !== 'ready') throw new Error('the simulated BMCs did not start')
    return { fleet: new Fleet(child), ports: said.ports }
  }

  async tell(order: FleetOrder): Promise<FleetSays> {
    const answer = once(this.#child, 'message') as Promise<[FleetSays]>
    this.#child.send(order)
    return (await answer)[0]
  }

  stop(): void {
    this.#child.disconnect()
  }
}

function quantile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`
}

/** Runs a phase and prints how long it took, and what it cost this process. */
async function phase(name: string, run: () => Promise<string>): Promise<void> {
  const begun = performance.now()
  const cpu = process.cpuUsage()
  const more = await run()
  const took = performance.now() - begun
  const { user, system } = process.cpuUsage(cpu)
  const cost = `CPU ${seconds((user + system) / 1_000)} (${((user + system) / 10 / took).toFixed(1)} % of one core)`
  const rss = `RSS ${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB`
  console.log(`${name}: ${seconds(took)}; ${more === '' ? '' : `${more}; `}${cost}; ${rss}`)
}

/** Switches until it is so, as whoever holds the work does: a try that failed is repeated. @returns when each was there, in order. */
async function switchAll(
  supervisor: PowerSupervisor,
  ids: readonly string[],
  power: 'on' | 'off',
): Promise<{ times: readonly number[]; retries: number }> {
  const begun = performance.now()
  let retries = 0
  const times = await Promise.all(
    ids.map(async (id) => {
      for (;;) {
        try {
          await supervisor.switchPower(id, power, AbortSignal.timeout(longMs))
          return performance.now() - begun
        } catch {
          retries += 1
        }
      }
    }),
  )
  return { times: times.sort((left, right) => left - right), retries }
}

function spread({ times, retries }: { times: readonly number[]; retries: number }): string {
  const parts = [0.5, 0.99, 1].map((part) => seconds(quantile(times, part)))
  return `p50 ${parts[0] ?? ''}, p99 ${parts[1] ?? ''}, last ${parts[2] ?? ''}; ${retries} tries repeated`
}

async function measure(fleet: Fleet, ports: readonly number[]): Promise<void> {
  const supervisor = createPowerSupervisor()
  const ids = ports.map((_, index) => `machine-${index}`)
  const base = { kind: 'ipmi', address: '127.0.0.1', cipherSuite: 17, privilege: 'operator' } as const
  for (const [index, port] of ports.entries()) {
    const settings = { ...base, port, timeoutMs: 1_000, tries: 5 }
    supervisor.add({ id: ids[index] ?? '', settings, secret: simulatedSecret })
  }
  const deadCount = Number(values.dead)
  try {
    await phase('first reading of all (each logs in)', async () => {
      supervisor.start()
      await until('all to be read', () => supervisor.views().every(({ power }) => power === 'off'), longMs)
      return ''
    })
    await phase('all switched on, and read back', async () => spread(await switchAll(supervisor, ids, 'on')))
    await phase('watching them', async () => {
      await new Promise((resolve) => setTimeout(resolve, Number(values.steadySeconds) * 1_000))
      return 'every 30 s'
    })
    await fleet.tell({ order: 'silence', indexes: ids.slice(0, deadCount).map((_, index) => index) })
    await phase(`all but ${deadCount} dead ones switched off`, async () =>
      spread(await switchAll(supervisor, ids.slice(deadCount), 'off')),
    )
    await phase('the dead ones are found out', async () => {
      const unknown = (): number => supervisor.views().filter(({ power }) => power === 'unknown').length
      await until('the dead to be known', () => unknown() >= deadCount, longMs)
      return ''
    })
    await fleet.tell({ order: 'silence', indexes: [] })
    await phase('the dead ones came back, and are read', async () => {
      await until('all to be read', () => supervisor.views().every(({ power }) => power !== 'unknown'), longMs)
      return ''
    })
  } finally {
    await supervisor.stop()
  }
}

const { fleet, ports } = await Fleet.start()
console.log(`${count} simulated BMCs, ${Number(values.loss) * 100} % of packets lost, cipher suite 17`)
console.log(`Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`)
try {
  await measure(fleet, ports)
  const said = await fleet.tell({ order: 'count' })
  if (said.said === 'count')
    console.log(
      `packets: ${said.passed} passed, ${said.lost} lost; requests carried out: ${said.requests}; on: ${said.on}`,
    )
} finally {
  fleet.stop()
}
