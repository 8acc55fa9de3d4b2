import { fromJson, toJson, type DescField, type DescMethod, type DescService, type JsonValue } from '@bufbuild/protobuf'
import { Code, ConnectError, createContextValues, type Transport } from '@connectrpc/connect'
import { createGrpcTransport } from '@connectrpc/connect-node'
import * as hub from '@slipway/proto/hub/v1'
import { SlipwayError } from '@slipway/sdk/client'
import type { Names, Which } from './cases.js'

// Calls of every method that the contract has, made up from its descriptors.

/** Every service of the client API. */
export const services: readonly DescService[] = (Object.values(hub) as readonly unknown[]).filter(
  (exported): exported is DescService =>
    typeof exported === 'object' && exported !== null && 'kind' in exported && exported.kind === 'service',
)
export const methods: readonly DescMethod[] = services.flatMap((service) => service.methods)

/** What each service is about, and beneath what it is made and listed. */
const subjects: Readonly<Record<string, { readonly sort: string; readonly parent?: string }>> = {
  OrganizationService: { sort: 'organization' },
  WorkspaceService: { sort: 'workspace', parent: 'organization' },
  PrincipalService: { sort: 'principal', parent: 'organization' },
  RoleBindingService: { sort: 'binding', parent: 'organization' },
  TokenService: { sort: 'token' },
  IdentityService: { sort: 'identity', parent: 'person' },
  SignInService: { sort: 'hub' },
  AuditService: { sort: 'hub', parent: 'organization' },
  SecretService: { sort: 'secret', parent: 'organization' },
  QuotaService: { sort: 'quota', parent: 'organization' },
  PriceListService: { sort: 'pricelist' },
  BillingAgreementService: { sort: 'agreement', parent: 'organization' },
  CatalogService: { sort: 'hub', parent: 'workspace' },
  UsageService: { sort: 'hub', parent: 'workspace' },
  HostService: { sort: 'host', parent: 'workspace' },
  HostSetService: { sort: 'hostset', parent: 'workspace' },
  MachineService: { sort: 'machine' },
  MachineRequestService: { sort: 'request' },
  MachineClassService: { sort: 'class' },
  ProviderService: { sort: 'provider' },
  ProviderPoolService: { sort: 'pool' },
  OrphanService: { sort: 'orphan', parent: 'provider' },
  EventService: { sort: 'event' },
  SystemService: { sort: 'hub' },
  BootstrapService: { sort: 'hub' },
}

export interface Subject {
  readonly sort: string
  readonly parent?: string
}

/** @throws Error for a service that nobody has said it of. */
export function subjectOf(method: DescMethod): Subject {
  const subject = subjects[method.parent.name]
  if (subject === undefined)
    throw new Error(`say in test/authorization/calls.ts what ${method.parent.name} is about, so that it is tried`)
  return subject
}

/** What a request of a method needs beside the names that every one has. */
const more: Readonly<Record<string, (names: Names, which: Which) => object>> = {
  CreateHost: () => ({ host: { machineClass: 'machineClasses/small' } }),
  CreateHostSet: () => ({ hostSet: { template: { machineClass: 'machineClasses/small' } } }),
  CreatePrincipal: () => ({ principal: { kind: 'PRINCIPAL_KIND_SERVICE_ACCOUNT' } }),
  CreateSecret: () => ({ secret: { data: { a: 'b' } } }),
  CreateQuota: () => ({ quota: { maxHosts: '1000' } }),
  CreatePriceList: () => ({ priceList: { displayName: 'made' } }),
  CreateBillingAgreement: () => ({ billingAgreement: { displayName: 'made' } }),
  CreateProvider: () => ({ provider: { family: 'simulated', kind: 'PROVIDER_KIND_DYNAMIC' } }),
  CreateProviderPool: () => ({ providerPool: { family: 'simulated' } }),
  ClaimProvider: (names, which) => ({ workspace: names['workspace']?.[which] ?? '' }),
  ReleaseProvider: (names, which) => ({ name: names['pooled']?.[which] ?? 'providers/absent' }),
  SetWorkspaceShare: () => ({ share: { weight: 3 } }),
  CreateMachineClass: () => ({ machineClass: { shape: { vcpus: 1 } } }),
  CreateRoleBinding: (names, which) => ({
    roleBinding: {
      principal: names['principal']?.[which] ?? 'organizations/own/principals/member',
      role: 'ROLE_OPERATOR',
    },
  }),
  CreateIdentity: (names, which) => ({
    identity: { issuer: names['person']?.[which]?.split('/')[1] ?? 'own', subject: `somebody-${++count}` },
  }),
  SignIn: () => ({ issuer: 'absent', idToken: 'x' }),
  CreateToken: (names, which) => ({ principal: names['principal']?.[which] ?? '' }),
  CreateJoinToken: (names, which) => ({ provider: names['provider']?.[which] ?? '' }),
  SetMachinePower: () => ({ action: 'POWER_ACTION_ON' }),
  SetMachineRescue: () => ({ enabled: true, sshKeys: ['admins'] }),
  SetMachineMaintenance: () => ({ enabled: true, reason: 'because' }),
  HoldMachine: () => ({ reason: 'because' }),
  AdoptMachine: (names, which) => ({
    parent: names['workspace']?.[which] ?? 'workspaces/default',
    hostId: `adopted-${++count}`,
  }),
  AdoptHost: (_names, which) => ({
    hostId: `adopted-${++count}`,
    provider:
      { own: 'providers/own-a-cloud', sibling: 'providers/own-b-cloud', foreign: 'providers/foreign-cloud' }[
        which as string
      ] ?? 'providers/absent',
    externalId: `s-${count}`,
    machineClass: 'machineClasses/small',
  }),
  MoveMachine: () => ({ provider: 'providers/elsewhere' }),
  ForgetMachineRequest: () => ({ reason: 'because' }),
  RemoveOrphan: () => ({ confirmExternalId: 'o-000000000001' }),
  KeepOrphan: () => ({ reason: 'because' }),
  PhoneHome: () => ({ token: 'x'.repeat(32) }),
}

