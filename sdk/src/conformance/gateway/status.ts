import { create, toBinary } from '@bufbuild/protobuf'
import { anyPack } from '@bufbuild/protobuf/wkt'
import { Metadata, status } from '@grpc/grpc-js'
import { ErrorInfoSchema, StatusSchema } from '@slipway/proto/google/rpc'

/** A refusal, as a hub makes it: a status code, and a reason of the error catalogue in its details. */
export interface Refusal {
  readonly code: keyof typeof status
  readonly reason: string
  readonly message?: string
}

/** The error that grpc-js turns into that status. */
export function statusError({ code, reason, message = reason }: Refusal) {
  const info = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason, domain: 'slipway' }))
  const number = status[code]
  const details = create(StatusSchema, { code: number, message, details: [info] })
  const metadata = new Metadata()
  metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, details)))
  return Object.assign(new Error(message), { code: number, details: message, metadata })
}
