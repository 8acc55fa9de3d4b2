import { setMaxListeners } from 'node:events'
import type { DescService } from '@bufbuild/protobuf'
import { createConnectRouter, createContextValues } from '@connectrpc/connect'
import { compressionGzip } from '@connectrpc/connect-node'
import { healthV1, reflectionV1, reflectionV1Alpha } from '@slipway/proto/grpc'
import * as hub from '@slipway/proto/hub/v1'
import { readChangesAfter, readEventsAfter } from '../store/changes.js'
import type { ApiDeps } from './context.js'
import { Feed } from './feed.js'
import { sourceKey } from './access.js'
import { auditService } from './audit.js'
import { authorization, Policy } from './authorization.js'
import { Callers } from './callers.js'
import { DenialLog } from './denials.js'
import { hostSetService } from './host-sets.js'
import { hostService } from './hosts.js'
import { authentication, funnel, validation } from './interceptors.js'
import { listen } from './listener.js'
import { machineClassService } from './machine-classes.js'
import { machineRequestService } from './machine-requests.js'
import { machineService } from './machines.js'
import { nodeHandler } from './node-handler.js'
import { orphanService } from './orphans.js'
import { organizationService } from './organizations.js'
import { requireRules } from './policy-table.js'
import { principalService } from './principals.js'
import { roleBindingService } from './role-bindings.js'
import { identityService } from './identities.js'
import { signInService } from './sign-in.js'
import { tokenService } from './tokens.js'
import { workspaceService } from './workspaces.js'
import { bootstrapService, eventService, systemService } from './other-services.js'
import { plainHttp } from './plain-http.js'
import { providerPoolService } from './provider-pools.js'
import { providerService } from './providers.js'
import { billingAgreementService } from './billing-agreements.js'
import { catalogService } from './catalog.js'
import { priceListService } from './price-lists.js'
import { quotaService } from './quotas.js'
import { secretService } from './secrets.js'
import { usageService } from './usage.js'
import { HealthStatus, reflectionServices } from './standard.js'

export type { ApiConfig, ApiDeps } from './context.js'

const maxTimeoutMs = 24 * 3_600_000

const services: readonly DescService[] = [
  hub.OrganizationService,
  hub.WorkspaceService,
  hub.PrincipalService,
  hub.RoleBindingService,
  hub.TokenService,
  hub.IdentityService,
  hub.SignInService,
  hub.AuditService,
  hub.ProviderService,
  hub.ProviderPoolService,
  hub.SecretService,
  hub.QuotaService,
  hub.PriceListService,
  hub.BillingAgreementService,
  hub.CatalogService,
  hub.UsageService,
  hub.MachineClassService,
  hub.MachineService,
  hub.MachineRequestService,
  hub.HostService,
  hub.HostSetService,
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
  requireRules(services)
  const log = deps.log.child({ component: 'api' })
  const draining = new AbortController()
  // Each open call listens until it ends, and Connect takes it off again: as many as there are watchers, which is no leak.
  setMaxListeners(0, draining.signal)
  const changes = new Feed({ db, wake, epoch, log, read: readChangesAfter })
  const events = new Feed({ db, wake, epoch, log, read: readEventsAfter })
  const parts = { deps, feed: changes, draining: draining.signal }
  const health = new HealthStatus(services.map((service) => service.typeName))
  const callers = new Callers({ db, wake, log })
  const denials = new DenialLog(db, log)
  const policy = new Policy(db)
  const router = createConnectRouter({
    interceptors: [
      ...(deps.interceptors ?? []),
      funnel({ ...deps, log }),
      authentication(callers),
      validation(),
      authorization(policy, (denial) => denials.note(denial)),
    ],
    // A misspelt key is refused and not ignored.
    jsonOptions: { ignoreUnknownFields: false },
    readMaxBytes: config.maxMessageBytes,
    maxTimeoutMs,
    // Decompressing Brotli has had holes in Node lines that are still about; gzip serves everyone.
    acceptCompression: [compressionGzip],
    shutdownSignal: draining.signal,
  })
  router.service(hub.OrganizationService, organizationService(deps, parts))
  router.service(hub.WorkspaceService, workspaceService(deps, parts))
  router.service(hub.PrincipalService, principalService(deps, parts))
  router.service(hub.RoleBindingService, roleBindingService(deps))
  router.service(hub.TokenService, tokenService(deps))
  router.service(hub.IdentityService, identityService(deps))
  router.service(hub.SignInService, signInService({ ...deps, log }, denials))
  router.service(hub.AuditService, auditService(deps))
  router.service(hub.ProviderService, providerService(deps, parts))
  router.service(hub.ProviderPoolService, providerPoolService(deps))
  router.service(hub.SecretService, secretService(deps))
  router.service(hub.QuotaService, quotaService(deps))
  router.service(hub.PriceListService, priceListService(deps))
  router.service(hub.BillingAgreementService, billingAgreementService(deps))
  router.service(hub.CatalogService, catalogService(deps))
  router.service(hub.UsageService, usageService(deps))
  router.service(hub.MachineClassService, machineClassService(deps, parts))
  router.service(hub.MachineService, machineService(deps, parts))
  router.service(hub.MachineRequestService, machineRequestService(deps, parts))
  router.service(hub.HostService, hostService(deps, parts))
  router.service(hub.HostSetService, hostSetService(deps, parts))
  router.service(hub.OrphanService, orphanService(deps))
  router.service(hub.EventService, eventService(deps, events, draining.signal))
  router.service(hub.BootstrapService, bootstrapService(deps))
  router.service(hub.SystemService, systemService(deps))
  router.service(healthV1.Health, health.service())
  if (config.reflection) {
    const reflection = reflectionServices([...services, healthV1.Health])
    router.service(reflectionV1.ServerReflection, reflection.v1)
    router.service(reflectionV1Alpha.ServerReflection, reflection.v1alpha)
  }
  const handler = nodeHandler(router, {
    contextValues: (request) => createContextValues().set(sourceKey, request.socket.remoteAddress ?? ''),
    fallback: plainHttp(deps, () => draining.signal.aborted),
    log,
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
      await callers.stop()
      await denials.stop()
      changes.stop()
      events.stop()
    },
  }
}
