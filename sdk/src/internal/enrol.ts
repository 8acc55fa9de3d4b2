import { createHash, X509Certificate } from 'node:crypto'
import { connect, type DetailedPeerCertificate } from 'node:tls'
import { create } from '@bufbuild/protobuf'
import { timestampMs } from '@bufbuild/protobuf/wkt'
import type { Client } from '@grpc/grpc-js'
import { EnrollRequestSchema, ProviderService, RenewRequestSchema, type Certificate } from '@slipway/proto/provider/v1'
import { certificatePem, makeSigningRequest } from './csr.js'
import { callUnary, gatewayServerName, openClient, type GatewayAddress } from './grpc.js'
import type { Identity } from './identity.js'
import type { JoinToken } from './join-token.js'
import { FinalError, finalError, rpcFailure } from './rpc-error.js'

const callDeadlineMs = 20_000

/**
 * Fetches the hub's certificate chain from the address and gives the authority in it that the join token pins.
 *
 * @throws FinalError where none does: somebody else answers at that address, or the token is of another hub.
 */
export async function fetchPinnedAuthority(gateway: GatewayAddress, caPin: string): Promise<string> {
  for (const certificate of await fetchChain(gateway)) {
    const spki = certificate.publicKey.export({ type: 'spki', format: 'der' })
    if (certificate.ca && createHash('sha256').update(spki).digest('hex') === caPin) return certificate.toString()
  }
  throw new FinalError(
    'HUB_NOT_TRUSTED',
    `what answers at ${gateway.host}:${gateway.port} is not the hub that made the join token: no authority in its certificate chain has ` +
      'the pinned key. Check the address; if the hub was set up anew, make a new join token. Nothing was sent.',
  )
}

function fetchChain({ host, port }: GatewayAddress): Promise<X509Certificate[]> {
  return new Promise((resolve, reject) => {
    // Nothing is sent over this connection: it only shows certificates, which the pin then judges.
    const socket = connect({
      host,
      port,
      servername: gatewayServerName,
      ALPNProtocols: ['h2'],
      minVersion: 'TLSv1.2',
      rejectUnauthorized: false,
    })
    socket.setTimeout(callDeadlineMs, () => socket.destroy(new Error(`no TLS answer from ${host}:${port}`)))
    socket.once('error', reject)
    socket.once('secureConnect', () => {
      const chain = chainOf(socket.getPeerCertificate(true))
      socket.destroy()
      resolve(chain)
    })
  })
}

function chainOf(leaf: DetailedPeerCertificate): X509Certificate[] {
  const chain: X509Certificate[] = []
  const seen = new Set<string>()
  let current: DetailedPeerCertificate | undefined = leaf
  // A self-signed authority is its own issuer, hence the look at what was seen.
  while (current?.raw !== undefined && !seen.has(current.fingerprint256)) {
    seen.add(current.fingerprint256)
    chain.push(new X509Certificate(current.raw))
    current = current.issuerCertificate
  }
  return chain
}

/** Trades a join token for an identity. @throws FinalError where the hub refuses the token for good; anything else may be tried again. */
export async function enrol(gateway: GatewayAddress, token: JoinToken, instanceName: string): Promise<Identity> {
  const authority = await fetchPinnedAuthority(gateway, token.caPin)
  const { keyPem, csrDer } = makeSigningRequest()
  const client = openClient({ gateway, caPems: [authority], keepaliveMs: callDeadlineMs })
  try {
    const request = create(EnrollRequestSchema, { joinToken: token.text, csrDer, instanceName })
    const response = await callUnary(client, ProviderService.method.enroll, request, callDeadlineMs)
    return identityOf(response.provider, keyPem, response.certificate)
  } catch (error) {
    throw finalError(rpcFailure(error)) ?? error
  } finally {
    client.close()
  }
}

/** Asks for the next certificate over a running connection, for a new key. */
export async function renew(client: Client, current: Identity): Promise<Identity> {
  const { keyPem, csrDer } = makeSigningRequest()
  const request = create(RenewRequestSchema, { csrDer })
  const response = await callUnary(client, ProviderService.method.renew, request, callDeadlineMs)
  return identityOf(current.provider, keyPem, response.certificate)
}

function identityOf(provider: string, keyPem: string, certificate: Certificate | undefined): Identity {
  if (certificate?.notBefore === undefined || certificate.notAfter === undefined || certificate.caDer.length === 0) {
    throw new Error('the hub gave an incomplete certificate')
  }
  return {
    provider,
    keyPem,
    certificatePem: certificatePem(certificate.certificateDer),
    caPems: certificate.caDer.map(certificatePem),
    notBeforeMs: timestampMs(certificate.notBefore),
    notAfterMs: timestampMs(certificate.notAfter),
  }
}
