import type { BmcDriver, BmcEnvironment, BmcFacts, BootDevice, BootMode, PowerAction, PowerState } from '../driver.js'
import { BmcError, isBmcError } from '../errors.js'
import type { BmcSecret, RedfishSettings } from '../settings.js'
import { Turns } from '../turns.js'
import { underSignals } from '../waiting.js'
import { linkOf, listOf, objectOf, RedfishClient, textOf, type Answer, type Resource } from './client.js'
import { readFacts } from './facts.js'
import { findMedia } from './media.js'

const systemsPath = '/redfish/v1/Systems'
const logOutMs = 2_000

/** What each action may be called, the best first; DMTF Resource schema, ResetType. */
const resetTypes: Readonly<Record<PowerAction, readonly string[]>> = {
  on: ['On', 'ForceOn'],
  off: ['ForceOff'],
  cycle: ['PowerCycle'],
  reset: ['ForceRestart'],
  'soft-off': ['GracefulShutdown', 'PushPowerButton'],
}

const targets: Readonly<Record<BootDevice | 'media', string>> = { network: 'Pxe', disk: 'Hdd', media: 'Cd' }
const modes: Readonly<Record<BootMode, string>> = { uefi: 'UEFI', bios: 'Legacy' }

/** A BMC by Redfish. */
export class RedfishDriver implements BmcDriver {
  readonly kind = 'redfish'
  readonly #settings: RedfishSettings
  readonly #client: RedfishClient
  readonly #turns = new Turns()
  readonly #closing = new AbortController()
  #systemPath: string | undefined

  constructor(settings: RedfishSettings, secret: BmcSecret, environment: BmcEnvironment = {}) {
    this.#settings = settings
    this.#client = new RedfishClient(settings, secret, environment)
  }

  readPower(signal: AbortSignal): Promise<PowerState> {
    return this.#turn(signal, async (both) => powerOf((await this.#system(both)).resource))
  }

