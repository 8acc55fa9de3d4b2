import { setTimeout as sleep } from 'node:timers/promises'
import { timestampDate } from '@bufbuild/protobuf/wkt'
import type { Issuer, SignInResponse } from '@slipway/proto/hub/v1'
import { createSlipwayClient, SlipwayError, type SlipwayClient } from '../../client/index.js'
import { readContextFile, writeContextFile, type SavedContext } from '../context-file.js'
import { CliError, exitCodes, usageError } from '../failure.js'
import type { Session } from '../session.js'
import { hasBrowser, openBrowser, signInByBrowser } from '../sign-in/browser.js'
import { offersDevice, signInByDevice } from '../sign-in/device.js'
import { discover } from '../sign-in/issuer.js'

// `slipway login` for people, and `slipway logout`. Nothing of the issuer's is kept: what stays on disk is the hub's own token, for as long as the session lasts.

export interface SignInFlags {
  readonly server: string
  readonly caFile?: string
  readonly issuer?: string
  readonly device?: boolean
  readonly browser?: boolean
}

/** Signs somebody in, and begins a session at the hub. @throws CliError. */
export async function signIn(session: Session, flags: SignInFlags): Promise<Pick<SavedContext, 'token' | 'signedIn'>> {
  const client = createSlipwayClient({
    baseUrl: flags.server,
    ...(flags.caFile !== undefined && { caFile: flags.caFile }),
  })
  const { issuers } = await client.signIn.listIssuers({ issuer: flags.issuer ?? '' })
  const issuer = chooseIssuer(issuers, flags.issuer)
  const idToken = await idTokenOf(session, issuer, flags)
  const begun = await exchange(client, issuer, idToken, session.surroundings.signal)
  return {
    token: begun.secret,
    signedIn: {
      issuer: issuer.name,
      ...(begun.expireTime !== undefined && { until: timestampDate(begun.expireTime).toISOString() }),
    },
  }
}

function chooseIssuer(issuers: readonly Issuer[], wanted: string | undefined): Issuer {
  const [only, ...more] = issuers
  if (only === undefined)
    throw wanted === undefined
      ? new CliError(
          exitCodes.auth,
          'the hub lists no issuer to sign in at; say --issuer NAME where you were told one, or log in with a token: --token-file FILE',
        )
      : usageError(`the hub knows no issuer ${wanted}`)
  if (more.length > 0) throw usageError(`say where to sign in: --issuer ${issuers.map(({ name }) => name).join(', ')}`)
  return only
}

async function idTokenOf(session: Session, issuer: Issuer, flags: SignInFlags): Promise<string> {
  const { env, signal } = session.surroundings
  const show = (text: string) => session.note(text)
  const config = await discover(issuer)
  const mayOpen = flags.browser !== false && hasBrowser(env)
  const byDevice = flags.device ?? (flags.browser === undefined && !mayOpen && offersDevice(config))
  if (byDevice) return signInByDevice(config, issuer, show, signal)
  return signInByBrowser(config, issuer, {
    show,
    signal,
    ...(flags.browser !== false && { open: (url: URL) => openBrowser(url, env) }),
  })
}

const maxTries = 4

/** The hub may have to fetch a key that is new to it. */
async function exchange(
  client: SlipwayClient,
  issuer: Issuer,
  idToken: string,
  signal: AbortSignal,
): Promise<SignInResponse> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await client.signIn.signIn({ issuer: issuer.name, idToken })
    } catch (error) {
      const waits = error instanceof SlipwayError && error.reason === 'ISSUER_UNAVAILABLE' && attempt < maxTries
      if (!waits) throw error
      await sleep(Math.min(error.retryAfterMs ?? 1_000, 10_000), undefined, { signal })
    }
  }
}

/** `logout`: ends a session at the hub, and forgets its token. A token that was given is forgotten only: it may be in use elsewhere. */
export async function logout(session: Session, named: string | undefined): Promise<void> {
  const { env } = session.surroundings
  const file = readContextFile(env)
  const name = named ?? env['SLIPWAY_CONTEXT'] ?? file.current
  const context = file.contexts[name]
  if (context === undefined) throw usageError(`there is no context «${name}»; \`slipway context list\` shows them`)
  const id = /^sw[a-z]_([0-9a-f]+)_/.exec(context.token)?.[1]
  const ended = context.signedIn !== undefined && id !== undefined && (await endSession(context, `tokens/${id}`))
  const { signedIn, ...rest } = context
  writeContextFile(env, { ...file, contexts: { ...file.contexts, [name]: { ...rest, token: '' } } })
  const words =
    signedIn !== undefined
      ? `Logged out of ${context.server} (context ${name})`
      : `The token for ${context.server} is forgotten (context ${name}), and stays good${id === undefined ? '' : `: \`slipway token revoke ${id}\` ends it`}`
  session.printValue({ context: name, server: context.server, sessionEnded: ended }, `${words}\n`)
}

/** False where it was over already. */
async function endSession(context: SavedContext, name: string): Promise<boolean> {
  const { server, token, caFile } = context
  const client = createSlipwayClient({ baseUrl: server, token, ...(caFile !== undefined && { caFile }) })
  try {
    await client.tokens.revokeToken({ name })
    return true
  } catch (error) {
    if (error instanceof SlipwayError && error.unauthenticated) return false
    throw error
  }
}
