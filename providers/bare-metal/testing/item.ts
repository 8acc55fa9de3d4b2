import { randomUUID } from 'node:crypto'
import {
  ProviderError,
  Stopped,
  type Claim,
  type Json,
  type MachineSpec,
  type ObservedMachine,
  type ProviderEvent,
  type WaitOptions,
  type WorkContext,
} from '@slipway/sdk'
import { pino } from 'pino'
import { dataSchema, type Config, type Credentials, type Data } from '../src/config.js'

const log = pino({ level: process.env['SLIPWAY_TEST_LOG'] ?? 'silent' })

/** What a hub would keep of one item, and say of its claim. */
export class TestItem {
  readonly id = randomUUID()
  readonly kind: 'machines' | 'machineRequests'
  operation: Claim['operation']
  generation = 1n
  fence = 0n
  steps = new Map<string, Json>()
  readonly reports: Partial<ObservedMachine>[] = []
  readonly progress: string[] = []
  readonly events: ProviderEvent[] = []
  readonly callbacks: string[] = []
  readonly waits: WaitOptions[] = []
  last: WorkContext<Config, Credentials>['last'] = {}
  /** What the hub answers when a claim is confirmed. */
  leaseMs = 5_000

  constructor(kind: 'machines' | 'machineRequests', operation: Claim['operation']) {
    this.kind = kind
    this.operation = operation
  }

  /** A new operation, with nothing stored. */
  begin(operation: Claim['operation']): this {
    this.operation = operation
    this.generation += 1n
    this.steps = new Map()
    return this
  }

  get key(): string {
    return `${this.kind}/${this.id}`
  }

  /** Hands it to a holder, under a higher fence: claims of before are over. */
  claim(config: Config, credentials: Credentials): Held {
    this.fence += 1n
    return new Held(this, this.fence, config, credentials)
  }
}

/** One claim of an item, with what the holder is given. */
export class Held {
  readonly fence: bigint
  readonly #item: TestItem
  readonly #stop = new AbortController()
  readonly #config: Config
  readonly #credentials: Credentials
  /** The holder's own clock stands still: it believes in a lease that is over. */
  paused = false

  constructor(item: TestItem, fence: bigint, config: Config, credentials: Credentials) {
    this.#item = item
    this.fence = fence
    this.#config = config
    this.#credentials = credentials
  }

  /** Ends the claim, as the SDK does. */
  end(why: 'revoked' | 'changed' | 'stopping'): void {
    this.#stop.abort(new Stopped(why, `test: ${why}`))
  }

  context(): WorkContext<Config, Credentials> {
    const item = this.#item
    const { signal } = this.#stop
    return {
      config: this.#config,
      credentials: this.#credentials,
      provider: 'providers/test',
      hubId: 'hub',
      signal,
      log,
      budget: () => Promise.resolve(),
      event: (event) => void item.events.push(event),
      calledBack: (externalId) => void item.callbacks.push(externalId),
      attempt: 1,
      last: item.last,
      claim: this.#claim(),
      step: async (name, work) => {
        signal.throwIfAborted()
        const stored = item.steps.get(name)
        if (stored !== undefined) return stored as never
        const result =
          typeof work === 'function' ? await work(signal) : ((await work.find(signal)) ?? (await work.run(signal)))
        this.#refuseStale()
        item.steps.set(name, JSON.parse(JSON.stringify(result)) as Json)
        return result
      },
      progress: (message) => void item.progress.push(message),
      report: async (observed) => {
        this.#refuseStale()
        item.reports.push(observed)
        const { externalId, attributes } = observed
        item.last = {
          ...item.last,
          ...(externalId !== undefined && { externalId }),
          ...(attributes !== undefined && { attributes }),
        }
        return Promise.resolve()
      },
      wait: (options) => {
        this.#refuseStale()
        item.waits.push(options)
        return Promise.reject(new Stopped('waiting', options.message, options.lookAfterMs))
      },
      poll: async (check, { timeoutMs = 20_000, what = 'a result' } = {}) => {
        const deadlineMs = performance.now() + timeoutMs
        for (;;) {
          const result = await check(signal)
          if (result !== undefined) return result
          if (performance.now() > deadlineMs) throw new ProviderError('TIMEOUT', `${what} did not come`)
          await new Promise((resolve) => setTimeout(resolve, 10))
          signal.throwIfAborted()
        }
      },
    }
  }

  #claim(): Claim {
    const item = this.#item
    return {
      item: item.key,
      operation: item.operation,
      generation: item.generation,
      fence: this.fence,
      mayAct: () => !this.#stop.signal.aborted && (this.paused || this.fence === item.fence),
      confirm: async () => {
        await new Promise((resolve) => setTimeout(resolve, 1))
        this.#refuseStale()
        return item.leaseMs
      },
    }
  }

  #refuseStale(): void {
    if (this.fence === this.#item.fence) return
    this.end('revoked')
    throw new Stopped('revoked', 'test: the fence is stale')
  }
}

/** An order as the SDK hands it over. */
export function machineSpec(
  item: TestItem,
  data: Partial<Data> = {},
  overrides: Partial<MachineSpec<Data>> = {},
): MachineSpec<Data> {
  const name = `m-${item.id.slice(0, 8)}`
  return {
    name,
    ownershipKey: `hub/${item.id}`,
    typeId: '',
    location: '',
    shape: { vcpus: 1, memoryMib: 1024, diskGib: 10 },
    data: dataSchema.parse(data),
    bootstrap: {
      hostname: name,
      userData: '#cloud-config\n',
      phoneHomeUrl: '',
      phoneHomePathUrl: '',
      phoneHomeToken: '',
      sshPublicKeys: [],
    },
    host: {
      host: `workspaces/default/hosts/${name}`,
      hostUid: item.id,
      workspace: 'default',
      machineClass: 'metal',
      labels: {},
    },
    ...overrides,
  }
}
