import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient, type Client, type Interceptor } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import * as hub from '@slipway/proto/hub/v1'
import { SlipwayError } from './errors.js'
import { Sessions } from './sessions.js'

const maxTries = 5
const defaultTimeoutMs = 30_000

export interface ClientOptions {
  /** Base URL of the client API. */
  readonly baseUrl: string
  /** A client token. Secret. */
  readonly token?: string
  /** File with the authorities to trust, PEM, for a hub whose certificate the system does not know. */
  readonly caFile?: string
  /** For each try of a call. Default 30 s; watches have none. */
  readonly timeoutMs?: number
}

/** All services of a hub. Calls throw {@link SlipwayError}. */
export interface SlipwayClient {
  readonly organizations: Client<typeof hub.OrganizationService>
  readonly workspaces: Client<typeof hub.WorkspaceService>
  readonly principals: Client<typeof hub.PrincipalService>
  readonly roleBindings: Client<typeof hub.RoleBindingService>
  readonly tokens: Client<typeof hub.TokenService>
  readonly identities: Client<typeof hub.IdentityService>
  readonly signIn: Client<typeof hub.SignInService>
  readonly audit: Client<typeof hub.AuditService>
  readonly providers: Client<typeof hub.ProviderService>
  readonly providerPools: Client<typeof hub.ProviderPoolService>
  readonly secrets: Client<typeof hub.SecretService>
  readonly quotas: Client<typeof hub.QuotaService>
  readonly priceLists: Client<typeof hub.PriceListService>
  readonly billingAgreements: Client<typeof hub.BillingAgreementService>
  readonly catalog: Client<typeof hub.CatalogService>
  readonly usage: Client<typeof hub.UsageService>
  readonly machineClasses: Client<typeof hub.MachineClassService>
  readonly machines: Client<typeof hub.MachineService>
  readonly machineRequests: Client<typeof hub.MachineRequestService>
  readonly hosts: Client<typeof hub.HostService>
  readonly hostSets: Client<typeof hub.HostSetService>
  readonly orphans: Client<typeof hub.OrphanService>
  readonly events: Client<typeof hub.EventService>
  readonly system: Client<typeof hub.SystemService>
}

/** Connects to a hub. Nothing is sent before the first call. */
export function createSlipwayClient(options: ClientOptions): SlipwayClient {
  const { baseUrl, caFile } = options
  const trusted = caFile === undefined ? undefined : { ca: readFileSync(caFile) }
  const transport = createGrpcTransport({
    baseUrl,
    interceptors: [oneError, retrying, identified(options.token)],
    defaultTimeoutMs: options.timeoutMs ?? defaultTimeoutMs,
    sessionManager: new Sessions(baseUrl, { pingIntervalMs: 20_000 }, trusted),
  })
  return {
    organizations: createClient(hub.OrganizationService, transport),
    workspaces: createClient(hub.WorkspaceService, transport),
    principals: createClient(hub.PrincipalService, transport),
    roleBindings: createClient(hub.RoleBindingService, transport),
    tokens: createClient(hub.TokenService, transport),
    identities: createClient(hub.IdentityService, transport),
    signIn: createClient(hub.SignInService, transport),
    audit: createClient(hub.AuditService, transport),
    providers: createClient(hub.ProviderService, transport),
    providerPools: createClient(hub.ProviderPoolService, transport),
    secrets: createClient(hub.SecretService, transport),
    quotas: createClient(hub.QuotaService, transport),
    priceLists: createClient(hub.PriceListService, transport),
    billingAgreements: createClient(hub.BillingAgreementService, transport),
    catalog: createClient(hub.CatalogService, transport),
    usage: createClient(hub.UsageService, transport),
    machineClasses: createClient(hub.MachineClassService, transport),
    machines: createClient(hub.MachineService, transport),
    machineRequests: createClient(hub.MachineRequestService, transport),
    hosts: createClient(hub.HostService, transport),
    hostSets: createClient(hub.HostSetService, transport),
    orphans: createClient(hub.OrphanService, transport),
    events: createClient(hub.EventService, transport),
    system: createClient(hub.SystemService, transport),
  }
}

function identified(token: string | undefined): Interceptor {
  return (next) => (request) => {
    if (token !== undefined && token !== '') request.header.set('authorization', `Bearer ${token}`)
    if (!request.header.has('x-request-id')) request.header.set('x-request-id', randomUUID())
    return next(request)
  }
}

const oneError: Interceptor = (next) => async (request) => {
  try {
    const response = await next(request)
    return response.stream ? { ...response, message: translated(response.message) } : response
  } catch (thrown) {
    throw SlipwayError.of(thrown)
  }
}

async function* translated<Message>(messages: AsyncIterable<Message>): AsyncGenerator<Message> {
  try {
    yield* messages
  } catch (thrown) {
    throw SlipwayError.of(thrown)
  }
}

/** Tries again where the hub could not be reached and the call is safe to repeat: a read, or a create under an idempotency key. */
const retrying: Interceptor = (next) => async (request) => {
  if (request.stream) return next(request)
  const safe =
    /^(Get|List)/.test(request.method.name) || ('requestId' in request.message && request.message.requestId !== '')
  for (let attempt = 1; ; attempt++) {
    try {
      return await next(request)
    } catch (thrown) {
      const error = SlipwayError.of(thrown)
      if (!safe || !error.unavailable || attempt >= maxTries || request.signal.aborted) throw error
      await sleep(Math.max(error.retryAfterMs ?? 0, Math.random() * 100 * 2 ** attempt), undefined, {
        signal: request.signal,
      })
    }
  }
}
