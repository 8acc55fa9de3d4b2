import { createClient, type Client, type Transport } from '@connectrpc/connect'
import { createConnectTransport } from '@connectrpc/connect-node'
import type { DescService } from '@bufbuild/protobuf'
import * as api from '@slipway/proto/hub/v1'
import { randomBytes } from 'node:crypto'
import { canary } from './canary.js'

// Canaries, put through every door that takes a secret, of a hub in whatever state its test has left it. Calls may be refused, for a quota that is full or an owner that is gone: then
// it is the refusal that must not tell.

const timeoutMs = 10_000

/** Plants canaries in a hub that still answers; they are noted by whoever looks on at it. A hub that is gone is left alone. */
export async function plantCanaries(baseUrl: string, token: string): Promise<void> {
  const answers = await fetch(`${baseUrl}/healthz`, { signal: AbortSignal.timeout(timeoutMs) }).then(
    (response) => response.ok,
    () => false,
  )
  if (!answers) return
  const transport = createConnectTransport({
    baseUrl,
    httpVersion: '1.1',
    useBinaryFormat: false,
    defaultTimeoutMs: timeoutMs,
    interceptors: [
      (next) => (request) => {
        if (!request.header.has('authorization')) request.header.set('authorization', `Bearer ${token}`)
        return next(request)
      },
    ],
  })
  const id = `canary-${randomBytes(4).toString('hex')}`
  for (const call of doors(transport, id)) await call().catch(() => undefined)
}

function doors(transport: Transport, id: string): readonly (() => Promise<unknown>)[] {
  const of = <Service extends DescService>(service: Service): Client<Service> => createClient(service, transport)
  const [secrets, providers, hosts, tokens] = [
    of(api.SecretService),
    of(api.ProviderService),
    of(api.HostService),
    of(api.TokenService),
  ]
  const [parent, provider] = ['organizations/default', { family: id, kind: 2 }]
  const name = `${parent}/secrets/${id}`
  const data = () => ({ [id]: canary(), deep: [{ er: canary() }] })
  const stranger = { headers: { authorization: `Bearer swc_${randomBytes(8).toString('hex')}_${canary()}` } }
  const host = { machineClass: `machineClasses/${id}`, userData: canary() }
  return [
    () => secrets.createSecret({ parent, secretId: id, secret: { data: data() }, requestId: id }),
    () => secrets.createSecret({ parent, secretId: id, secret: { data: data() }, requestId: id }),
    () => secrets.createSecret({ parent, secretId: `${id}?`, secret: { data: data() } }),
    () => secrets.updateSecret({ secret: { name, data: data() }, updateMask: { paths: ['data'] } }),
    () => secrets.updateSecret({ secret: { name, etag: 'x', data: data() }, updateMask: { paths: ['data', 'x'] } }),
    () => providers.createProvider({ providerId: id, provider: { ...provider, credentials: data() }, requestId: id }),
    () => providers.createProvider({ providerId: id, provider: { ...provider, credentials: data() } }),
    () => providers.updateProvider({ provider: { name: `providers/${id}`, credentials: data() } }),
    () => providers.createJoinToken({ provider: `providers/${id}` }),
    () =>
      of(api.MachineClassService).createMachineClass({
        machineClassId: id,
        machineClass: { offerings: [{ family: id, typeId: id }] },
      }),
    () => hosts.createHost({ parent: 'workspaces/default', hostId: id, host, requestId: id }),
    () => hosts.createHost({ parent: 'workspaces/default', hostId: `-${id}`, host }),
    () => hosts.createHost({ parent: 'workspaces/none', hostId: id, host, validateOnly: true }),
    () => tokens.createToken({ principal: 'principals/administrator' }),
    () => of(api.SystemService).getServerInfo({}, stranger),
    () => of(api.SignInService).signIn({ issuer: id, idToken: `eyJ${canary()}.${canary()}.${canary()}` }),
    () => of(api.BootstrapService).phoneHome({ token: canary(), hostname: id }),
    () => secrets.listSecrets({ parent: 'organizations/-' }),
    () => providers.getProvider({ name: `providers/${id}` }),
    () => hosts.getHost({ name: `workspaces/default/hosts/${id}` }),
    () => of(api.EventService).listEvents({ pageSize: 100 }),
  ]
}
