import { create } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import {
  CertificateSchema,
  EnrollResponseSchema,
  RenewResponseSchema,
  type EnrollRequest,
  type EnrollResponse,
  type RenewRequest,
  type RenewResponse,
} from '@slipway/proto/provider/v1'
import { inTransaction, type Tx } from '../store/database.js'
import { recordCertificate } from '../store/certificates.js'
import { recordJoinTokenMisuse, useJoinToken } from '../store/join-tokens.js'
import { recordEnrolment } from '../store/provider-facts.js'
import { HubError } from '../domain/error/errors.js'
import type { GatewayDeps } from './deps.js'
import type { Peer } from './peer.js'

/** Trades a join token for a certificate, in one transaction: a bad signing request does not cost the token. */
export async function enroll(request: EnrollRequest, remote: string, deps: GatewayDeps): Promise<EnrollResponse> {
  const usedBy = request.instanceName === '' ? remote : `${request.instanceName} (${remote})`
  const enrolled = await inTransaction(deps.db, (tx) => enrolIn(tx, request, usedBy, deps), 'enrol').catch(
    async (error: unknown) => {
      if (error instanceof HubError && error.reason === 'JOIN_TOKEN_USED') {
        await recordJoinTokenMisuse(deps.db, error.metadata['token_id'] ?? '', usedBy)
        deps.wake.signal({ kind: 'change' })
      }
      throw error
    },
  )
  deps.wake.signal({ kind: 'change' })
  return create(EnrollResponseSchema, {
    certificate: toCertificate(enrolled.certificate, deps),
    provider: `providers/${enrolled.providerName}`,
  })
}

async function enrolIn(tx: Tx, request: EnrollRequest, usedBy: string, deps: GatewayDeps) {
  const { providerId } = await useJoinToken(tx, request.joinToken, usedBy)
  const providerName = await recordEnrolment(tx, providerId, usedBy)
  if (providerName === undefined) throw new HubError('PROVIDER_DELETED', 'the provider was deleted')
  const certificate = await deps.authority.issueProviderCertificate({
    csrDer: request.csrDer,
    providerId,
    instanceName: request.instanceName,
  })
  await recordCertificate(tx, {
    serial: certificate.serial,
    providerId,
    instanceName: request.instanceName,
    notAfter: certificate.notAfter,
  })
  return { certificate, providerName }
}

/** Gives the caller its next certificate. */
export async function renew(
  request: RenewRequest,
  peer: Peer,
  instanceName: string,
  deps: GatewayDeps,
): Promise<RenewResponse> {
  const certificate = await deps.authority.issueProviderCertificate({
    csrDer: request.csrDer,
    providerId: peer.providerId,
    instanceName,
  })
  await inTransaction(deps.db, (tx) =>
    recordCertificate(tx, {
      serial: certificate.serial,
      providerId: peer.providerId,
      instanceName,
      notAfter: certificate.notAfter,
    }),
  )
  return create(RenewResponseSchema, { certificate: toCertificate(certificate, deps) })
}

function toCertificate(
  issued: { readonly certificateDer: Uint8Array; readonly notBefore: Date; readonly notAfter: Date },
  deps: GatewayDeps,
) {
  return create(CertificateSchema, {
    certificateDer: issued.certificateDer,
    caDer: [...deps.authority.caDer],
    notBefore: timestampFromDate(issued.notBefore),
    notAfter: timestampFromDate(issued.notAfter),
  })
}
