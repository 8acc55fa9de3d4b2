import { randomBytes, randomUUID } from 'node:crypto'
import { ItemKind, Operation, Presence, type InventoryMachine } from '@slipway/proto/provider/v1'
import type { OrderSample } from './adapter.js'
import type { Bench } from './bench.js'
import { Item } from './gateway/item.js'

type Machine = Pick<InventoryMachine, 'externalId'> & { readonly providerData?: InventoryMachine['providerData'] }

/** What a case orders: requests with names, keys and secrets of their own, and the machines of a rack that they are put on. */
export class Orders {
  readonly #bench: Bench
  readonly #machineIds = new Map<string, string>()
  readonly #allocated = new Set<string>()
  #names = 0

  constructor(bench: Bench) {
    this.#bench = bench
  }

  /** A new request for a machine, not claimed yet. */
  async request(sample: OrderSample, sshPublicKeys: readonly string[] = []): Promise<Item> {
    const { isStatic, gateway } = this.#bench
    const machine = isStatic ? await this.#freeMachine() : undefined
    const id = randomUUID()
    const desired = {
      operation: Operation.PROVISION,
      presence: Presence.PRESENT,
      spec: this.#spec(id, sample, sshPublicKeys),
      ...(machine !== undefined && { machine }),
    }
    return gateway.add(new Item(ItemKind.MACHINE_REQUEST, desired, id))
  }

  /** A static machine as an item of its own, with nothing wished of it but to be verified. @param externalId by default that of a free one. */
  async machine(externalId?: string): Promise<Item> {
    const machine = externalId === undefined ? await this.#freeMachine() : this.#wireMachine({ externalId })
    const desired = { operation: Operation.VERIFY, presence: Presence.PRESENT, machine }
    return this.#bench.gateway.add(new Item(ItemKind.MACHINE, desired, machine.machineId))
  }

  /** An order as a hub would send it. @param id of the request. */
  #spec(
    id: string,
    { typeId = '', location = '', shape, providerData }: OrderSample,
    sshPublicKeys: readonly string[],
  ) {
    const { gateway, canaries, extraData } = this.#bench
    const hex = randomBytes(4).toString('hex')
    const userData = `canary-user-data-${randomBytes(12).toString('hex')}`
    const phoneHomeToken = `canary-token-${randomBytes(12).toString('hex')}`
    canaries.set(userData, 'the user-data')
    canaries.set(phoneHomeToken, 'the phone-home token')
    this.#names += 1
    const hostname = `kit-${hex}`
    return {
      name: `kit-${hex}-${this.#names}`,
      ownershipKey: `${gateway.hubId}/${id}`,
      typeId,
      location,
      ...(shape !== undefined && {
        shape: { ...shape, memoryMib: BigInt(shape.memoryMib), diskGib: BigInt(shape.diskGib) },
      }),
      providerData: { ...providerData, ...extraData } as never,
      bootstrap: {
        hostname,
        userData: `#cloud-config\n# ${userData}\n`,
        phoneHomeToken,
        sshPublicKeys: [...sshPublicKeys],
      },
      host: {
        host: `workspaces/kit/hosts/${hostname}`,
        hostUid: randomUUID(),
        workspace: 'kit',
        machineClass: 'kit',
        labels: { purpose: 'conformance' },
      },
    }
  }

  async #freeMachine() {
    const { instances } = this.#bench
    const found = await this.#bench.until('a machine in the inventory that is free', async () => {
      const { things } = await this.#bench.truth()
      const busy = new Set(things.filter(({ ownershipKey }) => ownershipKey !== '').map(({ externalId }) => externalId))
      const listed = instances.flatMap(({ sessions }) => sessions.flatMap((session) => session.all('inventory')))
      return listed
        .flatMap(({ machines }) => machines)
        .find(({ externalId }) => !busy.has(externalId) && !this.#allocated.has(externalId))
    })
    this.#allocated.add(found.externalId)
    return this.#wireMachine(found)
  }

  #wireMachine({ externalId, providerData }: Machine) {
    const machineId = this.#machineIds.get(externalId) ?? randomUUID()
    this.#machineIds.set(externalId, machineId)
    return { machineId, externalId, ...(providerData !== undefined && { providerData }) }
  }
}
