import { createHash } from 'node:crypto'
import { toJsonString } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { PowerState, Presence } from '@slipway/proto/provider/v1'
import type { Seen } from '../history.js'

// Resources of the API in the short form of the histories. A digest stands for the rest.

export function seenHost(host: hub.Host): Seen {
  return {
    uid: host.uid,
    name: host.name,
    version: Number(host.etag),
    state: hub.HostState[host.state],
    hostname: host.hostname,
    machineClass: host.machineClass,
    labels: host.labels,
    data: host.providerData ?? {},
    request: host.machineRequest,
    machine: host.machine,
    provider: host.provider,
    ...(host.lastError && { error: host.lastError.message }),
    attempts: host.attempts.length,
    digest: digest(toJsonString(hub.HostSchema, host)),
  }
}

export function seenRequest(request: hub.MachineRequest): Seen {
  // Who holds it, and the steps that are stored, are told as they are at the moment of telling, and make no new version.
  const versioned = { ...request, holder: '', fence: 0n, steps: [] }
  return {
    uid: request.uid,
    name: request.name,
    version: Number(request.etag),
    state: hub.MachineRequestState[request.state],
    host: request.host,
    provider: request.provider,
    ownershipKey: request.ownershipKey,
    externalId: request.externalId,
    machine: request.machine,
    presence: Presence[request.desiredPresence],
    generation: Number(request.generation),
    observed: Number(request.observedGeneration),
    fence: Number(request.fence),
    inDoubt: request.createInDoubt,
    ...(request.lastError && { error: request.lastError.message }),
    digest: digest(toJsonString(hub.MachineRequestSchema, versioned)),
  }
}

export function seenMachine(machine: hub.Machine): Seen {
  return {
    uid: machine.uid,
    name: machine.name,
    version: Number(machine.etag),
    state: hub.MachineState[machine.state],
    provider: machine.provider,
    static: machine.static,
    externalId: machine.externalId,
    host: machine.host,
    request: machine.machineRequest,
    power: PowerState[machine.power],
    desiredPower: PowerState[machine.desiredPower],
    reboots: Number(machine.reboots),
    rebootsDone: Number(machine.rebootsDone),
    digest: digest(toJsonString(hub.MachineSchema, machine)),
  }
}

/** An event never changes: its version is always 1. */
export function seenEvent(event: hub.Event): Seen {
  return {
    uid: event.name,
    name: event.name,
    version: 1,
    state: event.reason,
    subject: event.subject,
    digest: digest(toJsonString(hub.EventSchema, event)),
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}
