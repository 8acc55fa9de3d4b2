import { fromBinary } from '@bufbuild/protobuf'
import { anyUnpack } from '@bufbuild/protobuf/wkt'
import { Metadata, status } from '@grpc/grpc-js'
import { ErrorInfoSchema, StatusSchema } from '@slipway/proto/google/rpc'

/** An end that no repetition can cure. The message says what a person can do. */
export class FinalError extends Error {
  override readonly name = 'FinalError'
  /** The hub's reason, or the SDK's own. */
  readonly reason: string

  constructor(reason: string, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.reason = reason
  }
}

/** What a failed call said. */
export interface RpcFailure {
  readonly code: status
  readonly message: string
  /** google.rpc.ErrorInfo.reason; empty where the peer gave none. */
  readonly reason: string
}

const whatToDo: Readonly<Record<string, string>> = {
  JOIN_TOKEN_INVALID: 'the join token is not known to the hub; make a new one with `slipway provider token`',
  JOIN_TOKEN_EXPIRED: 'the join token is too old; make a new one with `slipway provider token`',
  JOIN_TOKEN_USED:
    'the join token was used before; make a new one with `slipway provider token`, and find out who used it if it was not you',
  FAMILY_MISMATCH:
    'the provider was added with another family or kind than this program serves; start the right program, or add another provider',
  VERSION_UNSUPPORTED: 'the hub and this program have no protocol version in common; upgrade the older one',
  CERTIFICATE_REVOKED: 'the certificate was revoked; enrol again with a new join token and an empty state folder',
  PROVIDER_DELETED: 'the provider was deleted at the hub; stop this program',
  SCHEMA_INVALID: "the hub cannot use the provider's own schema; this is a defect of the provider",
}

/** Reads a failure of grpc-js, its details included. */
export function rpcFailure(error: unknown): RpcFailure {
  const fields = (typeof error === 'object' && error !== null ? error : {}) as Partial<
    Record<'code' | 'details' | 'metadata', unknown>
  >
  const code = typeof fields.code === 'number' ? (fields.code as status) : status.UNKNOWN
  const message = typeof fields.details === 'string' && fields.details !== '' ? fields.details : String(error)
  return { code, message, reason: fields.metadata instanceof Metadata ? errorReason(fields.metadata) : '' }
}

/** The end that a failure stands for, or undefined where trying again makes sense. */
export function finalError(failure: RpcFailure): FinalError | undefined {
  const advice = whatToDo[failure.reason]
  return advice === undefined ? undefined : new FinalError(failure.reason, `${advice} (hub: ${failure.message})`)
}

function errorReason(metadata: Metadata): string {
  const [details] = metadata.get('grpc-status-details-bin')
  if (!(details instanceof Uint8Array)) return ''
  try {
    for (const detail of fromBinary(StatusSchema, details).details) {
      const info = anyUnpack(detail, ErrorInfoSchema)
      if (info !== undefined) return info.reason
    }
  } catch {
    // Details that can't be read say nothing; the status code still does.
  }
  return ''
}
