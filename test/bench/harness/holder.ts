import { connect, type ClientHttp2Session, type ClientHttp2Stream } from 'node:http2'
import { create, toBinary } from '@bufbuild/protobuf'
import { gatewayServerName, type GatewayAddress, type Identity } from '@slipway/sdk/testing'
import {
  ProviderMessageSchema,
  ProviderService,
  SessionRequestSchema,
  type ProviderMessage,
} from '@slipway/proto/provider/v1'
import { heartbeat, hello } from './session.js'

// A process that holds many sessions open, over bare HTTP/2 so that it costs little: it says hello and gives signs of life, and connects again when it is cut off.

export interface HolderSettings {
  readonly gateway: GatewayAddress
  readonly identities: readonly Identity[]
  readonly sessions: number
  readonly heartbeatMs: number
}

const settings = JSON.parse(process.env['SLIPWAY_HOLDER'] ?? '{}') as HolderSettings
/** Handshakes of this process that are under way at a time. */
const openingAtMost = 32
const retryMs = 500

const path = `/${ProviderService.typeName}/${ProviderService.method.session.name}`
const sign = frame(heartbeat())
const waiting: Held[] = []
let opening = 0
let up = 0

function frame(body: ProviderMessage['body']): Buffer {
  const bytes = toBinary(
    SessionRequestSchema,
    create(SessionRequestSchema, { messages: [create(ProviderMessageSchema, { body })] }),
  )
  const framed = Buffer.alloc(5 + bytes.length)
  framed.writeUInt32BE(bytes.length, 1)
  framed.set(bytes, 5)
  return framed
}

class Held {
  readonly #identity: Identity
  readonly #hello: Buffer
  #session: ClientHttp2Session | undefined
  #stream: ClientHttp2Stream | undefined
  #state: 'waiting' | 'opening' | 'up' = 'waiting'

  constructor(index: number) {
    const identity = settings.identities[index % settings.identities.length]
    if (identity === undefined) throw new Error('no identity')
    this.#identity = identity
    this.#hello = frame(hello(`h${process.pid}-${index}`))
  }

  open(): void {
    this.#state = 'opening'
    const { host, port } = settings.gateway
    const session = connect(`https://${host}:${port}`, {
      servername: gatewayServerName,
      ca: this.#identity.caPems.join('\n'),
      key: this.#identity.keyPem,
      cert: this.#identity.certificatePem,
    })
    this.#session = session
    session.on('error', () => undefined)
    session.on('close', () => this.#lost(session))
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      ':authority': gatewayServerName,
      'content-type': 'application/grpc+proto',
      te: 'trailers',
    })
    this.#stream = stream
    stream.on('error', () => undefined)
    stream.once('data', () => this.#welcomed())
    stream.on('close', () => session.destroy())
    stream.resume()
    stream.write(this.#hello)
  }

  beat(): void {
    if (this.#state === 'up') this.#stream?.write(sign)
  }

  #welcomed(): void {
    if (this.#state !== 'opening') return
    this.#state = 'up'
    opening--
    up++
    next()
  }

  #lost(session: ClientHttp2Session): void {
    if (session !== this.#session) return
    if (this.#state === 'opening') opening--
    else if (this.#state === 'up') up--
    this.#state = 'waiting'
    setTimeout(() => {
      waiting.push(this)
      next()
    }, retryMs * Math.random())
    next()
  }
}

function next(): void {
  while (opening < openingAtMost) {
    const held = waiting.shift()
    if (held === undefined) return
    opening++
    held.open()
  }
}

const all = Array.from({ length: settings.sessions }, (_, index) => new Held(index))
waiting.push(...all)
next()

// Signs of life are spread over the interval, as those of many processes are.
const parts = 50
let part = 0
setInterval(() => {
  part = (part + 1) % parts
  for (let index = part; index < all.length; index += parts) all[index]?.beat()
}, settings.heartbeatMs / parts)

let told = -1
setInterval(() => {
  if (up === told) return
  told = up
  process.send?.({ up })
}, 50)
process.on('disconnect', () => process.exit(0))
process.on('SIGTERM', () => process.exit(0))
