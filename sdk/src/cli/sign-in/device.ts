import { setTimeout as sleep } from 'node:timers/promises'
import type { Configuration, DeviceAuthorizationResponse } from 'openid-client'
import type { Issuer } from '@slipway/proto/hub/v1'
import { CliError, exitCodes } from '../failure.js'
import { checkedUrl, explained, isNetworkFailure, openid, printable } from './issuer.js'

/** Whether people can sign in with a device of their choice. */
export function offersDevice(config: Configuration): boolean {
  return config.serverMetadata().device_authorization_endpoint !== undefined
}

/**
 * Signs somebody in who has a browser somewhere else: RFC 8628. Asks as often as the issuer says, less often when told so, and for as long as its code is good.
 *
 * @param show tells people what to do.
 * @returns the ID token.
 * @throws CliError.
 */
export async function signInByDevice(
  config: Configuration,
  issuer: Issuer,
  show: (text: string) => void,
  signal: AbortSignal,
): Promise<string> {
  if (!offersDevice(config))
    throw new CliError(exitCodes.auth, `${issuer.displayName} has no sign-in by device; leave --device out`)
  const { initiateDeviceAuthorization } = await openid()
  let asked: DeviceAuthorizationResponse
  try {
    asked = await initiateDeviceAuthorization(config, { scope: issuer.scopes.join(' ') })
  } catch (error) {
    throw explained(error, `cannot sign in at ${issuer.displayName}`)
  }
  show(instructions(asked))
  return poll(config, issuer, asked, signal)
}

function instructions(asked: DeviceAuthorizationResponse): string {
  const { verification_uri: page, verification_uri_complete: complete, user_code: code } = asked
  const lines = [
    `Open ${checkedUrl(page, 'the page to sign in at').href} in a browser, and enter the code`,
    '',
    `  ${printable(code)}`,
    '',
  ]
  if (complete !== undefined) lines.push(`or open ${checkedUrl(complete, 'the page to sign in at').href}`, '')
  return lines.join('\n')
}

async function poll(
  config: Configuration,
  issuer: Issuer,
  asked: DeviceAuthorizationResponse,
  signal: AbortSignal,
): Promise<string> {
  const { pollDeviceAuthorizationGrant } = await openid()
  const overAt = AbortSignal.timeout(asked.expires_in * 1_000)
  let interval = asked.interval ?? 5
  for (;;) {
    try {
      const tokens = await pollDeviceAuthorizationGrant(config, { ...asked, interval }, undefined, {
        signal: AbortSignal.any([signal, overAt]),
      })
      if (tokens.id_token !== undefined) return tokens.id_token
      throw new CliError(exitCodes.auth, `${issuer.displayName} gave no ID token; its scopes must have openid`)
    } catch (error) {
      if (signal.aborted) throw new CliError(exitCodes.interrupted, 'broken off')
      if (overAt.aborted)
        throw new CliError(exitCodes.timedOut, 'nobody signed in while the code was good; log in again')
      // RFC 8628, section 3.5: after a connection that failed, ask less often.
      if (!isNetworkFailure(error)) throw explained(error, `cannot sign in at ${issuer.displayName}`)
      interval *= 2
      await sleep(0)
    }
  }
}
