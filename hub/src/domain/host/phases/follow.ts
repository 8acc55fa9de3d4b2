import { goOn, isLive, type HostRecord, type HostView, type PhaseOutcome } from '../record.js'

/** Copies onto the host what is known of its request and machine. An error stays until the host is READY, or released. */
export function follow({ host, request }: HostView): PhaseOutcome {
  if (request === null || host.state === 'RELEASED') return goOn(host)
  const common: HostRecord = {
    ...host,
    providerId: request.providerId,
    providerName: request.providerName,
    requestId: request.id,
    requestName: request.name,
    lastError: host.state === 'READY' ? request.lastError : (request.lastError ?? host.lastError),
    phoneHomeAt: request.phonedHomeAt ?? host.phoneHomeAt,
  }
  if (!isLive(request)) {
    return goOn({ ...common, machineId: null, machineName: null, addresses: [], power: null, progress: null })
  }
  return goOn({
    ...common,
    machineId: request.machineId,
    machineName: request.machineName,
    addresses: request.addresses,
    power: request.power,
    price: request.price ?? host.price,
    progress: host.state === 'READY' ? null : request.progress,
  })
}
