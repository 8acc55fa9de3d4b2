import { create } from '@bufbuild/protobuf'
import type { HandlerContext } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import type { ConsoleOrder } from '../domain/console/console.js'
import { decodePosition, encodePosition } from '../domain/console/position.js'
import { HubError } from '../domain/error/errors.js'
import { findProvider } from '../store/providers.js'
import type { MachineRow } from '../store/tables.js'
import type { ApiDeps } from './context.js'

/** Shows a machine's console until its end, the caller's, or this replica's. */
export async function* streamConsole(
  deps: ApiDeps,
  row: MachineRow,
  request: hub.StreamMachineConsoleRequest,
  context: HandlerContext,
  draining: AbortSignal,
): AsyncGenerator<hub.StreamMachineConsoleResponse> {
  const order = consoleOrder(row, request)
  await refuseUnshowable(deps, row)
  const signal = AbortSignal.any([context.signal, draining])
  let position = request.position
  try {
    for await (const piece of deps.consoles.read(order, signal)) {
      if (piece !== undefined) position = encodePosition(piece.end)
      const { data, gap, lostBytes } = piece ?? {}
      yield create(hub.StreamMachineConsoleResponseSchema, {
        position,
        ...(data !== undefined && { data }),
        ...(gap === true && { gap, ...(lostBytes !== undefined && { lostBytes }) }),
      })
    }
  } catch (error) {
    if (!draining.aborted || error instanceof HubError) throw error
    throw new HubError('DRAINING', 'this replica is shutting down; go on from the last position on another one', {
      retryAfterMs: 100,
    })
  }
}

function consoleOrder(row: MachineRow, request: hub.StreamMachineConsoleRequest): ConsoleOrder {
  const start =
    request.position !== ''
      ? { after: decodePosition(request.position, 'position') }
      : request.tailLines === undefined
        ? undefined
        : { tailLines: request.tailLines }
  return {
    providerId: row.provider_id,
    machineId: row.id,
    ...(row.request_id !== null && { requestId: row.request_id }),
    externalId: row.external_id,
    providerData: row.provider_data,
    ...(start !== undefined && { start }),
    follow: request.follow,
  }
}

async function refuseUnshowable(deps: ApiDeps, row: MachineRow): Promise<void> {
  if (row.state === 'GONE')
    throw new HubError('CONSOLE_ABSENT', `machine ${row.name} is gone, and its console with it`, {
      metadata: { machine: row.name },
    })
  const provider = await findProvider(deps.db, row.provider_name)
  if (provider?.capabilities.includes('CONSOLE') !== true)
    throw new HubError(
      'CONSOLE_UNSUPPORTED',
      `provider ${row.provider_name} shows no consoles; where its family can, update its software`,
      { metadata: { machine: row.name, provider: row.provider_name } },
    )
}
