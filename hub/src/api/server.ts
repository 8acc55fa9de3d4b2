import { setMaxListeners } from 'node:events'
import type { DescService } from '@bufbuild/protobuf'
import { connectNodeAdapter, compressionGzip } from '@connectrpc/connect-node'
import { healthV1, reflectionV1, reflectionV1Alpha } from '@slipway/proto/grpc'
import * as hub from '@slipway/proto/hub/v1'
import { readChangesAfter, readEventsAfter } from '../store/changes.js'
import type { ApiDeps } from './context.js'
import { Feed } from './feed.js'
import { hostService } from './hosts.js'
import { authentication, funnel, validation } from './interceptors.js'
import { listen } from './listener.js'
import { machineClassService } from './machine-classes.js'
import { machineRequestService } from './machine-requests.js'
import { machineService } from './machines.js'
import { orphanService } from './orphans.js'
import { bootstrapService, eventService, systemService } from './other-services.js'
import { plainHttp } from './plain-http.js'
import { providerService } from './providers.js'
import { HealthStatus, reflectionServices } from './standard.js'

export type { ApiConfig, ApiDeps } from './context.js'

const maxTimeoutMs = 24 * 3_600_000

const services: readonly DescService[] = [
  hub.ProviderService,
  hub.MachineClassService,
  hub.MachineService,
  hub.MachineRequestService,
  hub.HostService,
  hub.OrphanService,
  hub.EventService,
  hub.BootstrapService,
  hub.SystemService,
]

export interface ApiServer {
  /** Base URL. */
  readonly url: string
  readonly port: number
  /** Ends watches with DRAINING, lets calls end, and closes. */
  drain(deadlineMs: number): Promise<void>
}

/** Serves the client API: gRPC, gRPC-Web and Connect with JSON, and health and reflection beside it, on one port. */
export async function startApi(deps: ApiDeps): Promise<ApiServer> {
  const { db, wake, epoch, config } = deps
  const log = deps.log.child({ component: 'api' })
  const draining = new AbortController()
  // Each open call listens until it ends, and Connect takes it off again: as many as there are watchers, which is no leak.
  setMaxListeners(0, draining.signal)
  const changes = new Feed({ db, wake, epoch, log, read: readChangesAfter })
  const events = new Feed({ db, wake, epoch, log, read: readEventsAfter })
  const parts = { deps, feed: changes, draining: draining.signal }
  const health = new HealthStatus(services.map((service) => service.typeName))
  const fallback = plainHttp(deps, () => draining.signal.aborted)
  const handler = connectNodeAdapter({
    routes: (router) => {
      router.service(hub.ProviderService, providerService(deps, parts))
      router.service(hub.MachineClassService, machineClassService(deps, parts))
      router.service(hub.MachineService, machineService(deps, parts))
      router.service(hub.MachineRequestService, machineRequestService(deps, parts))
      router.service(hub.HostService, hostService(deps, parts))
      router.service(hub.OrphanService, orphanService(deps))
      router.service(hub.EventService, eventService(deps, events, draining.signal))
      router.service(hub.BootstrapService, bootstrapService(deps))
      router.service(hub.SystemService, systemService(deps))
      router.service(healthV1.Health, health.service())
      if (!config.reflection) return
      const reflection = reflectionServices([...services, healthV1.Health])
      router.service(reflectionV1.ServerReflection, reflection.v1)
      router.service(reflectionV1Alpha.ServerReflection, reflection.v1alpha)
    },
    fallback: fallback as never,
    interceptors: [funnel({ ...deps, log }), authentication(deps), validation()],
    // A misspelt key is refused and not ignored.
    jsonOptions: { ignoreUnknownFields: false },
    readMaxBytes: config.maxMessageBytes,
    maxTimeoutMs,
    // Decompressing Brotli has had holes in Node lines that are still about; gzip serves everyone.
    acceptCompression: [compressionGzip],
    shutdownSignal: draining.signal,
  })
  const listener = await listen(config, handler, log)
  log.info({ url: listener.url }, 'client API listens')
  return {
    url: listener.url,
    port: listener.port,
    drain: async (deadlineMs) => {
      health.stopServing()
      draining.abort()
      await listener.close(deadlineMs)
      changes.stop()
      events.stop()
    },
  }
}