let count = 0

/** What a method is to be asked in a case; undefined: the case makes no sense for it. */
export function requestOf(method: DescMethod, names: Names, which: Which, fresh?: string): JsonValue | undefined {
  const { sort, parent } = subjectOf(method)
  const fields = new Map(method.input.fields.map((field) => [field.localName, field]))
  const name = fresh ?? names[sort]?.[which]
  const request: Record<string, unknown> = {}
  let named = false
  if (fields.has('name') && !/^(Watch|List)/.test(method.name)) {
    if (name === undefined) return undefined
    request['name'] = name
    named = true
  }
  if (fields.has('parent') && parent !== undefined) {
    const parentName = names[parent]?.[which]
    if (parentName === undefined) return undefined
    request['parent'] = parentName
    named = true
  }
  const resource = /^Update(.+)$/.exec(method.name)?.[1]
  if (resource !== undefined) {
    const field = method.input.fields.find((each) => each.message?.name === resource)
    if (field === undefined || name === undefined) return undefined
    request[field.localName] = {
      name,
      ...(hasField(field, 'annotations')
        ? { annotations: { touched: String(++count) } }
        : { displayName: `touched-${++count}` }),
    }
    request['updateMask'] = hasField(field, 'annotations') ? 'annotations' : 'displayName'
    named = true
  }
  for (const field of method.input.fields)
    if (/^Create/.test(method.name) && /Id$/.test(field.localName) && field.localName !== 'requestId')
      request[field.localName] = `made-${++count}`
  const extra = more[method.name]?.(names, which) ?? {}
  if (
    Object.keys(extra).some((key) => key === 'principal' || key === 'provider') &&
    !['CreatePrincipal', 'CreateProvider', 'MoveMachine', 'AdoptHost'].includes(method.name)
  ) {
    if (Object.values(extra).includes('')) return undefined
    named = true
  }
  // A method that names nothing is the same in every case.
  return named || which === 'own' ? ({ ...request, ...extra } as JsonValue) : undefined
}

function hasField(field: DescField, name: string): boolean {
  return field.message?.fields.some((each) => each.localName === name) ?? false
}

/** How a call ended. */
export interface Outcome {
  /** `ok`: it was let through, whatever came of it then. */
  readonly kind: 'ok' | 'denied' | 'hidden' | 'unauthenticated'
  readonly code: string
  readonly reason: string
  readonly message: string
  /** What was answered, as JSON; empty where it was refused. */
  readonly answer: string
}

export class Caller {
  readonly #transport: Transport

  constructor(baseUrl: string, token: string) {
    this.#transport = createGrpcTransport({
      baseUrl,
      interceptors: [
        (next) => (request) => {
          if (token !== '') request.header.set('authorization', `Bearer ${token}`)
          return next(request)
        },
      ],
    })
  }

  async call(method: DescMethod, request: JsonValue): Promise<Outcome> {
    try {
      const answers = await this.#answers(method, request)
      return { kind: 'ok', code: 'OK', reason: '', message: '', answer: JSON.stringify(answers) }
    } catch (thrown) {
      return outcomeOf(thrown)
    }
  }

  /** What a watch tells, as JSON, until it is told to stop. */
  async *watch(method: DescMethod, request: JsonValue, signal: AbortSignal): AsyncGenerator<string> {
    const input = fromJson(method.input, request)
    const stream = await this.#transport.stream(
      method as never,
      signal,
      undefined,
      undefined,
      (async function* () {
        yield input
      })(),
      createContextValues(),
    )
    for await (const message of stream.message) yield JSON.stringify(toJson(method.output, message))
  }

  async #answers(method: DescMethod, request: JsonValue): Promise<JsonValue[]> {
    if (method.methodKind === 'unary') {
      const input = fromJson(method.input, request)
      const response = await this.#transport.unary(method as never, undefined, 30_000, undefined, input)
      return [toJson(method.output, response.message)]
    }
    // What exists, or the first sign of life.
    const stop = new AbortController()
    const answers: JsonValue[] = []
    for await (const text of this.watch(method, request, stop.signal)) {
      const message = JSON.parse(text) as { readonly synced?: boolean; readonly changes?: readonly unknown[] }
      answers.push(message as JsonValue)
      if (message.synced === true || message.changes === undefined) break
    }
    stop.abort()
    return answers
  }
}

function outcomeOf(thrown: unknown): Outcome {
  const error = ConnectError.from(thrown)
  const { reason } = SlipwayError.of(error)
  const kind =
    error.code === Code.NotFound
      ? 'hidden'
      : error.code === Code.PermissionDenied
        ? 'denied'
        : error.code === Code.Unauthenticated
          ? 'unauthenticated'
          : 'ok'
  return { kind, code: Code[error.code], reason, message: error.rawMessage, answer: '' }
}
