import { z } from 'zod'
import type { StaticMachine } from '@slipway/sdk'
import { inventorySchema, type Inventory } from './agent/protocol.js'
import { isBlankUuid, isSameUuid } from './boot/pxe-client.js'
import type { Config, MachineConfig } from './config.js'
import { bmcOf, nameFor, ruleFor } from './discovery.js'
import { isUnicastMac } from './mac.js'
import { bmcSettingsSchema, type BmcSettings } from './power/settings.js'

/** What the provider knows of a machine, wherever it knows it from. */
export interface KnownMachine {
  readonly id: string
  readonly macs: readonly string[]
  readonly uuid?: string
  readonly serial?: string
  readonly bootMode: 'uefi' | 'bios'
  readonly bmc: BmcSettings
  readonly credentials: string
  readonly labels: Readonly<Record<string, string>>
  readonly inUse: boolean
  /** Listed in the configuration; else found on the network. */
  readonly isListed: boolean
}

const wanted = z.enum(['on', 'off', 'any'])

/** What was learned of a machine. It stays in the state folder; whoever loses it learns it again when the machine boots next. */
const learnedSchema = z.strictObject({
  id: z.string(),
  bootMac: z.string(),
  /** The boot in which the inventory was taken. */
  bootId: z.string().optional(),
  inventory: inventorySchema.optional(),
  /** Of machines that are not listed: the rule that it fitted, by name; empty: none. Absent: it is listed. */
  rule: z.string().optional(),
  /** Somebody has worked on it for the hub: it is no stranger any more, and boots in its windows alone. */
  claimed: z.boolean(),
  wanted,
  /** A netboot class that it is to boot again and again. */
  netboot: z.strictObject({ netboot: z.string(), args: z.string(), binding: z.string() }).optional(),
})

type Learned = z.infer<typeof learnedSchema>

export const bookSchema = z.array(learnedSchema).max(100_000)

const providerDataSchema = z.looseObject({
  found: z.looseObject({
    macs: z.array(z.string()),
    uuid: z.string().optional(),
    serial: z.string().optional(),
    bootMode: z.enum(['uefi', 'bios']),
    bmc: bmcSettingsSchema,
    credentials: z.string(),
    labels: z.record(z.string(), z.string()),
  }),
})

/** Why a machine is not who it should be. */
export class IdentityMismatch extends Error {
  override readonly name = 'IdentityMismatch'
}

/** All machines of the segment: those that are listed, and those that were found. */
export class MachineBook {
  #config: Config
  #listed: ReadonlyMap<string, MachineConfig> = new Map()
  /** MACs of machines that boot in their windows alone; made anew when it is asked for after a change. */
  #knownMacs: ReadonlySet<string> | undefined
  readonly #learned = new Map<string, Learned>()
  /** Machines that the hub knows, and nobody here remembers: as the hub gave them back. */
  readonly #returned = new Map<string, KnownMachine>()

  constructor(config: Config, learned: readonly Learned[] = []) {
    this.#config = config
    this.configure(config)
    for (const each of learned) this.#learned.set(each.id, each)
  }

  configure(config: Config): void {
    this.#config = config
    this.#listed = new Map(config.machines.map((machine) => [machine.id, machine]))
    this.#knownMacs = undefined
  }

