import { randomUUID } from 'node:crypto'
import { defineProvider } from '../provider/define.js'
import { ProviderError } from '../provider/errors.js'
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
  key: string
  readonly name: string
  power: Power
  /** Which reinstalls were done, in order. */
  readonly reinstalls: number[]
  /** The user-data of the system that is on it. */
  userData: string
}

type Definition = DynamicDefinition<unknown, unknown, unknown>

/** A cloud in memory, with a ledger of every call that changed it. */
export class TestCloud {
  readonly servers = new Map<string, CloudServer>()
  readonly calls: string[] = []

  make(key: string, name: string): CloudServer {
    const server: CloudServer = { id: randomUUID(), key, name, power: 'on', reinstalls: [], userData: '' }
    this.servers.set(server.id, server)
    this.calls.push('create')
    return server
  }

  /** Puts a key on a server, or takes it off: empty. */
  key(id: string, key: string): void {
    const server = this.servers.get(id)
    if (server === undefined) throw new ProviderError('INTERNAL', `there is no server ${id}`)
    this.calls.push('key')
    server.key = key
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

  /** Puts a new system on a server. */
  rebuild(externalId: string, which: number, userData: string): void {
    const server = this.servers.get(externalId)
    if (server === undefined) throw new ProviderError('INTERNAL', `there is no server ${externalId}`)
    this.calls.push('rebuild')
    server.reinstalls.push(which)
    server.userData = userData
  }

  /** What a provider that can reinstall does. */
  async reinstall(
    context: WorkContext<unknown, unknown>,
    { externalId, reinstall }: { readonly externalId: string; readonly reinstall: number },
    spec: MachineSpec<unknown>,
  ): Promise<ObservedMachine> {
    await context.step('rebuild', {
      run: () => {
        this.rebuild(externalId, reinstall, spec.bootstrap.userData)
        return Promise.resolve(reinstall)
      },
      find: () =>
        Promise.resolve(this.servers.get(externalId)?.reinstalls.at(-1) === reinstall ? reinstall : undefined),
      timeoutMs: 300,
    })
    return view(this.servers.get(externalId)) ?? { externalId }
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
