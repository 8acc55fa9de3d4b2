import { randomUUID } from 'node:crypto'
import type { MessageInitShape } from '@bufbuild/protobuf'
import type { InventoryMachineSchema, OwnedResourceSchema } from '@slipway/proto/provider/v1'
import { backOffMs, sleep, untilAborted, withDeadline } from '../internal/timing.js'
import { discoveredToProto, offeringToProto, ownedToProto } from './convert.js'
import { ProviderError } from './errors.js'
import type { HealthSource } from './health.js'
import { isTransient } from './retry.js'
import { makeContext, type Runtime } from './runtime.js'
import type { Snapshot } from './settings.js'
import type { Context, DynamicDefinition, Offering } from './types.js'

const partItems = 500
const listTries = 3
const maxOfferings = 5_000
const checkTimeoutMs = 60_000
const defaultListIntervalMs = 30_000
const defaultOfferingsIntervalMs = 60_000

type Part = {
  readonly machines: MessageInitShape<typeof InventoryMachineSchema>[]
  readonly resources: MessageInitShape<typeof OwnedResourceSchema>[]
}

/** Looks around, for as long as the signal lets it: what exists, what can be had, and whether the credentials still work. */
export class Listing {
  readonly #runtime: Runtime
  readonly #settings: () => Snapshot | undefined
  readonly #sleepers = new Set<() => void>()
  #refreshes = 0

  constructor(runtime: Runtime, settings: () => Snapshot | undefined) {
    this.#runtime = runtime
    this.#settings = settings
  }

  /** Looks again now: the settings are new. */
  refresh(): void {
    this.#refreshes += 1
    for (const wake of this.#sleepers) wake()
  }

  async run(signal: AbortSignal): Promise<void> {
    const { definition } = this.#runtime
    const loops = [
      this.#repeat('list', definition.listIntervalMs ?? defaultListIntervalMs, signal, (context) =>
        this.#list(context),
      ),
    ]
    if (definition.kind === 'dynamic' && definition.offerings !== undefined) {
      const intervalMs = definition.offeringsIntervalMs ?? defaultOfferingsIntervalMs
      loops.push(this.#repeat('offerings', intervalMs, signal, (context) => this.#offerings(definition, context)))
    }
    await Promise.all(loops)
  }

  async #repeat(
    source: HealthSource,
    intervalMs: number,
    signal: AbortSignal,
    look: (context: Context<unknown, unknown>) => Promise<void>,
  ): Promise<void> {
    while (!signal.aborted) {
      const refreshes = this.#refreshes
      const settings = this.#settings()
      if (settings !== undefined && this.#runtime.session.stream > 0) {
        const looking = this.#once(source, makeContext(this.#runtime, settings, 'background', signal), look)
        await untilAborted(looking, signal).catch(() => undefined)
      }
      // Instances of one provider share its rate limits: they must not all ask in the same moment.
      if (refreshes === this.#refreshes) await this.#pause(intervalMs * (0.9 + Math.random() * 0.2), signal)
    }
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', wake)
        this.#sleepers.delete(wake)
        resolve()
      }
      const timer = setTimeout(wake, ms)
      signal.addEventListener('abort', wake, { once: true })
      this.#sleepers.add(wake)
      if (signal.aborted) wake()
    })
  }

  async #once(
    source: HealthSource,
    context: Context<unknown, unknown>,
    look: (context: Context<unknown, unknown>) => Promise<void>,
  ): Promise<void> {
    const { health, log } = this.#runtime
    try {
      if (source === 'list' && health.troubled) await runCheck(this.#runtime, context)
      await look(context)
      health.ok(source)
    } catch (thrown) {
      if (context.signal.aborted) return
      log.warn({ err: thrown, source }, 'looking around failed')
      health.failed(source, thrown)
    }
  }

  async #list(context: Context<unknown, unknown>): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#listOnce(context)
      } catch (thrown) {
        context.signal.throwIfAborted()
        if (!isTransient(ProviderError.from(thrown)) || attempt === listTries) throw thrown
        await sleep(backOffMs(attempt, 500, 5_000), context.signal)
      }
    }
  }

  /** One listing, in parts. Only one that was read to its end proves an absence, and only then does it say so. */
  async #listOnce(context: Context<unknown, unknown>): Promise<void> {
    const listingId = randomUUID()
    const { stream } = this.#runtime.session
    const say = async (part: Part, end?: { readonly complete: boolean }): Promise<void> => {
      // A part that went down with its stream is lost, and the rest proves nothing.
      if (end?.complete !== false && this.#runtime.session.stream !== stream) throw new StreamChanged()
      this.#runtime.session.send({
        case: 'inventory',
        value: { listingId, ...part, final: end !== undefined, complete: end?.complete ?? false },
      })
      await this.#runtime.session.drained()
    }
    let part = emptyPart()
    try {
      for await (const add of this.#entries(context)) {
        context.signal.throwIfAborted()
        add(part)
        if (part.machines.length + part.resources.length < partItems) continue
        await say(part)
        part = emptyPart()
      }
      await say(part, { complete: true })
    } catch (thrown) {
      await say(emptyPart(), { complete: false })
      if (!(thrown instanceof StreamChanged)) throw thrown
    }
  }

  async *#entries(context: Context<unknown, unknown>): AsyncIterable<(part: Part) => void> {
    const { definition } = this.#runtime
    if (definition.kind === 'static') {
      for await (const machine of definition.discover(context)) {
        const found = discoveredToProto(machine)
        yield (part) => part.machines.push(found)
      }
    } else {
      for await (const machine of definition.list(context)) {
        const found = ownedToProto(machine)
        yield (part) => part.resources.push(found)
      }
    }
  }

  async #offerings(
    definition: DynamicDefinition<unknown, unknown, unknown>,
    context: Context<unknown, unknown>,
  ): Promise<void> {
    const offerings: readonly Offering[] = (await definition.offerings?.(context)) ?? []
    if (offerings.length > maxOfferings) {
      context.log.warn({ offerings: offerings.length }, `only the first ${maxOfferings} offerings are told to the hub`)
    }
    this.#runtime.session.send({
      case: 'offerings',
      value: { offerings: offerings.slice(0, maxOfferings).map(offeringToProto) },
    })
  }
}

/** Proves the settings by the author's own check, if there is one. @throws what it throws; ProviderError of code TIMEOUT. */
export async function runCheck(runtime: Runtime, context: Context<unknown, unknown>): Promise<void> {
  const { definition, health } = runtime
  if (definition.check === undefined) return
  const late = (): ProviderError => new ProviderError('TIMEOUT', `the check gave no answer within ${checkTimeoutMs} ms`)
  try {
    await withDeadline(checkTimeoutMs, context.signal, late, async (signal) =>
      definition.check?.({ ...context, signal }),
    )
    health.ok('check')
  } catch (thrown) {
    if (!context.signal.aborted) health.failed('check', thrown)
    throw thrown
  }
}

class StreamChanged extends Error {}

function emptyPart(): Part {
  return { machines: [], resources: [] }
}
