import { Emulator } from '@slipway/provider-hetzner-cloud/testing'
import t, { type Test } from 'tap'
import { Slipway, until, type Process } from '../tools/processes.js'

// A provider of the Hetzner Cloud that is killed at each failpoint while answers of the API are lost: exactly one server is made for each order, and none is left,
// by the emulator's own ledger. SLIPWAY_TEST_REPETITIONS says how often each (default: once).

const script = 'providers/hetzner-cloud/dist/src/main.js'
const repetitions = Number(process.env['SLIPWAY_TEST_REPETITIONS'] ?? 1)
const flags = ['--listing-lag-ms', '200', '--effect-timeout-ms', '6000', '--list-interval-ms', '1000']
const config = { image: 'debian-12', callTimeoutMs: 3_000, actionTimeoutMs: 20_000 }

const smallClass = {
  kind: 'MachineClass',
  name: 'small',
  shape: { vcpus: 2, memoryMib: 4096, diskGib: 40 },
  offerings: [{ family: 'hetzner-cloud', typeId: 'cx22' }],
  bootstrap: { phoneHome: true },
}

/** Calls of which one each is lost: what is done before the kill, after it, and when the host is released. */
interface Losses {
  readonly before?: readonly (readonly [string, RegExp])[]
  readonly after?: readonly (readonly [string, RegExp])[]
}

const create = ['POST', /^\/servers$/] as const
const look = ['GET', /^\/servers$/] as const
const waitFor = ['GET', /^\/actions$/] as const
const remove = ['DELETE', /^\/servers\/\d+$/] as const

const lanes: Readonly<Record<string, Losses>> = {
  'sdk.effect.before': { after: [create] },
  'sdk.effect.after': { after: [look, waitFor] },
  'sdk.report.before': { after: [look, waitFor] },
  'sdk.report.after': { before: [waitFor] },
  'sdk.delete.before': { before: [create], after: [remove] },
  'sdk.delete.after': { before: [create, remove] },
}

/** A project of its own, with a provider that is killed and started again. */
class Lane {
  readonly #slipway: Slipway
  readonly #emulator: Emulator
  readonly #process: Process
  readonly #name: string
  readonly #failpoint: string

  private constructor(parts: {
    slipway: Slipway
    emulator: Emulator
    process: Process
    name: string
    failpoint: string
  }) {
    this.#slipway = parts.slipway
    this.#emulator = parts.emulator
    this.#process = parts.process
    this.#name = parts.name
    this.#failpoint = parts.failpoint
  }

  static async start(t: Test, slipway: Slipway, failpoint: string): Promise<Lane> {
    const emulator = await Emulator.start()
    t.teardown(() => emulator.close())
    const name = failpoint.replaceAll('.', '-')
    await slipway.addProvider(name, 'hetzner-cloud', 'dynamic', {
      config: { ...config, endpoint: emulator.endpoint },
      credentials: { apiToken: emulator.token },
    })
    const process = await slipway.startProvider(name, script, flags)
    return new Lane({ slipway, emulator, process, name, failpoint })
  }

  /** One order from its beginning to its end, with a kill on the way. */
  async run(t: Test, repetition: number): Promise<void> {
    const host = `${this.#name}-${repetition}`
    const { ledger } = this.#emulator
    const madeBefore = ledger.created('server').length
    const { before = [], after = [] } = lanes[this.#failpoint] ?? {}
    await this.#process.end('SIGTERM')
    this.#process.start({ SLIPWAY_FAILPOINTS: `${this.#failpoint}=kill` })
    this.#lose(before)
    await this.#slipway.ok('host', 'order', host, '--class', 'small', '--provider', this.#name, '--no-wait')
    const diesAtDelete = this.#failpoint.startsWith('sdk.delete')
    if (diesAtDelete) {
      await this.#reaches(host, 'READY')
      await this.#slipway.ok('host', 'release', host, '--yes')
    }
    t.equal(await this.#process.ended(120_000), 'SIGKILL', `${host}: killed`)
    this.#lose(after)
    this.#process.start({ SLIPWAY_FAILPOINTS: '' })
    if (!diesAtDelete) {
      await this.#reaches(host, 'READY')
      t.equal(ledger.live('server').length, 1, `${host}: one server`)
      await this.#slipway.ok('host', 'release', host, '--yes')
    }
    await this.#reaches(host, undefined)
    t.equal(ledger.created('server').length - madeBefore, 1, `${host}: one server was ever made`)
    t.strictSame(ledger.live(), [], `${host}: nothing is left`)
    t.equal(this.#emulator.faults.pending, 0, `${host}: every loss that was planned took effect`)
    t.strictSame(this.#emulator.violations, [])
  }

  #lose(calls: readonly (readonly [string, RegExp])[]): void {
    for (const [method, path] of calls) this.#emulator.faults.planCall(method, path, 'lost')
  }

  /** @param state undefined: it is gone. */
  async #reaches(host: string, state: string | undefined): Promise<void> {
    await until(
      `${host} to be ${state ?? 'gone'}`,
      async () => {
        const hosts = await this.#hosts()
        const found = hosts.find(({ name }) => name.endsWith(`/${host}`))
        return state === undefined ? found === undefined : found?.state === `HOST_STATE_${state}`
      },
      180_000,
    )
  }

  async #hosts(): Promise<readonly { readonly name: string; readonly state: string }[]> {
    const response = await fetch(`${this.#slipway.url}/slipway.hub.v1.HostService/ListHosts`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.#slipway.token}`, 'content-type': 'application/json' },
      body: '{"parent":"workspaces/default"}',
    })
    // A hub that is too busy to answer has not said that there are none.
    if (!response.ok) throw new Error(`hosts were not listed: ${response.status}`)
    return ((await response.json()) as { hosts?: { name: string; state: string }[] }).hosts ?? []
  }
}

// The whole file may take longer than the runner's ordinary limit; each test has its own.
t.setTimeout(120_000 + repetitions * 240_000)

void t.test('killed at each failpoint', { timeout: 60_000 + repetitions * 240_000 }, async (t) => {
  t.jobs = Object.keys(lanes).length
  // Six providers and a hub share what the machine has: shorter leases would run out by themselves.
  const slipway = await Slipway.start(t, { SLIPWAY_LEASE: '8s', SLIPWAY_HEARTBEAT: '2s' })
  await slipway.apply(smallClass)
  await Promise.all(
    Object.keys(lanes).map((failpoint) =>
      t.test(failpoint, { buffered: true, timeout: 60_000 + repetitions * 200_000 }, async (t) => {
        const lane = await Lane.start(t, slipway, failpoint)
        for (let repetition = 1; repetition <= repetitions; repetition += 1) await lane.run(t, repetition)
      }),
    ),
  )
})
