import { create, toBinary, type DescMessage, type MessageShape } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { Metadata, status, type ServiceError } from '@grpc/grpc-js'
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema, StatusSchema } from '@slipway/proto/google/rpc'
import { HubError } from '../domain/error/errors.js'
import { unavailableDatabase } from '../store/database.js'

function toHubError(thrown: unknown): HubError {
  if (thrown instanceof HubError) return thrown
  return (
    unavailableDatabase(thrown) ??
    new HubError('INTERNAL', 'the hub failed to handle the call; see its log', { cause: thrown })
  )
}

/** The answer for anything thrown: a {@link HubError} as it is, a database out of reach as UNAVAILABLE, all else as INTERNAL with nothing of it in the answer. */
export function toServiceError(thrown: unknown): ServiceError {
  const error = toHubError(thrown)
  const code = status[error.status]
  const packed = (schema: DescMessage, message: MessageShape<DescMessage>) => anyPack(schema, message)
  const details = [
    packed(
      ErrorInfoSchema,
      create(ErrorInfoSchema, { reason: error.reason, domain: 'slipway', metadata: { ...error.metadata } }),
    ),
  ]
  if (error.violations.length > 0) {
    details.push(
      packed(
        BadRequestSchema,
        create(BadRequestSchema, { fieldViolations: error.violations.map((violation) => ({ ...violation })) }),
      ),
    )
  }
  if (error.retryAfterMs !== undefined) {
    const seconds = Math.floor(error.retryAfterMs / 1000)
    const nanos = (error.retryAfterMs - seconds * 1000) * 1_000_000
    details.push(packed(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: { seconds: BigInt(seconds), nanos } })))
  }
  const metadata = new Metadata()
  metadata.set(
    'grpc-status-details-bin',
    Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, message: error.message, details }))),
  )
  return Object.assign(new Error(error.message), { name: error.reason, code, details: error.message, metadata })
}
