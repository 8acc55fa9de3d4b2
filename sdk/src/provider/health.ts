import type { MessageInitShape } from '@bufbuild/protobuf'
import { Health as WireHealth, type HeartbeatSchema } from '@slipway/proto/provider/v1'
import { failureToProto } from './convert.js'
import { ProviderError } from './errors.js'

/** What the health of a provider is known from. */
export type HealthSource = 'settings' | 'newer-settings' | 'check' | 'list' | 'offerings' | 'work'

/** An API that failed so often in a row is taken for down, and not for shaky. */
const failuresUntilUnhealthy = 3

/** How the provider is doing: the worst of what its sources said last. */
export class Health {
  readonly #failures = new Map<HealthSource, { readonly error: ProviderError; readonly times: number }>()
  readonly #onChange: () => void

  /** @param onChange called when the sum has changed, to tell the hub at once. */
  constructor(onChange: () => void) {
    this.#onChange = onChange
  }

  failed(source: HealthSource, thrown: unknown): void {
    const error = ProviderError.from(thrown)
    this.#changing(() => this.#failures.set(source, { error, times: (this.#failures.get(source)?.times ?? 0) + 1 }))
  }

  /** A source went well. What clears a check or a listing clears what work found too: all use the same credential. */
  ok(source: HealthSource): void {
    this.#changing(() => {
      this.#failures.delete(source)
      if (source === 'check' || source === 'list') this.#failures.delete('work')
    })
  }

  /** Whether anything is wrong. */
  get troubled(): boolean {
    return this.#failures.size > 0
  }

  /** As the hub is told of it. */
  toProto(): Pick<MessageInitShape<typeof HeartbeatSchema>, 'health' | 'message' | 'failure'> {
    const worst = this.#worst()
    if (worst === undefined) return { health: WireHealth.HEALTHY }
    const message = `${worst.source}: ${worst.error.message}`.slice(0, 4096)
    return { health: worst.health, message, failure: failureToProto(worst.error) }
  }

  #worst(): { readonly source: HealthSource; readonly error: ProviderError; readonly health: WireHealth } | undefined {
    const all = [...this.#failures].map(([source, { error, times }]) => ({
      source,
      error,
      health: severity(source, error, times),
    }))
    return all.find(({ health }) => health === WireHealth.UNHEALTHY) ?? all[0]
  }

  #changing(change: () => void): void {
    const before = this.#worst()
    change()
    const after = this.#worst()
    if (before?.health !== after?.health || before?.error.code !== after?.error.code) this.#onChange()
  }
}

function severity(source: HealthSource, error: ProviderError, times: number): WireHealth {
  // The settings before are still in use and do.
  if (source === 'newer-settings') return WireHealth.DEGRADED
  if (source === 'settings' || error.code === 'CREDENTIALS') return WireHealth.UNHEALTHY
  const down = error.code === 'UNAVAILABLE' || error.code === 'TIMEOUT'
  return down && source !== 'work' && times >= failuresUntilUnhealthy ? WireHealth.UNHEALTHY : WireHealth.DEGRADED
}
