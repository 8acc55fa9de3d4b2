import type { LastError } from '../facts.js'
import type { ConnectionView, RequestView } from './record.js'

// One line on what is going on, for people. No times in them that pass: a line that changes is a change of the resource.

/** `CAPACITY: no more cx22 in fsn1`. */
export function describeError(error: LastError): string {
  return `${error.code}${error.step === '' ? '' : ` in step ${error.step}`}: ${error.message}`
}

/** How the making of a machine goes. */
export function describeMaking(request: RequestView, connection: ConnectionView): string {
  if (connection.connectedSince === null) {
    return `Provider ${request.providerName} is out of reach; it goes on once an instance connects`
  }
  if (request.pausedAt !== null) return describePause(request)
  if (request.state === 'PENDING') return `Waiting for an instance of provider ${request.providerName} to take it up`
  return describeWork(request) ?? `Provider ${request.providerName} is ${workOf(request)}`
}

function workOf({ operation, adoptExternalId }: RequestView): string {
  if (operation === 'ADOPT' && adoptExternalId !== null) return `taking over server ${adoptExternalId}`
  return `${operation === 'REINSTALL' ? 'reinstalling' : 'making'} its machine`
}

/** How the removal of a machine goes, or how a server is let go of that was to be adopted. */
export function describeRemoval(request: RequestView, connection: ConnectionView): string {
  if (request.operation === 'UNADOPT') return describeLettingGo(request, connection)
  if (connection.connectedSince === null) {
    return `Waiting for provider ${request.providerName}, which is out of reach, to remove its machine`
  }
  if (request.pausedAt !== null) return describePause(request)
  if (request.state !== 'DEPROVISIONING')
    return `Waiting for an instance of provider ${request.providerName} to take the removal up`
  return describeWork(request) ?? `Provider ${request.providerName} is removing its machine`
}

function describeLettingGo(request: RequestView, connection: ConnectionView): string {
  const what = `let go of server ${request.adoptExternalId ?? ''}, which stays as it is`
  if (connection.connectedSince === null)
    return `Waiting for provider ${request.providerName}, which is out of reach, to ${what}`
  if (request.state !== 'DEPROVISIONING')
    return `Waiting for an instance of provider ${request.providerName} to ${what}`
  return describeWork(request) ?? `Provider ${request.providerName} is to ${what}`
}

function describePause({ machineName }: RequestView): string {
  return `Its machine ${machineName ?? ''} is in maintenance or held; it goes on once a person ends that`
}

function describeWork({ lastError, progress }: RequestView): string | undefined {
  if (lastError?.nextAttemptAt !== undefined)
    return `Try ${lastError.attempts} failed and is tried again: ${describeError(lastError)}`
  if (progress === null) return undefined
  const percent = progress.percent === undefined ? '' : ` (${progress.percent} %)`
  return `${progress.message === '' ? `Step ${progress.step}` : progress.message}${percent}`
}
