import type { Inventory } from './agent/protocol.js'
import { isHostOf, parseIpv4, parseNetwork } from './boot/ipv4.js'
import { isBlankUuid } from './boot/pxe-client.js'
import type { DiscoveryRule } from './config.js'
import { bmcSettingsSchema, type BmcSettings } from './power/settings.js'

/** The first rule that a machine fits. */
export function ruleFor(rules: readonly DiscoveryRule[], mac: string, inventory: Inventory): DiscoveryRule | undefined {
  return rules.find(({ macPrefixes, serials, bmcNetworks }) => {
    if (macPrefixes !== undefined && !macPrefixes.some((prefix) => mac.startsWith(prefix))) return false
    if (serials !== undefined && !serials.includes(inventory.dmi.serial)) return false
    if (bmcNetworks === undefined) return true
    const address = parseIpv4(inventory.bmc?.address ?? '')
    return (
      address !== undefined &&
      bmcNetworks.some((text) => {
        const network = parseNetwork(text)
        return network !== undefined && isHostOf(address, network)
      })
    )
  })
}

/** How the power of a machine is reached that nobody has listed: by its rule, at the address that its controller says it has. */
export function bmcOf(rule: DiscoveryRule | undefined, inventory: Inventory): BmcSettings {
  const address = inventory.bmc?.address ?? ''
  const manual = { kind: 'manual', instructions: `found on the network as ${describe(inventory)}` } as const
  if (rule === undefined || rule.bmc.kind === 'manual' || parseIpv4(address) === undefined)
    return bmcSettingsSchema.parse(manual)
  return bmcSettingsSchema.parse(
    rule.bmc.kind === 'ipmi' ? { ...rule.bmc, address } : { ...rule.bmc, endpoint: `https://${address}` },
  )
}

/**
 * The name under which a machine is known from its first boot on: its SMBIOS UUID, which stays where cards are changed, or where it has none (or one that
 * another machine has, too) the MAC that it booted from.
 */
export function nameFor(inventory: Inventory, mac: string, isTaken: (name: string) => boolean): string {
  const uuid = inventory.dmi.uuid.toLowerCase()
  const byUuid = /^[0-9a-f-]{36}$/.test(uuid) && !isBlankUuid(uuid) ? uuid : undefined
  return byUuid !== undefined && !isTaken(byUuid) ? byUuid : `mac-${mac.replaceAll(':', '')}`
}

function describe({ dmi, nics }: Inventory): string {
  const parts = [dmi.vendor, dmi.product, dmi.serial].filter((part) => part !== '')
  return parts.length > 0 ? parts.join(' ') : (nics[0]?.mac ?? 'a machine without a name')
}
