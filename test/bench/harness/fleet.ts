import type { ProviderMessage } from '@slipway/proto/provider/v1'
import type { GatewayAddress, Identity } from '@slipway/sdk/testing'
import type { BenchHub } from './hub.js'
import { RawSession } from './session.js'

/** When something of a host was first heard, in ms. */
export interface Heard {
  readonly claimedAt: number
  readonly ackedAt: number
}

/** Provider connections that answer every claim at once, and tell when. */
export class Fleet {
  readonly sessions: RawSession[] = []
  readonly #waiting = new Map<string, { claimedAt: number; resolve: (heard: Heard) => void }>()
  readonly #bySession = new Map<RawSession, Map<bigint, string>>()

  static async connect(gateway: GatewayAddress, identities: readonly Identity[], connections: number): Promise<Fleet> {
    const fleet = new Fleet()
    for (let index = 0; index < connections; index++) {
      const identity = identities[index % identities.length]
      if (identity === undefined) throw new Error('no identity')
      const acks = new Map<bigint, string>()
      const session = await RawSession.open({
        gateway,
        identity,
        name: `i${index}`,
        capacity: 200,
        onMessages: (messages, session) => {
          const now = performance.now()
          const answers: ProviderMessage['body'][] = []
          for (const { body } of messages) {
            if (body.case === 'claimed') {
              const name = body.value.desired?.spec?.host?.host ?? ''
              const waiting = fleet.#waiting.get(name)
              if (waiting !== undefined) waiting.claimedAt = now
              acks.set(session.answer(body.value, answers), name)
            } else if (body.case === 'ack') {
              const name = acks.get(body.value.sequence) ?? ''
              acks.delete(body.value.sequence)
              const waiting = fleet.#waiting.get(name)
              fleet.#waiting.delete(name)
              waiting?.resolve({ claimedAt: waiting.claimedAt, ackedAt: now })
            } else if (body.case === 'nack') process.stderr.write(`refused: ${body.value.message}\n`)
          }
          if (answers.length > 0) session.send(answers)
        },
      })
      fleet.#bySession.set(session, acks)
      fleet.sessions.push(session)
    }
    return fleet
  }

  /** Resolves once the answer of a host's provider is stored. Call it before the order is placed. */
  heardOf(hostId: string): Promise<Heard> {
    return new Promise((resolve) =>
      this.#waiting.set(`workspaces/default/hosts/${hostId}`, { claimedAt: Number.NaN, resolve }),
    )
  }

  close(): void {
    for (const session of this.sessions) session.close()
  }
}

/** Providers of a hub, each with a class of the same name that it alone offers. */
export async function addProviders(hub: BenchHub, count: number): Promise<{ names: string[]; identities: Identity[] }> {
  const names = Array.from({ length: count }, (_, index) => `bench-${index}`)
  const identities: Identity[] = []
  for (const name of names) {
    identities.push(await hub.addProvider(name))
    await hub.addClass(name, name)
  }
  return { names, identities }
}
