import { randomBytes } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import { Client, credentials, Metadata } from '@grpc/grpc-js'
import * as hub from '@slipway/proto/hub/v1'
import { methodCodec } from '@slipway/sdk/testing'

const codec = methodCodec(hub.HostService.method.createHost)

/** Places orders over bare grpc-js: the client costs as little as it can, and the same for whoever serves. */
export class OrderClient {
  readonly #clients: readonly Client[]
  readonly #metadata = new Metadata()
  readonly #run = randomBytes(4).toString('hex')
  #next = 0

  /** @param url of the client API, without TLS. */
  constructor(url: string, token: string, connections = 4) {
    const address = url.replace(/^http:\/\//, '')
    this.#clients = Array.from(
      { length: connections },
      () => new Client(address, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 }),
    )
    this.#metadata.set('authorization', `Bearer ${token}`)
  }

  /** The name of the next host. */
  nextId(): string {
    return `h${this.#run}-${++this.#next}`
  }

  /** Resolves once the order is stored. */
  order(id: string, machineClass: string): Promise<void> {
    const request = create(hub.CreateHostRequestSchema, {
      parent: 'workspaces/default',
      hostId: id,
      host: { machineClass: `machineClasses/${machineClass}` },
      requestId: id,
    })
    const client = this.#clients[this.#next % this.#clients.length]
    return new Promise((resolve, reject) => {
      client?.makeUnaryRequest(
        codec.path,
        codec.serializeRequest,
        codec.deserializeResponse,
        request,
        this.#metadata,
        (error) => (error === null ? resolve() : reject(error)),
      )
    })
  }

  close(): void {
    for (const client of this.#clients) client.close()
  }
}
