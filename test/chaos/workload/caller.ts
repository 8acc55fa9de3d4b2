import { create } from '@bufbuild/protobuf'
import { HostSchema, PowerAction } from '@slipway/proto/hub/v1'
import { createSlipwayClient, type SlipwayClient } from '@slipway/sdk/client'
import type { ClientLine, Operation, Outcome, Seen } from '../history.js'
import { Writer } from '../history.js'
import { failureOf } from './outcome.js'
import { seenHost, seenMachine } from './seen.js'

export const workspace = 'workspaces/default'
const callTimeoutMs = 4_000
const actions = { on: PowerAction.ON, off: PowerAction.OFF, reboot: PowerAction.REBOOT }

/** Makes calls, and writes each down before it is sent and after its outcome is known. */
export class Caller {
  readonly name: string
  readonly hubs: readonly SlipwayClient[]
  readonly #history: Writer<ClientLine>
  readonly #note: (line: ClientLine) => void
  #calls = 0

  constructor(options: {
    readonly name: string
    readonly hubs: readonly string[]
    readonly token: string
    readonly histories: string
    readonly note?: (line: ClientLine) => void
  }) {
    this.name = options.name
    this.hubs = options.hubs.map((baseUrl) =>
      createSlipwayClient({ baseUrl, token: options.token, timeoutMs: callTimeoutMs }),
    )
    this.#history = new Writer(options.histories, `client-${options.name}`)
    this.#note = options.note ?? (() => undefined)
  }

  mark(type: 'start' | 'done'): void {
    this.#write({ at: Date.now(), by: this.name, type })
  }

  /** One call to one of the hubs. Never throws: what went wrong is the outcome. */
  async call(hub: number, operation: Operation): Promise<Outcome> {
    const call = `${this.name}.${process.pid}.${++this.#calls}`
    const head = { by: this.name, call }
    this.#write({ at: Date.now(), ...head, type: 'invoke', hub: `hub-${hub + 1}`, ...operation })
    let outcome: Outcome
    try {
      const seen = await this.#perform(this.#hub(hub), operation)
      outcome = { at: Date.now(), ...head, type: 'ok', seen }
    } catch (error) {
      outcome = { at: Date.now(), ...head, ...failureOf(error) }
    }
    this.#write(outcome)
    return outcome
  }

  #hub(index: number): SlipwayClient {
    const client = this.hubs[index % this.hubs.length]
    if (client === undefined) throw new Error('there is no hub to call')
    return client
  }

  #write(line: ClientLine): void {
    this.#history.write(line)
    this.#note(line)
  }

  async #perform(client: SlipwayClient, operation: Operation): Promise<Seen> {
    switch (operation.op) {
      case 'order':
      case 'reuse': {
        const { key, host, want } = operation
        const answer = await client.hosts.createHost({
          parent: workspace,
          hostId: idOf(host),
          requestId: key,
          host: create(HostSchema, {
            hostname: want.hostname,
            machineClass: want.machineClass,
            labels: want.labels,
            providerData: want.providerData,
          }),
        })
        return seenHost(present(answer.host))
      }
      case 'release':
        return seenHost(present((await client.hosts.deleteHost({ name: operation.host })).host))
      case 'label': {
        const host = create(HostSchema, { name: operation.host, labels: { chaos: operation.value } })
        return seenHost(present((await client.hosts.updateHost({ host, updateMask: { paths: ['labels'] } })).host))
      }
      case 'get':
        return seenHost(present((await client.hosts.getHost({ name: operation.host })).host))
      case 'power': {
        const { key, machine, action } = operation
        const answer = await client.machines.setMachinePower({ name: machine, action: actions[action], requestId: key })
        return seenMachine(present(answer.machine))
      }
    }
  }
}

export function idOf(name: string): string {
  return name.split('/').at(-1) ?? ''
}

export function present<Value>(value: Value | undefined): Value {
  if (value === undefined) throw new Error('the hub answered with nothing')
  return value
}