  snapshot(): readonly Learned[] {
    return [...this.#learned.values()]
  }

  /** All machines, those hidden by configuration left out. */
  list(): readonly KnownMachine[] {
    return this.#all().filter((machine) => !this.#isHidden(machine))
  }

  find(id: string): KnownMachine | undefined {
    const learned = this.#learned.get(id)
    const listed = this.#listed.get(id)
    if (listed !== undefined) {
      const { credentials, macs, uuid, serial, ...rest } = listed
      const found = uuid ?? uuidOf(learned?.inventory)
      const sn = serial ?? serialOf(learned?.inventory)
      return {
        ...rest,
        macs: [...new Set([...macs, ...macsOf(learned)])],
        ...(found !== undefined && { uuid: found }),
        ...(sn !== undefined && { serial: sn }),
        credentials: credentials ?? id,
        isListed: true,
      }
    }
    return learned?.rule === undefined ? this.#returned.get(id) : this.#found(learned)
  }

  /** A machine that the hub hands over. @returns undefined where it is not listed any more and was not found by itself. */
  take(machine: StaticMachine): KnownMachine | undefined {
    const known = this.find(machine.externalId)
    if (known !== undefined) return known
    const parsed = providerDataSchema.safeParse(machine.providerData)
    if (!parsed.success) return undefined
    const { found } = parsed.data
    const returned: KnownMachine = {
      id: machine.externalId,
      macs: found.macs,
      ...(found.uuid !== undefined && { uuid: found.uuid }),
      ...(found.serial !== undefined && { serial: found.serial }),
      bootMode: found.bootMode,
      bmc: found.bmc,
      credentials: found.credentials,
      labels: found.labels,
      inUse: false,
      isListed: false,
    }
    this.#returned.set(returned.id, returned)
    this.#knownMacs = undefined
    return returned
  }

  /** What the hub is to give back with each piece of work, so that nothing has to be kept here. No secrets. */
  providerData(machine: KnownMachine): { readonly [key: string]: never } | object {
    if (machine.isListed) return { listed: true }
    const { macs, uuid, serial, bootMode, bmc, credentials, labels } = machine
    return {
      found: {
        macs,
        ...(uuid !== undefined && { uuid }),
        ...(serial !== undefined && { serial }),
        bootMode,
        bmc,
        credentials,
        labels,
      },
    }
  }

  learned(id: string): Learned | undefined {
    return this.#learned.get(id)
  }

  /**
   * The rule by which a machine that was found is to be accepted without a person. Undefined: there is none, or what the machine says of itself does not hold
   * together: it must have the card that it booted from, and a name of its own that no other machine has.
   */
  acceptedBy(id: string): string | undefined {
    const learned = this.#learned.get(id)
    const { inventory, rule: name } = learned ?? {}
    if (learned === undefined || inventory === undefined || this.#listed.has(id)) return undefined
    const rule = this.#config.discovery.rules.find((each) => each.accept && each.name === name)
    if (rule === undefined || ruleFor([rule], learned.bootMac, inventory) === undefined) return undefined
    if (!inventory.nics.some(({ mac }) => mac === learned.bootMac)) return undefined
    const uuid = uuidOf(inventory)
    const serial = serialOf(inventory)
    if (uuid === undefined && serial === undefined) return undefined
    const isTaken = this.#all().some(
      (other) =>
        other.id !== id &&
        ((uuid !== undefined && other.uuid !== undefined && isSameUuid(other.uuid, uuid)) ||
          (serial !== undefined && other.serial === serial)),
    )
    return isTaken ? undefined : rule.name
  }

  /** Whether a MAC is a machine's that may boot in its windows alone. */
  isKnownMac(mac: string): boolean {
    this.#knownMacs ??= new Set(this.#all().flatMap((machine) => (this.#isStranger(machine) ? [] : machine.macs)))
    return this.#knownMacs.has(mac)
  }

  /** Notes something about a machine. @returns whether that changed anything. */
  note(
    id: string,
    change: Partial<Pick<Learned, 'claimed' | 'wanted'>> & { readonly netboot?: Learned['netboot'] | null },
  ): boolean {
    const before = this.#learned.get(id) ?? { id, bootMac: '', claimed: false, wanted: 'any' as const }
    const { netboot, ...rest } = change
    const { netboot: was, ...others } = before
    const next = netboot === null ? undefined : (netboot ?? was)
    const after: Learned = { ...others, ...rest, ...(next !== undefined && { netboot: next }) }
    this.#learned.set(id, after)
    this.#knownMacs = undefined
    return JSON.stringify(before) !== JSON.stringify(after)
  }

  /**
   * A machine has booted and says what it is.
   *
   * @param boot whose it is, where that is known, and the card that it came by.
   * @returns its id. @throws IdentityMismatch where the boot was another machine's.
   */
  meet(
    boot: { readonly bootId: string; readonly mac: string; readonly machineId?: string },
    inventory: Inventory,
  ): string {
    const { bootId, mac: bootMac, machineId } = boot
    const id = machineId ?? this.#recognise(bootMac, inventory) ?? this.#nameNew(bootMac, inventory)
    const known = this.find(id)
    if (known !== undefined) refuseAnother(known, inventory)
    const before = this.#learned.get(id)
    const rule =
      known?.isListed === true ? undefined : (ruleFor(this.#config.discovery.rules, bootMac, inventory)?.name ?? '')
    const { rule: _before, ...rest } = before ?? { id, claimed: this.#returned.has(id), wanted: 'any' as const }
    this.#learned.set(id, { ...rest, id, bootMac, bootId, inventory, ...(rule !== undefined && { rule }) })
    this.#returned.delete(id)
    this.#knownMacs = undefined
    return id
  }

  #found(learned: Learned): KnownMachine | undefined {
    const { id, inventory, bootMac } = learned
    if (inventory === undefined) return undefined
    const rule = this.#config.discovery.rules.find(({ name }) => name === learned.rule)
    const uuid = uuidOf(inventory)
    const serial = serialOf(inventory)
    return {
      id,
      macs: [...new Set([bootMac, ...macsOf(learned)])],
      ...(uuid !== undefined && { uuid }),
      ...(serial !== undefined && { serial }),
      bootMode: rule?.bootMode ?? inventory.firmware.mode,
      bmc: bmcOf(rule, inventory),
      credentials: rule?.credentials ?? id,
      labels: rule?.labels ?? {},
      inUse: false,
      isListed: false,
    }
  }

  /**
   * Who a machine is that booted as a stranger. What it says of itself proves nothing, so it can become only somebody whom nobody has worked on yet: one that was
   * found before, or one that is listed without any MAC.
   */
  #recognise(bootMac: string, inventory: Inventory): string | undefined {
    const known = this.#all()
    const byMac = known.find((machine) => machine.macs.includes(bootMac))
    if (byMac !== undefined) return byMac.id
    const uuid = uuidOf(inventory)
    const serial = serialOf(inventory)
    const open = known.filter((machine) => this.#isStranger(machine) || (machine.isListed && machine.macs.length === 0))
    return (
      open.find((machine) => serial !== undefined && machine.serial === serial) ??
      open.find((machine) => uuid !== undefined && machine.uuid !== undefined && isSameUuid(machine.uuid, uuid))
    )?.id
  }

  #isStranger(machine: KnownMachine): boolean {
    return !machine.isListed && this.#learned.get(machine.id)?.claimed === false
  }

  #all(): readonly KnownMachine[] {
    const ids = new Set([...this.#listed.keys(), ...this.#learned.keys(), ...this.#returned.keys()])
    return [...ids].flatMap((id) => this.find(id) ?? [])
  }

  #nameNew(bootMac: string, inventory: Inventory): string {
    return nameFor(inventory, bootMac, (name) => this.find(name) !== undefined)
  }

  #isHidden(machine: KnownMachine): boolean {
    if (machine.isListed || this.#config.discovery.unmatched === 'show') return false
    const learned = this.#learned.get(machine.id)
    return learned?.claimed === false && learned.rule === ''
  }
}

/** A card that moved into another machine takes its MAC along: what is ordered for the one must not happen to the other. */
function refuseAnother(known: KnownMachine, inventory: Inventory): void {
  const uuid = uuidOf(inventory)
  if (known.uuid !== undefined && uuid !== undefined && !isSameUuid(known.uuid, uuid))
    throw new IdentityMismatch(`${known.id} has the UUID ${known.uuid}, and what booted in its name has ${uuid}`)
  const serial = serialOf(inventory)
  if (known.serial !== undefined && serial !== undefined && known.serial !== serial)
    throw new IdentityMismatch(
      `${known.id} has the serial number ${known.serial}, and what booted in its name has ${serial}`,
    )
}

function macsOf(learned: Learned | undefined): readonly string[] {
  const nics = learned?.inventory?.nics.map(({ mac }) => mac).filter(isUnicastMac) ?? []
  return learned === undefined || learned.bootMac === '' ? nics : [learned.bootMac, ...nics]
}

/** What makers write where they had nothing to say. */
const meaningless =
  /^(|0+|none|n\/a|unknown|default string|not specified|not applicable|system serial number|to be filled by o\.e\.m\.?|123456789)$/i

function serialOf(inventory: Inventory | undefined): string | undefined {
  const serial = inventory?.dmi.serial.trim()
  return serial === undefined || meaningless.test(serial) ? undefined : serial
}

function uuidOf(inventory: Inventory | undefined): string | undefined {
  const uuid = inventory?.dmi.uuid.toLowerCase()
  return uuid === undefined || !/^[0-9a-f-]{36}$/.test(uuid) || isBlankUuid(uuid) ? undefined : uuid
}
