import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, mkdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { create, toJson } from '@bufbuild/protobuf'
import { durationMs } from '@bufbuild/protobuf/wkt'
import {
  ItemKind,
  Operation,
  Presence,
  PowerState,
  ProviderMessageSchema,
  type Configured,
  type Hello,
  type Report,
} from '@slipway/proto/provider/v1'
import { setTimeout as delay } from 'node:timers/promises'
import type {
  Adapter,
  Description,
  FaultName,
  JsonObject,
  OrderSample,
  Planting,
  Settings,
  Thing,
  Truth,
  World,
} from './adapter.js'
import type { TestAuthority } from './gateway/authority.js'
import { Gateway, type Verdict } from './gateway/gateway.js'
import type { Item } from './gateway/item.js'
import type { HubSession } from './gateway/session.js'
import { Instance, type StartOptions } from './instance.js'
import { Orders } from './orders.js'
import { Transcript } from './transcript.js'
import { CaseFailure, CaseSkipped, expectEqual, until } from './until.js'

/** How a case wants its hub. */
export interface BenchOptions {
  readonly heartbeatMs?: number
  readonly leaseMs?: number
  readonly certificateLifeMs?: number
  readonly certificateFromMs?: number
}

export interface BenchSetup {
  readonly adapter: Adapter
  readonly description: Description
  readonly command: readonly string[]
  /** What the provider says of itself; undefined while that is found out. */
  readonly hello: Hello | undefined
  /** How long to wait for anything, at most, in milliseconds. */
  readonly waitMs: number
  readonly options: BenchOptions
}

/** What one case works with: a hub that it writes the script of, the provider under test, and the ground truth. */
export class Bench {
  readonly transcript = new Transcript()
  readonly folder = mkdtempSync(join(tmpdir(), 'slipway-conformance-'))
  readonly world: World
  readonly adapter: Adapter
  readonly description: Description
  readonly command: readonly string[]
  readonly waitMs: number
  readonly instances: Instance[] = []
  /** What must never be seen outside of where it belongs. */
  readonly canaries = new Map<string, string>()
  settings: Settings = {}
  gateway!: Gateway
  /** Decides on a report, as {@link Gateway.judge} does. */
  judge: (report: Report, session: HubSession) => Verdict | Promise<Verdict> = () => 'ack'
  /** Put into the provider data of every order, by a fault. */
  extraData: JsonObject = {}
  readonly #setup: BenchSetup
  readonly #orders = new Orders(this)
  readonly #planted = new Set<string>()
  #version = 1n

  private constructor(setup: BenchSetup) {
    this.#setup = setup
    this.adapter = setup.adapter
    this.description = setup.description
    this.command = setup.command
    this.waitMs = setup.waitMs
    const dir = join(this.folder, 'world')
    mkdirSync(dir)
    this.world = { dir, hubId: randomUUID() }
  }

