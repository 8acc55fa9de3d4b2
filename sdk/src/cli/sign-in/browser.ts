import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Configuration } from 'openid-client'
import type { Issuer } from '@slipway/proto/hub/v1'
import { CliError, exitCodes } from '../failure.js'
import { checkedUrl, explained, openid } from './issuer.js'

/** How long somebody may take. */
const patienceMs = 5 * 60_000
const path = '/callback'

export interface BrowserFlow {
  /** Opens a page; absent: somebody does that by hand. */
  readonly open?: (url: URL) => void
  /** Tells people what to do. */
  readonly show: (text: string) => void
  readonly signal: AbortSignal
}

/**
 * Signs somebody in by a browser on this machine: the code flow with PKCE (RFC 7636), redirected to a port of the loopback (RFC 8252, section 7.3).
 *
 * @returns the ID token.
 * @throws CliError.
 */
export async function signInByBrowser(config: Configuration, issuer: Issuer, flow: BrowserFlow): Promise<string> {
  const library = await openid()
  const [verifier, state, nonce] = [library.randomPKCECodeVerifier(), library.randomState(), library.randomNonce()]
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  try {
    const url = library.buildAuthorizationUrl(config, {
      redirect_uri: `${origin}${path}`,
      scope: issuer.scopes.join(' '),
      code_challenge: await library.calculatePKCECodeChallenge(verifier),
      code_challenge_method: 'S256',
      state,
      nonce,
    })
    const page = checkedUrl(url.href, 'the page to sign in at')
    const returned = waitForReturn(server, origin, state, flow.signal)
    flow.show(`Sign in at ${issuer.displayName} in your browser:\n\n  ${page.href}\n`)
    flow.open?.(page)
    const { url: answer, respond } = await returned
    try {
      const tokens = await library.authorizationCodeGrant(config, answer, {
        pkceCodeVerifier: verifier,
        expectedState: state,
        expectedNonce: nonce,
        idTokenExpected: true,
      })
      respond(200, 'You are signed in. You may close this page and go back to the command line.')
      return tokens.id_token ?? ''
    } catch (error) {
      respond(400, 'The sign-in has failed. The command line says why.')
      throw explained(error, `cannot sign in at ${issuer.displayName}`)
    }
  } finally {
    server.close()
    server.closeIdleConnections()
  }
}

interface Return {
  readonly url: URL
  readonly respond: (status: number, text: string) => void
}

/** Waits for the browser to come back. Whoever does not know the state is turned away, and cannot end the waiting. */
function waitForReturn(server: Server, origin: string, state: string, signal: AbortSignal): Promise<Return> {
  const timeout = AbortSignal.timeout(patienceMs)
  return new Promise((resolve, reject) => {
    let taken = false
    const giveUp = () =>
      reject(
        signal.aborted
          ? new CliError(exitCodes.interrupted, 'broken off')
          : new CliError(exitCodes.timedOut, 'nobody came back from the browser; log in again'),
      )
    AbortSignal.any([signal, timeout]).addEventListener('abort', giveUp, { once: true })
    if (signal.aborted) giveUp()
    server.on('request', (request, response) => {
      const url = new URL(request.url ?? '/', origin)
      if (request.method !== 'GET' || url.pathname !== path) return respond(response, 404, 'There is nothing here.')
      if (taken || url.searchParams.get('state') !== state)
        return respond(response, 400, 'This is not the answer to a sign-in that was begun here.')
      taken = true
      resolve({ url, respond: (status, text) => respond(response, status, text) })
    })
  })
}

function respond(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, {
    'content-type': 'text/plain; charset=utf-8',
    'cache-control': 'no-store',
    'referrer-policy': 'no-referrer',
    connection: 'close',
  })
  response.end(`${text}\n`)
}

type Environment = Readonly<Record<string, string | undefined>>

/** Whether a browser on this machine would be seen by who sits at the terminal. */
export function hasBrowser(env: Environment, platform: NodeJS.Platform = process.platform): boolean {
  if ((env['BROWSER'] ?? '') !== '') return true
  if ((env['SSH_CONNECTION'] ?? '') !== '') return false
  if (platform === 'darwin' || platform === 'win32') return true
  return (env['DISPLAY'] ?? '') !== '' || (env['WAYLAND_DISPLAY'] ?? '') !== ''
}

/** Opens a page. Where that fails, the address stands on the terminal. */
export function openBrowser(url: URL, env: Environment, platform: NodeJS.Platform = process.platform): void {
  const given = env['BROWSER'] ?? ''
  const [command, ...args] =
    given !== ''
      ? [given]
      : platform === 'darwin'
        ? ['open']
        : platform === 'win32'
          ? ['rundll32', 'url.dll,FileProtocolHandler']
          : ['xdg-open']
  const child = spawn(command, [...args, url.href], { stdio: 'ignore', detached: true })
  child.on('error', () => undefined)
  child.unref()
}
