import { randomBytes, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type Server } from 'node:https'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { TestAuthority } from '@slipway/sdk/testing'
import type { BmcSecret, RedfishSettings } from '../../src/power/settings.js'
import { SimulatedMachine } from './machine.js'

/** What BMCs do differently from each other. */
export interface RedfishQuirks {
  /** No sessions: each call carries the password. */
  basicOnly?: boolean
  /** PATCH wants If-Match: 428 without, 412 with an old one. */
  wantsEtag?: boolean
  /** Boot overrides go to a settings resource, for the next start. */
  pendingSettings?: boolean
  /** Reset is a task. */
  tasks?: boolean
  /** The reset types are behind an ActionInfo. */
  actionInfo?: boolean
  resetTypes?: readonly string[]
  /** Virtual media is at the manager, and changed by PATCH. */
  oldMedia?: boolean
  /** How many systems it has. */
  systems?: number
  /** Answers every call so, after the login. */
  always?: { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: string }
}

interface Reply {
  readonly status: number
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

type Handler = (method: string, body: Record<string, unknown>, request: IncomingMessage) => Reply | undefined

const root = '/redfish/v1'
const system = `${root}/Systems/one`
const manager = `${root}/Managers/bmc`
const media = (owner: string): string => `${owner}/VirtualMedia/cd`

/** A Redfish service in this process, of one machine that is not there. Built to be as odd as real ones. */
export class RedfishEmulator {
  readonly machine = new SimulatedMachine()
  readonly quirks: RedfishQuirks
  readonly secret: BmcSecret = { username: 'root', password: 'calvin-and-more' }
  readonly tokens = new Set<string>()
  /** Method and path of each call. */
  readonly calls: string[] = []
  image: string | null = null
  /** Somebody else changes the system just before our next change arrives. */
  interfere = false
  authority = ''
  fingerprint = ''
  port = 0
  #etag = 1
  #boot: Record<string, unknown> = {
    BootSourceOverrideEnabled: 'Disabled',
    BootSourceOverrideTarget: 'None',
    BootSourceOverrideMode: 'Legacy',
    'BootSourceOverrideTarget@Redfish.AllowableValues': ['None', 'Pxe', 'Hdd', 'Cd'],
  }
  #taskPolls = 0
  #server: Server | undefined

  private constructor(quirks: RedfishQuirks) {
    this.quirks = quirks
  }

  static async start(quirks: RedfishQuirks = {}): Promise<RedfishEmulator> {
    const emulator = new RedfishEmulator(quirks)
    const authority = await TestAuthority.create('Test BMCs')
    const { keyPem, certificatePem } = await authority.serverCertificate('localhost')
    emulator.authority = authority.certificatePem
    emulator.fingerprint = new X509Certificate(certificatePem).fingerprint256
    const server = createServer({ key: keyPem, cert: certificatePem }, (request, response) => {
      emulator.#serve(request, response).catch(() => response.destroy())
    })
    server.listen(0, 'localhost')
    await once(server, 'listening')
    const address = server.address()
    emulator.port = typeof address === 'object' && address !== null ? address.port : 0
    emulator.#server = server
    return emulator
  }

  get settings(): RedfishSettings {
    const endpoint = `https://localhost:${this.port}`
    const tls = { fingerprint: this.fingerprint.replaceAll(':', '').toLowerCase() }
    return { kind: 'redfish', endpoint, tls, timeoutMs: 20_000 }
  }

  get boot(): Readonly<Record<string, unknown>> {
    return this.#boot
  }