  static async open(setup: BenchSetup, authority: TestAuthority): Promise<Bench> {
    const bench = new Bench(setup)
    bench.gateway = await Gateway.start({
      ...setup.options,
      transcript: bench.transcript,
      waitMs: setup.waitMs,
      authority,
      hubId: bench.world.hubId,
    })
    bench.gateway.judge = (report, session) => bench.#judged(report, session)
    bench.gateway.onSaid = (body) => {
      if (body.case !== undefined)
        bench.#lookForCanaries(`a ${body.case}`, () =>
          JSON.stringify(toJson(ProviderMessageSchema, create(ProviderMessageSchema, { body }))),
        )
    }
    bench.settings = await setup.adapter.setUp(bench.world)
    bench.gateway.configure = { version: 1n, ...configured(bench.settings) }
    bench.#keepSecret('a credential', bench.settings.credentials)
    return bench
  }

  get isStatic(): boolean {
    return this.description.kind === 'static'
  }

  /** What the provider says of itself in Hello. */
  get hello(): Hello {
    if (this.#setup.hello === undefined) throw new Error('it is not known yet what the provider says of itself')
    return this.#setup.hello
  }

  /** How long after a create a listing may not show it. */
  get listingLagMs(): number {
    return this.hello.listingLag === undefined ? 0 : durationMs(this.hello.listingLag)
  }

  /** How long one machine may take to be made, waits for doubts included. */
  get createMs(): number {
    const effectMs = this.hello.effectTimeout === undefined ? 600_000 : durationMs(this.hello.effectTimeout)
    return (this.description.createMs ?? 60_000) + effectMs + this.listingLagMs + this.waitMs
  }

  /** Starts an instance, and waits until it takes work. */
  async instance(options: StartOptions = {}): Promise<Instance> {
    const instance = await Instance.launch(this, String.fromCharCode(97 + this.instances.length), options)
    this.instances.push(instance)
    if (options.waitForReady !== false) await instance.ready()
    return instance
  }

  /** What exists, whoever knows of it. */
  async truth(): Promise<Truth> {
    return this.adapter.list(this.world)
  }

  /** What exists under an item's key. */
  async owned(item: Item): Promise<Thing[]> {
    return (await this.truth()).things.filter(({ ownershipKey }) => ownershipKey === item.key)
  }

  /** The one server of an item. @throws CaseFailure where there is none, or more than one. */
  async server(item: Item): Promise<Thing> {
    const servers = (await this.owned(item)).filter(({ kind }) => kind === 'server')
    expectEqual(servers.length, 1, `servers that exist under the key of the request`)
    return servers[0] as Thing
  }

  /** Injects a fault, and takes what it needs of settings and orders into use. */
  async inject(fault: FaultName): Promise<void> {
    this.transcript.add('kit', `injects ${fault}`)
    const injected = (await this.adapter.inject?.(this.world, fault)) ?? {}
    this.extraData = { ...(fault !== 'none' && this.extraData), ...injected.providerData }
    if (injected.config === undefined && injected.credentials === undefined) return
    this.settings = {
      ...this.settings,
      ...(injected.config !== undefined && { config: injected.config }),
      ...(injected.credentials !== undefined && { credentials: injected.credentials }),
    }
    this.gateway.configure = { version: this.#nextVersion(), ...configured(this.settings) }
    for (const instance of this.instances)
      if (instance.current !== undefined) await this.#tell(instance, this.gateway.configure)
  }

  /** Makes things appear behind the provider's back, under a key that is not one of the case's own orders. @returns their ids. */
  async plant(planting: Planting): Promise<readonly string[]> {
    this.transcript.add(
      'kit',
      `plants ${planting.count ?? 1} × ${planting.name} under ${planting.ownershipKey || 'no key'}`,
    )
    this.#planted.add(planting.ownershipKey)
    return (await this.adapter.plant?.(this.world, planting)) ?? []
  }

  /** Makes a thing disappear behind the provider's back. */
  async vanish(externalId: string): Promise<void> {
    this.transcript.add('kit', `makes ${externalId} vanish`)
    await this.adapter.vanish?.(this.world, externalId)
  }

  /** Sends other settings to an instance, and gives its answer. Those that it accepts are the settings from here on. */
  async configure(instance: Instance, settings: Settings): Promise<Configured> {
    const configure = { version: this.#nextVersion(), ...configured(settings) }
    this.#keepSecret('a credential', settings.credentials)
    await instance.ready()
    const answer = await this.#tell(instance, configure)
    if (answer.ok) {
      this.settings = { ...this.settings, ...settings }
      this.gateway.configure = configure
    }
    return answer
  }

  /** Calls that changed something so far. @throws CaseSkipped where the adapter cannot tell. */
  async writes(): Promise<number> {
    const { writes } = await this.truth()
    if (writes === undefined) throw new CaseSkipped('the adapter does not count what is written')
    return writes
  }

  /** A new request for a machine that works, not claimed yet. */
  order(sample: OrderSample = this.description.order, sshPublicKeys: readonly string[] = []): Promise<Item> {
    return this.#orders.request(sample, sshPublicKeys)
  }

  /** A static machine as an item of its own, with nothing wished of it yet but to be verified. */
  machine(externalId?: string): Promise<Item> {
    return this.#orders.machine(externalId)
  }

  /** The machine that a request is to be put on, as an item of its own. */
  machineOf(request: Item): Promise<Item> {
    return this.#orders.machine(request.desired.machine?.externalId ?? '')
  }

  /** Acts as a hub does until the wish of an item is met: hands it out, and again after each release. @throws CaseFailure where the provider gives it up. */
  async drive(item: Item, instances: readonly Instance[] = this.instances): Promise<void> {
    const failuresBefore = item.failures.length
    await until(
      `generation ${item.desired.generation} of ${item.id} to be settled`,
      async () => {
        if (item.settledAt === item.desired.generation) return true
        const final = item.failures.slice(failuresBefore).find(({ retryable }) => !retryable)
        if (final !== undefined) throw new CaseFailure(`the provider gave the item up: ${final.code} ${final.message}`)
        if (!item.held) await this.#handOut(item, instances)
        return false
      },
      this.createMs,
    )
  }

  /** Starts an instance and has it make a machine. */
  async provisioned(): Promise<{ readonly instance: Instance; readonly item: Item; readonly session: HubSession }> {
    const instance = await this.instance()
    const item = await this.order()
    await this.drive(item)
    return { instance, item, session: await instance.ready() }
  }

  /** Has a machine go. */
  async deprovision(item: Item): Promise<void> {
    item.wish({ operation: Operation.DEPROVISION, presence: Presence.ABSENT, power: PowerState.UNSPECIFIED })
    await this.drive(item)
  }

  /** Tells the holder of an item of a new wish, or hands it out where nobody holds it; waits until it is met. */
  async fulfil(item: Item, instance: Instance, change: Parameters<Item['wish']>[0]): Promise<void> {
    item.wish(change)
    if (item.held) this.gateway.tellWish(item, await instance.ready())
    await this.drive(item, [instance])
  }

  /** Waits for a condition, with the patience of the run. */
  async until<Value>(
    what: string,
    look: () => Value | undefined | false | Promise<Value | undefined | false>,
    timeoutMs = this.waitMs,
  ): Promise<Value> {
    return until(what, look, timeoutMs)
  }

  /** What every item's failure looks like, once the provider has reported one. */
  async failed(item: Item): Promise<(typeof item.failures)[number]> {
    return this.until('the failure to be reported', () => item.failures.at(-1), this.createMs)
  }

  /** Waits until an item is released, however. */
  async released(item: Item): Promise<void> {
    await this.until('the item to be released', () => !item.held, this.createMs)
  }

  /** What a process held is free, as it is when its lease has run out. */
  expireLeases(instance: Instance): void {
    const ids = new Set(instance.sessions.map(({ hello }) => hello.instanceId))
    for (const item of this.gateway.items.values()) if (item.held && ids.has(item.holder)) item.free()
  }

  /** Ends everything, and gives all rules that were broken, in words. */
  async close(): Promise<string[]> {
    const breaches: string[] = []
    for (const { process } of this.instances) {
      if (!process.running && !process.mayEnd)
        breaches.push(`${process.name} ended by itself with ${process.ending}: ${process.output.slice(-500)}`)
    }
    for (const { process } of this.instances) if (process.running) await process.kill()
    for (const { process } of this.instances)
      this.#lookForCanaries(`the output of ${process.name}`, () => process.output)
    breaches.push(
      ...(await this.#truthBreaches().catch((error: unknown) => [`the ground truth cannot be read: ${String(error)}`])),
    )
    for (const { wire } of this.instances) wire.end()
    this.gateway.close()
    await this.adapter.tearDown?.(this.world)
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
    return [...this.gateway.rules.breaches, ...breaches]
  }

  /** Tells an instance of settings, on each stream that it opens meanwhile, until it answers. */
  async #tell(instance: Instance, configure: Gateway['configure']): Promise<Configured> {
    const { version } = configure
    let told: HubSession | undefined
    return this.until(`an answer to version ${version} of the settings`, () => {
      const session = instance.current
      if (session !== told) session?.send({ case: 'configure', value: configure })
      told = session
      return session?.all('configured').find((answer) => answer.version === version)
    })
  }

  #nextVersion(): bigint {
    this.#version += 1n
    return this.#version
  }

  async #handOut(item: Item, instances: readonly Instance[]): Promise<void> {
    const last = item.releases.at(-1)
    if (last?.fence === item.fence && last.outcome.case === 'retryAfter')
      await delay(Math.min(10_000, durationMs(last.outcome.value)))
    for (const instance of instances) {
      const session = instance.current
      if (session === undefined || (session.all('ready').at(-1)?.capacity ?? 0) === 0) continue
      this.gateway.claim(item, session)
      return
    }
  }

  async #judged(report: Report, session: HubSession): Promise<Verdict> {
    const verdict = await this.judge(report, session)
    const item = this.gateway.items.get(report.item?.id ?? '')
    if (report.completed !== undefined && item !== undefined && item.kind === ItemKind.MACHINE_REQUEST)
      await this.#checkCompletion(report, item)
    return verdict
  }

  /** What is called complete must be so, at this very moment. */
  async #checkCompletion(report: Report, item: Item): Promise<void> {
    const servers = (await this.owned(item)).filter(({ kind }) => kind === 'server')
    const { rules } = this.gateway
    const { operation } = report.completed ?? {}
    if (operation === Operation.PROVISION || operation === Operation.REINSTALL) {
      const name = Operation[operation]
      const externalId = report.observed?.externalId || item.observed.externalId
      if (servers.length !== 1)
        rules.breach(`${name} was called complete while ${servers.length} servers exist under its key`)
      else if (!this.isStatic && servers[0]?.externalId !== externalId)
        rules.breach(
          `${name} was called complete with the external id "${externalId}"; it is ${servers[0]?.externalId}`,
        )
    }
    if (operation === Operation.DEPROVISION) {
      const left = await this.owned(item)
      if (left.length > 0)
        rules.breach(
          `DEPROVISION was called complete while ${left.map(({ kind, externalId }) => `${kind} ${externalId}`).join(', ')} exist`,
        )
    }
  }

  async #truthBreaches(): Promise<string[]> {
    if (this.instances.length === 0) return []
    const { maxLive = {}, violations = [] } = await this.truth()
    const twice = Object.entries(maxLive).filter(
      ([key, most]) => key.startsWith(`${this.gateway.hubId}/`) && most > 1 && !this.#planted.has(key),
    )
    return [...twice.map(([key, most]) => `${most} servers lived at once under ${key}`), ...violations]
  }

  #keepSecret(what: string, value: unknown): void {
    if (typeof value === 'string' && value.length >= 8) this.canaries.set(value, what)
    else if (typeof value === 'object' && value !== null)
      for (const inner of Object.values(value)) this.#keepSecret(what, inner)
  }

  #lookForCanaries(where: string, text: () => string): void {
    const all = [...this.canaries, ...this.gateway.joinTokens.map((token) => [token, 'the join token'] as const)]
    const read = text()
    for (const [canary, what] of all) if (read.includes(canary)) this.gateway.rules.breach(`${what} is in ${where}`)
  }
}

function configured({ config, credentials }: Settings) {
  return {
    ...(config !== undefined && { config: config as never }),
    ...(credentials !== undefined && { credentials: credentials as never }),
  }
}
