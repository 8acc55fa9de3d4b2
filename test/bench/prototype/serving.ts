import type { DescMessage, DescService, MessageShape } from '@bufbuild/protobuf'
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import { Server, ServerCredentials, type MethodDefinition, type ServiceDefinition } from '@grpc/grpc-js'
import type { ServerDuplexStream } from '@grpc/grpc-js'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import {
  AckSchema,
  HubMessageSchema,
  ProviderService,
  SessionResponseSchema,
  WelcomeSchema,
  type HubMessage,
  type SessionRequest,
  type SessionResponse,
} from '@slipway/proto/provider/v1'

// What the bare servers share: grpc-js with the hub's contract and the hub's sort of TLS, and nothing of the hub itself.

export type Stream = ServerDuplexStream<SessionRequest, SessionResponse>

/** Where a bare server listens, and with what keys; given to it by its parent as JSON. */
export interface BareSettings {
  readonly gatewayPort: number
  readonly caPem: string
  readonly keyPem: string
  readonly certificatePem: string
  readonly apiPort?: number
  readonly databaseUrl?: string
}

export const readSettings = (): BareSettings => JSON.parse(process.env['SLIPWAY_BARE'] ?? '{}') as BareSettings

export function serviceDefinition(service: DescService): ServiceDefinition {
  const definition: Record<string, MethodDefinition<object, object>> = {}
  const encode = (schema: DescMessage) => (message: object) => {
    const bytes = toBinary(schema, message as MessageShape<typeof schema>)
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }
  for (const method of service.methods) {
    definition[method.localName] = {
      path: `/${service.typeName}/${method.name}`,
      requestStream: method.methodKind === 'client_streaming' || method.methodKind === 'bidi_streaming',
      responseStream: method.methodKind === 'server_streaming' || method.methodKind === 'bidi_streaming',
      requestSerialize: encode(method.input),
      requestDeserialize: (bytes) => fromBinary(method.input, bytes),
      responseSerialize: encode(method.output),
      responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    }
  }
  return definition
}

export const welcome = (): HubMessage['body'] => ({
  case: 'welcome',
  value: create(WelcomeSchema, {
    protocolVersion: 1,
    sessionId: crypto.randomUUID(),
    heartbeatInterval: durationFromMs(5_000),
    leaseDuration: durationFromMs(30_000),
  }),
})

export const ack = (sequence: bigint): HubMessage['body'] => ({
  case: 'ack',
  value: create(AckSchema, { sequence }),
})

export function write(stream: Stream, bodies: readonly HubMessage['body'][]): void {
  stream.write(create(SessionResponseSchema, { messages: bodies.map((body) => create(HubMessageSchema, { body })) }))
}

/** Serves sessions over mutual TLS. */
export async function serveSessions(settings: BareSettings, onSession: (stream: Stream) => void): Promise<void> {
  const server = new Server({ 'grpc.enable_channelz': 0 })
  server.addService(serviceDefinition(ProviderService), { session: onSession })
  const { caPem, keyPem, certificatePem } = settings
  const keys = [{ private_key: Buffer.from(keyPem), cert_chain: Buffer.from(certificatePem) }]
  await bind(server, settings.gatewayPort, ServerCredentials.createSsl(Buffer.from(caPem), keys, true))
}

export function bind(server: Server, port: number, credentials: ServerCredentials): Promise<number> {
  return new Promise((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${port}`, credentials, (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    )
  })
}

/** Tells the parent that it is up, and ends when asked to. */
export function up(): void {
  process.on('SIGTERM', () => process.exit(0))
  process.send?.({ up: true })
}
