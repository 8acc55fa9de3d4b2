import type { BmcDriver, BmcEnvironment, BmcFacts, BootDevice, BootMode, PowerAction, PowerState } from './driver.js'
import { BmcError, type BmcErrorKind } from './errors.js'
import { BmcHttp, type HttpAnswer, type HttpCall } from './http.js'
import type { BmcSecret, WebhookCall, WebhookSettings } from './settings.js'
import { Turns } from './turns.js'
import { underSignals } from './waiting.js'

type Values = Readonly<Record<string, string>>

/** Power by HTTP calls of the site's own. Every call may have a template; what is on is read, and never believed. */
export class WebhookDriver implements BmcDriver {
  readonly kind = 'webhook'
  readonly #settings: WebhookSettings
  readonly #secrets: Values
  readonly #http: BmcHttp
  readonly #turns = new Turns()
  readonly #closing = new AbortController()

  constructor(settings: WebhookSettings, secret: BmcSecret, environment: BmcEnvironment = {}) {
    this.#settings = settings
    this.#secrets = secret.values ?? {}
    this.#http = new BmcHttp({
      tls: settings.tls,
      timeoutMs: settings.timeoutMs,
      ...(environment.allowAddress !== undefined && { allowAddress: environment.allowAddress }),
    })
  }

  async readPower(signal: AbortSignal): Promise<PowerState> {
    const { read } = this.#settings
    const answer = await this.#call(read, {}, 'whether the machine is on', false, signal)
    const state = atPointer(parseJson(answer.body), read.pointer)
    if (read.on.some((value) => value === state)) return 'on'
    return read.off.some((value) => value === state) ? 'off' : 'unknown'
  }

  async setPower(action: PowerAction, signal: AbortSignal): Promise<void> {
    const { on, off, cycle, reset, softOff } = this.#settings
    const call = { on, off, cycle, reset, 'soft-off': softOff }[action]
    if (call === undefined) throw new BmcError('unsupported', `the webhook has no call for power ${action}`)
    await this.#call(call, { action }, `for power ${action}`, true, signal)
  }

  async setBootOnce(device: BootDevice, mode: BootMode, signal: AbortSignal): Promise<void> {
    const { bootOnce, alwaysNetwork } = this.#settings
    if (bootOnce !== undefined) {
      await this.#call(bootOnce, { device, mode }, `to boot once from ${device}`, true, signal)
    } else if (!alwaysNetwork) {
      throw new BmcError(
        'unsupported',
        'the webhook has no call for the boot device: give bootOnce, or say alwaysNetwork',
      )
    }
  }

  async verify(signal: AbortSignal): Promise<BmcFacts> {
    const { on, off, cycle, reset, softOff, bootOnce } = this.#settings
    // A template that cannot be filled in is found now, and not when the machine is needed.
    for (const call of [on, off, cycle, reset, softOff, bootOnce])
      if (call !== undefined) this.#fillIn(call, { ...this.#machine, action: '', device: '', mode: '' }, '', true)
    const power = await this.readPower(signal)
    if (power === 'unknown')
      throw new BmcError(
        'protocol',
        `the webhook's answer has neither what means on nor what means off at ${this.#pointer}`,
      )
    return { kind: this.kind, power }
  }

  async close(): Promise<void> {
    this.#closing.abort(new BmcError('unreachable', 'the connection to the webhook was closed'))
    this.#http.close()
  }

  get #machine(): Values {
    return { machine: this.#settings.machine }
  }

  get #pointer(): string {
    return this.#settings.read.pointer === '' ? 'its root' : this.#settings.read.pointer
  }

  #call(
    template: WebhookCall,
    values: Values,
    what: string,
    changes: boolean,
    signal: AbortSignal,
  ): Promise<HttpAnswer> {
    return underSignals([signal, this.#closing.signal], (both) =>
      this.#turns.run(both, async () => {
        const call = this.#fillIn(template, { ...this.#machine, ...values }, what, changes)
        const answer = await this.#http.call(call, both)
        if (answer.status < 200 || answer.status > 299) throw refusal(answer, what)
        return answer
      }),
    )
  }

  #fillIn({ method, url, headers, body }: WebhookCall, values: Values, what: string, changes: boolean): HttpCall {
    const secrets = Object.fromEntries(Object.entries(this.#secrets).map(([name, value]) => [`secret.${name}`, value]))
    const all = { ...values, ...secrets }
    const type = Object.entries(headers).find(([name]) => name.toLowerCase() === 'content-type')?.[1]
    return {
      method,
      url: checkedUrl(fill(url, values, encodeURIComponent)),
      headers: {
        ...(body !== undefined && type === undefined && { 'content-type': 'application/json' }),
        ...Object.fromEntries(
          Object.entries(headers).map(([name, value]) => [name, fill(value, all, (text) => headerValue(name, text))]),
        ),
      },
      ...(body !== undefined && { body: fill(body, all, escapeFor(type ?? 'application/json')) }),
      what,
      changes,
    }
  }
}

/** @throws BmcError where the template asks for something that there is not. */
function fill(template: string, values: Values, escape: (text: string) => string): string {
  return template.replaceAll(/\{\{\s*([^{}\s]+)\s*\}\}/g, (_, name: string) => {
    const value = Object.hasOwn(values, name) ? values[name] : undefined
    if (value === undefined)
      throw new BmcError(
        'unsupported',
        `the webhook's template asks for {{${name}}}, which there is not here; correct it`,
      )
    return escape(value)
  })
}

function escapeFor(contentType: string): (text: string) => string {
  if (contentType.includes('json')) return (text) => JSON.stringify(text).slice(1, -1)
  return contentType.includes('x-www-form-urlencoded') ? encodeURIComponent : (text) => text
}

function headerValue(name: string, text: string): string {
  if (/[^\t\x20-\x7e\x80-\xff]/.test(text))
    throw new BmcError('unsupported', `a value for the webhook's header ${name} has characters that no header may have`)
  return text
}

/** @throws BmcError for anything but https, and http on this host alone: headers and bodies may hold secrets. */
function checkedUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const local = url !== undefined && ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname)
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && local)) return url
  throw new BmcError('unsupported', 'give the webhook an https address; http is for addresses of this host alone')
}

function refusal({ status }: HttpAnswer, what: string): BmcError {
  const kinds: Readonly<Record<number, BmcErrorKind>> = {
    401: 'wrong-password',
    403: 'privilege',
    404: 'unsupported',
    405: 'unsupported',
    429: 'busy',
    501: 'unsupported',
    503: 'busy',
  }
  return new BmcError(kinds[status] ?? 'refused', `the webhook was asked ${what} and answered ${status}`, {
    said: String(status),
  })
}

function parseJson(body: string): unknown {
  try {
    return JSON.parse(body)
  } catch (error) {
    throw new BmcError('protocol', "the webhook's answer is no JSON", { cause: error })
  }
}

/** RFC 6901. @returns undefined where there is nothing. */
function atPointer(value: unknown, pointer: string): unknown {
  const keys = pointer
    .split('/')
    .slice(1)
    .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'))
  return keys.reduce<unknown>((at, key) => {
    if (typeof at !== 'object' || at === null || !Object.hasOwn(at, key)) return undefined
    return (at as Readonly<Record<string, unknown>>)[key]
  }, value)
}
