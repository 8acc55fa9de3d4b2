import { fromBinary, toBinary, type DescMessage, type DescMethod, type MessageShape } from '@bufbuild/protobuf'
import { Client, credentials, Metadata, type ClientDuplexStream } from '@grpc/grpc-js'
import { ProviderService, type SessionRequest, type SessionResponse } from '@slipway/proto/provider/v1'
import { FinalError } from './rpc-error.js'

/** Every hub certificate carries this name, so that any replica's address will do while its authority is pinned. */
export const gatewayServerName = 'gateway.slipway.internal'

/** The most that goes into one frame, either way. */
export const maxFrameBytes = 4 * 1024 * 1024

/** The path, encoders and decoders of a method, as grpc-js wants them. */
export function methodCodec<Input extends DescMessage, Output extends DescMessage>(
  method: DescMethod & { input: Input; output: Output },
) {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    serializeRequest: (message: MessageShape<Input>) => encode(method.input, message),
    deserializeRequest: (bytes: Uint8Array) => fromBinary(method.input, bytes),
    serializeResponse: (message: MessageShape<Output>) => encode(method.output, message),
    deserializeResponse: (bytes: Uint8Array) => fromBinary(method.output, bytes),
  }
}

function encode<Desc extends DescMessage>(desc: Desc, message: MessageShape<Desc>): Buffer {
  const bytes = toBinary(desc, message)
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Where a hub is. */
export interface GatewayAddress {
  readonly host: string
  readonly port: number
}

/** Reads `host:port`, with brackets around an IPv6 address. @throws FinalError that says what is expected. */
export function parseGateway(text: string): GatewayAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/[\]]+)):(\d{1,5})$/.exec(text.trim())
  const port = Number(match?.[3] ?? 0)
  if (match === null || port < 1 || port > 65_535) {
    throw new FinalError(
      'GATEWAY_INVALID',
      `"${text}" is not a gateway address; give host:port, for example hub.example.org:8443`,
    )
  }
  return { host: match[1] ?? match[2] ?? '', port }
}

export interface ConnectOptions {
  readonly gateway: GatewayAddress
  readonly caPems: readonly string[]
  /** Absent: without a client certificate, to enrol. */
  readonly client?: { readonly keyPem: string; readonly certificatePem: string }
  /** How long the peer may be silent before it is asked, and how long it may take to answer. */
  readonly keepaliveMs: number
}

/** A client with a connection of its own: each session may reach another replica, and sees its own certificate. */
export function openClient(options: ConnectOptions): Client {
  const { host, port } = options.gateway
  const channelCredentials = credentials.createSsl(
    Buffer.from(options.caPems.join('\n')),
    options.client === undefined ? null : Buffer.from(options.client.keyPem),
    options.client === undefined ? null : Buffer.from(options.client.certificatePem),
  )
  return new Client(`dns:${host.includes(':') ? `[${host}]` : host}:${port}`, channelCredentials, {
    'grpc.ssl_target_name_override': gatewayServerName,
    'grpc.default_authority': gatewayServerName,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.keepalive_time_ms': options.keepaliveMs,
    'grpc.keepalive_timeout_ms': options.keepaliveMs,
    'grpc.max_receive_message_length': maxFrameBytes,
    'grpc.max_send_message_length': maxFrameBytes,
    'grpc.service_config_disable_resolution': 1,
    'grpc.enable_retries': 0,
    'grpc.enable_http_proxy': 0,
  })
}

/** A connection with the one session stream on it. */
export interface Dialed {
  readonly client: Pick<Client, 'close'>
  readonly stream: ClientDuplexStream<SessionRequest, SessionResponse>
}

/** Opens a connection of its own, and a session on it. Nothing is awaited: what goes wrong is told by the stream. */
export function dialSession(options: ConnectOptions): Dialed & { readonly client: Client } {
  const client = openClient(options)
  return { client, stream: openStream(client, ProviderService.method.session) }
}

/** One unary call. @throws grpc-js's ServiceError. */
export function callUnary<Input extends DescMessage, Output extends DescMessage>(
  client: Client,
  method: DescMethod & { input: Input; output: Output },
  request: MessageShape<Input>,
  deadlineMs: number,
): Promise<MessageShape<Output>> {
  const codec = methodCodec(method)
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      codec.path,
      codec.serializeRequest,
      codec.deserializeResponse,
      request,
      new Metadata(),
      { deadline: Date.now() + deadlineMs },
      (error, response) => {
        if (error === null && response !== undefined) resolve(response)
        else reject(error ?? new Error(`${codec.path} gave no answer`))
      },
    )
  })
}

/** Opens a stream both ways. */
export function openStream<Input extends DescMessage, Output extends DescMessage>(
  client: Client,
  method: DescMethod & { input: Input; output: Output },
): ClientDuplexStream<MessageShape<Input>, MessageShape<Output>> {
  const codec = methodCodec(method)
  return client.makeBidiStreamRequest(codec.path, codec.serializeRequest, codec.deserializeResponse, new Metadata())
}
