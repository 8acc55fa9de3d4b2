import { join } from 'node:path'
import { exportJWK, generateKeyPair, importJWK, SignJWT, type JWK, type JWTHeaderParameters } from 'jose'
import type { Test } from 'tap'
import { freePort } from './free-port.js'
import { Process, root, temporaryFolder, until } from './processes.js'

// An independent OpenID Connect issuer, somebody who signs in there, and a forger who has its keys.

export interface IssuerSettings {
  /** What is said of people, by the name that they type. */
  readonly people?: Readonly<Record<string, object>>
  /** Seconds, by the sort of what expires. */
  readonly ttl?: Readonly<Record<string, number>>
}

export async function makeKey(kid: string, algorithm: 'RS256' | 'ES256' = 'RS256'): Promise<JWK> {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true })
  return { ...(await exportJWK(privateKey)), kid, alg: algorithm, use: 'sig' }
}

export class Issuer {
  readonly url: string
  readonly process: Process
  readonly #port: number
  readonly #settings: IssuerSettings
  /** Private. The first one signs. */
  keys: readonly JWK[]

  private constructor(process: Process, port: number, keys: readonly JWK[], settings: IssuerSettings) {
    this.process = process
    this.url = `http://127.0.0.1:${port}`
    this.#port = port
    this.keys = keys
    this.#settings = settings
  }

  static async start(t: Test, settings: IssuerSettings = {}): Promise<Issuer> {
    const port = await freePort()
    const keys = [await makeKey('one')]
    const env = { ISSUER: JSON.stringify({ ...settings, port, keys }) }
    const process = new Process(t, 'issuer', temporaryFolder(t), [join(root, 'test/tools/issuer.mjs')], env)
    const issuer = new Issuer(process, port, keys, settings)
    await issuer.#ready()
    return issuer
  }

  /** Begins anew, with other keys, or other people. What it remembers of sign-ins is gone. */
  async restart(keys: readonly JWK[], settings: IssuerSettings = {}): Promise<void> {
    await this.process.end('SIGTERM')
    this.keys = keys
    this.process.start({ ISSUER: JSON.stringify({ ...this.#settings, ...settings, port: this.#port, keys }) })
    await this.#ready()
  }

  async #ready(): Promise<void> {
    await until('the issuer', async () => {
      if (!this.process.running) throw new Error(`the issuer ended: ${this.process.output()}`)
      return (await fetch(`${this.url}/.well-known/openid-configuration`)).ok
    })
  }

  /** A token such as the issuer could make, but for what is said. A claim that is undefined is left out. */
  async sign(
    claims: Readonly<Record<string, unknown>>,
    header: Partial<JWTHeaderParameters> = {},
    key = this.keys[0],
  ): Promise<string> {
    if (key === undefined) throw new Error('the issuer has no key')
    const now = Math.floor(Date.now() / 1_000)
    const payload = { iss: this.url, aud: 'slipway-cli', sub: 'forged', iat: now, exp: now + 300, ...claims }
    const algorithm = key.alg ?? 'RS256'
    return new SignJWT(payload)
      .setProtectedHeader({ alg: algorithm, kid: key.kid ?? '', ...header })
      .sign(await importJWK(key, algorithm))
  }
}

/** Somebody with a browser, who fills in whatever form comes. */
export class Browser {
  readonly #cookies = new Map<string, string>()
  readonly #fill: Readonly<Record<string, string>>

  /** @param fill what to type, by the name of the field. */
  constructor(fill: Readonly<Record<string, string>>) {
    this.#fill = { password: 'any', ...fill }
  }

  /**
   * Goes somewhere, and on until there is nothing to fill in any more, or until it would leave for where `stopAt` says.
   *
   * @returns where it ended, and what stood there.
   */
  async go(
    url: string,
    stopAt: (url: URL) => boolean = () => false,
  ): Promise<{ readonly url: URL; readonly text: string }> {
    let next: { readonly url: URL; readonly body?: URLSearchParams } = { url: new URL(url) }
    for (let steps = 0; steps < 30; steps++) {
      if (stopAt(next.url)) return { url: next.url, text: '' }
      const response = await this.#fetch(next.url, next.body)
      const location = response.headers.get('location')
      const text = await response.text()
      if (location !== null) {
        next = { url: new URL(location, next.url) }
        continue
      }
      const form = formIn(text, this.#fill)
      if (form === undefined) return { url: next.url, text }
      next = { url: new URL(form.action === '' ? next.url.href : form.action, next.url), body: form.body }
    }
    throw new Error(`${url} leads nowhere`)
  }

  async #fetch(url: URL, body: URLSearchParams | undefined): Promise<Response> {
    const response = await fetch(url, {
      redirect: 'manual',
      headers: { cookie: [...this.#cookies].map(([name, value]) => `${name}=${value}`).join('; ') },
      ...(body !== undefined && { method: 'POST', body }),
    })
    for (const line of response.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      this.#cookies.set(name, value)
    }
    return response
  }
}

/** The first form of a page, filled in. */
function formIn(
  page: string,
  fill: Readonly<Record<string, string>>,
): { readonly action: string; readonly body: URLSearchParams } | undefined {
  const form = /<form[^>]*>[\s\S]*?<\/form>/.exec(page)?.[0]
  if (form === undefined) return undefined
  const body = new URLSearchParams()
  for (const [input] of form.matchAll(/<(?:input|button)[^>]*>/g)) {
    const name = attribute(input, 'name')
    if (name === undefined || name === 'abort') continue
    body.set(name, fill[name] ?? attribute(input, 'value') ?? '')
  }
  return { action: attribute(/<form[^>]*>/.exec(form)?.[0] ?? '', 'action') ?? '', body }
}

function attribute(tag: string, name: string): string | undefined {
  return new RegExp(`\\s${name}="([^"]*)"`).exec(tag)?.[1]
}
