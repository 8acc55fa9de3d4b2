import { readFileSync } from 'node:fs'
import type { MessageInitShape } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import { Capability, ProviderKind, type HelloSchema } from '@slipway/proto/provider/v1'
import { protocolVersions } from '../internal/session.js'
import { jsonSchemaText } from './schema.js'
import type { AnyDefinition } from './settings.js'
import { defaultEffectTimeoutMs } from './steps.js'

export type HelloInit = Omit<MessageInitShape<typeof HelloSchema>, '$typeName' | '$unknown'>

/** How a definition presents itself to the hub, but for what this very process holds. */
export function helloOf(definition: AnyDefinition, instanceId: string, instanceName: string): HelloInit {
  return {
    protocolVersions,
    instanceId,
    instanceName: instanceName.slice(0, 253),
    sdkName: 'slipway-node',
    sdkVersion,
    providerVersion: definition.version ?? '',
    family: definition.family,
    kind: definition.kind === 'static' ? ProviderKind.STATIC : ProviderKind.DYNAMIC,
    capabilities: capabilitiesOf(definition),
    configSchema: jsonSchemaText(definition.config),
    credentialsSchema: jsonSchemaText(definition.credentials),
    dataSchema: jsonSchemaText(definition.data),
    listingLag: durationFromMs(Math.round(definition.listingLagMs ?? 0)),
    effectTimeout: durationFromMs(Math.round(definition.effectTimeoutMs ?? defaultEffectTimeoutMs)),
  }
}

const sdkVersion = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version

/** What a provider can do follows from which functions it has. */
function capabilitiesOf(definition: AnyDefinition): Capability[] {
  const capabilities = [Capability.LIST]
  if (definition.validate !== undefined) capabilities.push(Capability.VALIDATE)
  if (definition.power !== undefined) capabilities.push(Capability.POWER)
  if (definition.reinstall !== undefined) capabilities.push(Capability.REINSTALL)
  if (definition.rescue !== undefined) capabilities.push(Capability.RESCUE)
  if (definition.console !== undefined) capabilities.push(Capability.CONSOLE)
  if (definition.kind === 'static') {
    if (definition.inspect !== undefined) capabilities.push(Capability.INSPECT)
  } else {
    capabilities.push(Capability.REMOVE_ORPHAN)
    if (definition.adopt !== undefined) capabilities.push(Capability.ADOPT)
    if (definition.offerings !== undefined) capabilities.push(Capability.OFFERINGS)
  }
  return capabilities
}
