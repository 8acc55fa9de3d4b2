import { randomUUID } from 'node:crypto'
import { defineProvider } from '../provider/define.js'
import type {
  DynamicDefinition,
  MachineSpec,
  ObservedMachine,
  OwnedMachine,
  Power,
  PowerWish,
  Provider,
  WorkContext,
} from '../provider/types.js'

export interface CloudServer {
  readonly id: string
  readonly key: string
  readonly name: string
  power: Power
}

type Definition = DynamicDefinition<unknown, unknown, unknown>

/** A cloud in memory, with a ledger of every call that changed it. */
export class TestCloud {
  readonly servers = new Map<string, CloudServer>()
  readonly calls: string[] = []

  make(key: string, name: string): CloudServer {
    const server: CloudServer = { id: randomUUID(), key, name, power: 'on' }
    this.servers.set(server.id, server)
    this.calls.push('create')
    return server
  }

  byKey(key: string): CloudServer | undefined {
    return [...this.servers.values()].find((server) => server.key === key)
  }

  count(call: string): number {
    return this.calls.filter((entry) => entry === call).length
  }

  /** The whole provider of it; any function can be put in the place of its own. */
  provider(instead: Partial<Definition> = {}): Provider {
    return defineProvider<unknown, unknown, unknown>({ ...this.definition(), ...instead })
  }

  definition(): Definition {
    return {
      family: 'test-cloud',
      kind: 'dynamic',
      create: (context, spec) => this.create(context, spec),
      observe: (_context, externalId) => Promise.resolve(view(this.servers.get(externalId))),
      delete: (_context, machine) => {
        this.calls.push('delete')
        for (const server of this.servers.values())
          if (server.key === machine.ownershipKey) this.servers.delete(server.id)
        return Promise.resolve()
      },
      list: () => this.list(),
      power: (_context, externalId, wish) => this.power(externalId, wish),
    }
  }

  async create(context: WorkContext<unknown, unknown>, spec: MachineSpec<unknown>): Promise<ObservedMachine> {
    const id = await context.step('server', {
      run: () => Promise.resolve(this.make(spec.ownershipKey, spec.name).id),
      find: () => {
        this.calls.push('find')
        return Promise.resolve(this.byKey(spec.ownershipKey)?.id)
      },
      timeoutMs: 1_000,
    })
    await context.report({ externalId: id })
    return view(this.servers.get(id)) ?? { externalId: id }
  }

  async *list(): AsyncIterable<OwnedMachine> {
    for (const server of this.servers.values())
      yield { externalId: server.id, ownershipKey: server.key, name: server.name, power: server.power }
  }

  power(externalId: string, wish: PowerWish): Promise<void> {
    this.calls.push(wish)
    const server = this.servers.get(externalId)
    if (server !== undefined && wish !== 'reboot') server.power = wish
    return Promise.resolve()
  }
}

function view(server: CloudServer | undefined): ObservedMachine | undefined {
  return server === undefined
    ? undefined
    : { externalId: server.id, power: server.power, addresses: [{ type: 'public', ip: '192.0.2.7' }] }
}
