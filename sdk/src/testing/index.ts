// For tests and benchmarks that speak the protocol without the runtime, or that put the parts of a provider's process together in another way than `runProvider`.
export { TestAuthority, type KeyAndCertificate } from '../conformance/gateway/authority.js'
export { enrol } from '../internal/enrol.js'
export {
  callUnary,
  gatewayServerName,
  methodCodec,
  openClient,
  openStream,
  parseGateway,
  type ConnectOptions,
  type Dialed,
  type GatewayAddress,
} from '../internal/grpc.js'
export { certificatePem, makeSigningRequest } from '../internal/csr.js'
export type { Identity } from '../internal/identity.js'
export { parseJoinToken } from '../internal/join-token.js'
export { defineProvider } from '../provider/define.js'
export { Engine, type EngineOptions } from '../provider/engine.js'
export { ProviderError } from '../provider/errors.js'
export { serveEngine } from '../provider/run.js'
export type { AnyDefinition } from '../provider/settings.js'
export type { Shape, WorkContext } from '../provider/types.js'
