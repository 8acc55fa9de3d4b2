// The parts of a provider process, for tests that put them together in another way than {@link runProvider}: on a simulated network, in virtual time.
export { Engine, type EngineOptions } from '../provider/engine.js'
export { serveEngine } from '../provider/run.js'
export type { AnyDefinition } from '../provider/settings.js'
export type { ConnectOptions, Dialed } from '../internal/grpc.js'
export type { Identity } from '../internal/identity.js'
