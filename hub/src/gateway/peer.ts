import type { ServerUnaryCall, ServerDuplexStream } from '@grpc/grpc-js'
import { readIdentity } from '../auth/authority.js'
import { HubError } from '../domain/error/errors.js'
import type { GatewayDeps } from './deps.js'
import type { HelloReads } from './hello-reads.js'

/** Who is at the other end, by its certificate alone. */
export interface Peer {
  readonly providerId: string
  readonly serial: string
}

type Call =
  | Pick<ServerUnaryCall<unknown, unknown>, 'getAuthContext'>
  | Pick<ServerDuplexStream<unknown, unknown>, 'getAuthContext'>

/** @throws HubError CERTIFICATE_REQUIRED, CERTIFICATE_REVOKED, PROVIDER_DELETED. */
export async function identifyPeer(call: Call, deps: GatewayDeps, reads: HelloReads): Promise<Peer> {
  const certificate = call.getAuthContext().sslPeerCertificate
  const identity = certificate === undefined ? undefined : readIdentity(certificate.raw)
  if (identity === undefined || identity.hubId !== deps.hubId) {
    throw new HubError(
      'CERTIFICATE_REQUIRED',
      'the call needs a client certificate of this hub; enrol with a join token first',
    )
  }
  const status = await reads.certificate(identity.serial)
  // A certificate that our authority signed and our records do not know is one of a database that was set back: not to be trusted.
  if (status === undefined || status.revoked || status.providerId !== identity.providerId) {
    throw new HubError('CERTIFICATE_REVOKED', 'the certificate was revoked; enrol again with a new join token')
  }
  if (status.providerDeleted) throw new HubError('PROVIDER_DELETED', 'the provider was deleted; stop this instance')
  return { providerId: identity.providerId, serial: identity.serial }
}