  setPower(action: PowerAction, signal: AbortSignal): Promise<void> {
    return this.#turn(signal, async (both) => {
      const { resource } = await this.#system(both)
      // Some BMCs refuse what is so already, and that is no failure.
      if (powerOf(resource) === (action === 'soft-off' ? 'off' : action)) return
      const reset = objectOf(objectOf(resource['Actions'])?.['#ComputerSystem.Reset'])
      const path = textOf(reset?.['target'])
      if (reset === undefined || path === undefined)
        throw new BmcError('unsupported', "the BMC does not offer to switch the system's power")
      const type = chooseResetType(action, await this.#allowed(reset, both))
      await this.#client.change({ method: 'POST', path, body: { ResetType: type }, what: `for power ${action}` }, both)
    })
  }

  setBootOnce(device: BootDevice, mode: BootMode, signal: AbortSignal): Promise<void> {
    return this.#turn(signal, (both) => this.#override(device, mode, both))
  }

  verify(signal: AbortSignal): Promise<BmcFacts> {
    return this.#turn(signal, async (both) => {
      const { resource } = await this.#system(both)
      return { ...(await readFacts(this.#client, resource, both)), power: powerOf(resource) }
    })
  }

  insertMedia(imageUrl: string, signal: AbortSignal): Promise<void> {
    return this.#turn(signal, async (both) => {
      const { resource } = await this.#system(both)
      const media = await findMedia(this.#client, resource, both)
      await media.insert(imageUrl, both)
      await this.#override('media', 'uefi', both)
    })
  }

  ejectMedia(signal: AbortSignal): Promise<void> {
    return this.#turn(signal, async (both) => {
      const { resource } = await this.#system(both)
      const media = await findMedia(this.#client, resource, both)
      await media.eject(both)
    })
  }

  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return
    this.#closing.abort(new BmcError('unreachable', 'the connection to the BMC was closed'))
    await this.#client.close(AbortSignal.timeout(logOutMs))
  }

  #turn<Result>(signal: AbortSignal, work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
    return underSignals([signal, this.#closing.signal], (both) => this.#turns.run(both, () => work(both)))
  }

  async #system(signal: AbortSignal): Promise<Answer> {
    this.#systemPath ??= await this.#findSystem(signal)
    return this.#client.get(this.#systemPath, 'about the system', signal)
  }

  async #findSystem(signal: AbortSignal): Promise<string> {
    const { resource } = await this.#client.get(systemsPath, 'for its systems', signal)
    const paths = listOf(resource['Members']).flatMap((member) => linkOf(member) ?? [])
    const { system } = this.#settings
    const found = system === undefined ? paths : paths.filter((path) => idOf(path) === system)
    const [only, ...others] = found
    if (only !== undefined && others.length === 0) return only
    const known = paths.map(idOf).join(', ') || 'none'
    const wish = system === undefined ? 'give as system which one is meant' : `none is called ${system}`
    throw new BmcError('unsupported', `the BMC has these systems: ${known}; ${wish}`)
  }

  async #allowed(reset: Resource, signal: AbortSignal): Promise<readonly string[] | undefined> {
    const named = reset['ResetType@Redfish.AllowableValues']
    if (Array.isArray(named)) return listOf(named).flatMap((value) => textOf(value) ?? [])
    const infoPath = textOf(reset['@Redfish.ActionInfo'])
    if (infoPath === undefined) return undefined
    const { resource } = await this.#client.get(infoPath, 'how it can be reset', signal)
    const parameter = listOf(resource['Parameters'])
      .map(objectOf)
      .find((one) => one?.['Name'] === 'ResetType')
    return parameter === undefined
      ? undefined
      : listOf(parameter['AllowableValues']).flatMap((value) => textOf(value) ?? [])
  }

  async #override(target: BootDevice | 'media', mode: BootMode, signal: AbortSignal): Promise<void> {
    const system = await this.#system(signal)
    const boot = objectOf(system.resource['Boot']) ?? {}
    const wanted = targets[target]
    const allowed = listOf(boot['BootSourceOverrideTarget@Redfish.AllowableValues'])
    if (allowed.length > 0 && !allowed.includes(wanted))
      throw new BmcError('unsupported', `the BMC can boot from ${allowed.join(', ')}, and not from ${wanted}`)
    const override = {
      BootSourceOverrideEnabled: 'Once',
      BootSourceOverrideTarget: wanted,
      ...modeOf(boot, mode),
    }
    await this.#patch(system, { Boot: override }, `to boot once from ${target}`, signal)
    const seen = objectOf((await this.#system(signal)).resource['Boot']) ?? {}
    const pending = await this.#pending(system.resource, signal)
    if (![seen, pending].some((one) => one?.['BootSourceOverrideTarget'] === wanted && isOn(one)))
      throw new BmcError('ignored', `the BMC accepted to boot once from ${wanted}, and does not say that it will`)
  }

  /** Changes the system, or the resource that its next start takes its settings from where the BMC wants it done there. */
  async #patch(system: Answer, body: unknown, what: string, signal: AbortSignal): Promise<void> {
    const path = this.#systemPath ?? systemsPath
    try {
      await this.#patchOne(path, system, body, what, signal)
    } catch (error) {
      const settings = settingsPathOf(system.resource)
      if (settings === undefined || !isBmcError(error, 'refused', 'unsupported')) throw error
      const pending = await this.#client.get(settings, 'for its pending settings', signal)
      await this.#patchOne(settings, pending, body, what, signal)
    }
  }

  /** With the ETag where there is one; and once more with a new one, where somebody else changed the resource in between. */
  async #patchOne(path: string, seen: Answer, body: unknown, what: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#client.change({ method: 'PATCH', path, body, what, ...etagOf(seen) }, signal)
    } catch (error) {
      if (!isBmcError(error) || (error.said !== '412' && error.said !== '428')) throw error
      const again = await this.#client.get(path, 'about the system', signal)
      await this.#client.change({ method: 'PATCH', path, body, what, ...etagOf(again) }, signal)
    }
  }

  async #pending(system: Resource, signal: AbortSignal): Promise<Resource | undefined> {
    const path = settingsPathOf(system)
    if (path === undefined) return undefined
    const { resource } = await this.#client.get(path, 'for its pending settings', signal)
    return objectOf(resource['Boot'])
  }
}

function powerOf(system: Resource): PowerState {
  switch (system['PowerState']) {
    case 'On':
    case 'Paused':
      return 'on'
    case 'Off':
      return 'off'
    default:
      return 'unknown'
  }
}

function chooseResetType(action: PowerAction, allowed: readonly string[] | undefined): string {
  const choices = resetTypes[action]
  const chosen = allowed === undefined ? choices[0] : choices.find((type) => allowed.includes(type))
  if (chosen !== undefined) return chosen
  const can = allowed === undefined || allowed.length === 0 ? 'nothing' : allowed.join(', ')
  throw new BmcError('unsupported', `the BMC has no reset type for power ${action}; it knows ${can}`)
}

/** The mode is named only where the BMC knows modes, and it is another one than now: some refuse to be told what is so already. */
function modeOf(boot: Resource, mode: BootMode): { readonly BootSourceOverrideMode?: string } {
  const now = boot['BootSourceOverrideMode']
  return now === undefined || now === modes[mode] ? {} : { BootSourceOverrideMode: modes[mode] }
}

/** Some emulators make "continuous" of "once"; what is served decides then what the machine starts. */
function isOn(boot: Resource): boolean {
  return boot['BootSourceOverrideEnabled'] === 'Once' || boot['BootSourceOverrideEnabled'] === 'Continuous'
}

function settingsPathOf(system: Resource): string | undefined {
  return linkOf(objectOf(system['@Redfish.Settings'])?.['SettingsObject'])
}

function etagOf({ headers, resource }: Answer): { readonly etag?: string } {
  const etag = headers['etag'] ?? textOf(resource['@odata.etag'])
  return etag === undefined ? {} : { etag }
}

function idOf(path: string): string {
  return decodeURIComponent(
    path
      .split('/')
      .filter((part) => part !== '')
      .at(-1) ?? '',
  )
}