  async close(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    server.closeAllConnections()
    await new Promise<void>((resolve) => server.close(() => resolve()))
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = []
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part)
    const text = Buffer.concat(parts).toString()
    const body = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>
    const method = request.method ?? 'GET'
    this.calls.push(`${method} ${request.url ?? ''}`)
    const { status, headers = {}, body: answer } = this.#answer(method, request, body)
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(answer === undefined ? '' : typeof answer === 'string' ? answer : JSON.stringify(answer))
  }

  #answer(method: string, request: IncomingMessage, body: Record<string, unknown>): Reply {
    const path = (request.url ?? '').replace(/\/$/, '')
    if (path === root && method === 'GET') return serviceRoot
    if (path === `${root}/SessionService/Sessions` && method === 'POST') return this.#logIn(body)
    if (!this.#isLoggedIn(request)) return { status: 401, body: fault('Base.1.0.NoValidSession', 'log in') }
    const { always } = this.quirks
    if (always !== undefined) return { ...always }
    if (path.startsWith(`${root}/SessionService/Sessions/`) && method === 'DELETE') {
      this.tokens.delete(String(request.headers['x-auth-token']))
      return { status: 204 }
    }
    return (
      this.#resources()[path]?.(method, body, request) ?? {
        status: 404,
        body: fault('Base.1.0.ResourceMissing', 'no such thing'),
      }
    )
  }

  #logIn({ UserName, Password }: Record<string, unknown>): Reply {
    if (this.quirks.basicOnly === true) return { status: 404, body: '<html>not found</html>' }
    if (UserName !== this.secret.username || Password !== this.secret.password)
      return { status: 401, body: fault('Base.1.0.ResourceAtUriUnauthorized', 'wrong user or password') }
    const token = randomBytes(16).toString('hex')
    this.tokens.add(token)
    const location = `${root}/SessionService/Sessions/${this.tokens.size}`
    const body = { '@odata.id': location, Id: String(this.tokens.size), Name: 'Session', UserName }
    return { status: 201, headers: { 'x-auth-token': token, location }, body }
  }

  #isLoggedIn({ headers }: IncomingMessage): boolean {
    const { username, password } = this.secret
    const basic = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
    return this.quirks.basicOnly === true
      ? headers.authorization === basic
      : this.tokens.has(String(headers['x-auth-token']))
  }

  #resources(): Readonly<Record<string, Handler>> {
    const mediaOwner = this.quirks.oldMedia === true ? manager : system
    const systems = Array.from({ length: this.quirks.systems ?? 1 }, (_, index) =>
      index === 0 ? 'one' : `other-${index}`,
    )
    return {
      [`${root}/SessionService`]: () => ({
        status: 200,
        body: {
          '@odata.id': `${root}/SessionService`,
          Id: 'SessionService',
          Name: 'Sessions',
          Sessions: { '@odata.id': `${root}/SessionService/Sessions` },
        },
      }),
      [`${root}/Systems`]: () => list(systems.map((id) => `${root}/Systems/${id}`)),
      [system]: (method, body, request) => this.#systemAt(method, body, request),
      [`${system}/SD`]: (method, body, request) => this.#pendingAt(method, body, request),
      [`${system}/ResetInfo`]: () => ({
        status: 200,
        body: { Parameters: [{ Name: 'ResetType', AllowableValues: this.#resetTypes() }] },
      }),
      [`${system}/Actions/ComputerSystem.Reset`]: (method, body) => (method === 'POST' ? this.#reset(body) : undefined),
      [manager]: () => ({
        status: 200,
        body: {
          '@odata.id': manager,
          Id: 'bmc',
          Name: 'BMC',
          FirmwareVersion: '2.31',
          EthernetInterfaces: { '@odata.id': `${manager}/EthernetInterfaces` },
          ...(mediaOwner === manager && { VirtualMedia: { '@odata.id': `${manager}/VirtualMedia` } }),
        },
      }),
      [`${manager}/EthernetInterfaces`]: () => list([`${manager}/EthernetInterfaces/1`]),
      [`${manager}/EthernetInterfaces/1`]: () => ({
        status: 200,
        body: { MACAddress: '52:54:00:AA:00:01', IPv4Addresses: [{ Address: '10.0.0.5' }] },
      }),
      [`${mediaOwner}/VirtualMedia`]: () => list([`${mediaOwner}/VirtualMedia/floppy`, media(mediaOwner)]),
      [`${mediaOwner}/VirtualMedia/floppy`]: () => ({
        status: 200,
        body: { Id: 'floppy', Name: 'Floppy', MediaTypes: ['Floppy'] },
      }),
      [media(mediaOwner)]: (method, body) => this.#mediaAt(method, body, media(mediaOwner)),
      [`${media(mediaOwner)}/Insert`]: (_, body) => this.#insert(body['Image']),
      [`${media(mediaOwner)}/Eject`]: () => this.#insert(null),
      [`${root}/TaskService/Tasks/7`]: () => this.#task(),
    }
  }

  #systemAt(method: string, body: Record<string, unknown>, request: IncomingMessage): Reply {
    if (method === 'PATCH') {
      if (this.quirks.pendingSettings === true)
        return { status: 400, body: fault('Base.1.0.PropertyNotWritable', 'not here') }
      return this.#patchBoot(body, request)
    }
    const reset = `${system}/Actions/ComputerSystem.Reset`
    return {
      status: 200,
      headers: this.quirks.wantsEtag === true ? { etag: `"${this.#etag}"` } : {},
      body: {
        '@odata.id': system,
        Id: 'one',
        Name: 'One',
        PowerState: this.machine.power === 'on' ? 'On' : 'Off',
        Manufacturer: 'Emulated',
        Model: 'Odd One',
        SerialNumber: 'S-1',
        UUID: '11111111-2222-4333-8444-555555555555',
        Boot: this.#boot,
        Links: { ManagedBy: [{ '@odata.id': manager }] },
        Actions: {
          '#ComputerSystem.Reset': {
            target: reset,
            ...(this.quirks.actionInfo === true
              ? { '@Redfish.ActionInfo': `${system}/ResetInfo` }
              : { 'ResetType@Redfish.AllowableValues': this.#resetTypes() }),
          },
        },
        ...(this.quirks.oldMedia !== true && { VirtualMedia: { '@odata.id': `${system}/VirtualMedia` } }),
        ...(this.quirks.pendingSettings === true && {
          '@Redfish.Settings': { SettingsObject: { '@odata.id': `${system}/SD` } },
        }),
      },
    }
  }

  #pendingAt(method: string, body: Record<string, unknown>, request: IncomingMessage): Reply {
    if (method === 'PATCH') return this.#patchBoot(body, request)
    return { status: 200, headers: { etag: `"${this.#etag}"` }, body: { Boot: this.#boot } }
  }

  #patchBoot({ Boot }: Record<string, unknown>, { headers }: IncomingMessage): Reply {
    if (this.quirks.wantsEtag === true || this.quirks.pendingSettings === true) {
      const given = headers['if-match']
      if (this.interfere) this.#etag += 1
      this.interfere = false
      if (given === undefined) return { status: 428, body: fault('Base.1.5.PreconditionRequired', 'If-Match') }
      if (given !== `"${this.#etag}"`) return { status: 412, body: fault('Base.1.5.PreconditionFailed', 'changed') }
    }
    this.#etag += 1
    if (this.machine.faults.ignoresBoot) return { status: 204 }
    this.#boot = { ...this.#boot, ...(Boot as Record<string, unknown>) }
    const { BootSourceOverrideTarget: target, BootSourceOverrideMode: mode } = this.#boot
    const device = target === 'Pxe' ? 'network' : target === 'Hdd' ? 'disk' : 'default'
    this.machine.setBootNext({ device, uefi: mode === 'UEFI' })
    return { status: 204 }
  }

  #reset({ ResetType }: Record<string, unknown>): Reply {
    const acts = {
      On: 'on',
      ForceOff: 'off',
      PowerCycle: 'cycle',
      ForceRestart: 'reset',
      GracefulShutdown: 'soft-off',
      PushPowerButton: 'soft-off',
    } as const
    const act = this.#resetTypes().includes(String(ResetType)) ? acts[ResetType as keyof typeof acts] : undefined
    if (act === undefined) return { status: 400, body: fault('Base.1.0.ActionParameterNotSupported', 'no such type') }
    if (act === this.machine.power) return { status: 409, body: fault('Base.1.0.InvalidState', 'it is so already') }
    this.machine.setPower(act)
    if (this.quirks.tasks !== true) return { status: 204 }
    this.#taskPolls = 2
    return { status: 202, headers: { location: `${root}/TaskService/Tasks/7`, 'retry-after': '0' } }
  }

  #task(): Reply {
    this.#taskPolls -= 1
    if (this.machine.faults.ignoresPower)
      return { status: 200, body: { TaskState: 'Exception', ...fault('Base.1.0.InternalError', 'it burnt') } }
    return this.#taskPolls > 0
      ? { status: 202, body: { TaskState: 'Running' } }
      : { status: 200, body: { TaskState: 'Completed' } }
  }

  #mediaAt(method: string, body: Record<string, unknown>, path: string): Reply {
    if (method === 'PATCH') return this.#insert(body['Image'])
    const actions = {
      '#VirtualMedia.InsertMedia': { target: `${path}/Insert` },
      '#VirtualMedia.EjectMedia': { target: `${path}/Eject` },
    }
    const shown = this.quirks.oldMedia === true ? {} : { Actions: actions }
    const holds = { Image: this.image, Inserted: this.image !== null }
    return {
      status: 200,
      body: { '@odata.id': path, Id: 'cd', Name: 'CD', MediaTypes: ['CD', 'DVD'], ...holds, ...shown },
    }
  }

  #insert(image: unknown): Reply {
    this.image = typeof image === 'string' ? image : null
    return { status: 204 }
  }

  #resetTypes(): readonly string[] {
    return this.quirks.resetTypes ?? ['On', 'ForceOff', 'PowerCycle', 'ForceRestart', 'GracefulShutdown']
  }
}

const serviceRoot: Reply = {
  status: 200,
  body: {
    '@odata.id': root,
    Id: 'RootService',
    Name: 'Root',
    RedfishVersion: '1.15.0',
    UUID: '99999999-2222-4333-8444-555555555555',
    Systems: { '@odata.id': `${root}/Systems` },
    Managers: { '@odata.id': `${root}/Managers` },
    SessionService: { '@odata.id': `${root}/SessionService` },
    Links: { Sessions: { '@odata.id': `${root}/SessionService/Sessions` } },
  },
}

function list(paths: readonly string[]): Reply {
  const members = paths.map((path) => ({ '@odata.id': path }))
  return { status: 200, body: { Name: 'Collection', 'Members@odata.count': members.length, Members: members } }
}

function fault(MessageId: string, Message: string): { readonly error: unknown } {
  return {
    error: { code: MessageId, message: 'see the extended info', '@Message.ExtendedInfo': [{ MessageId, Message }] },
  }
}
