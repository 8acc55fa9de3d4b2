import type { Simulation } from './config.js'

/** Sorts of failure that the simulated APIs answer with. */
export type CloudCode =
  | 'unauthorized'
  | 'rate-limited'
  | 'unavailable'
  | 'timeout'
  | 'invalid'
  | 'name-taken'
  | 'out-of-capacity'
  | 'over-quota'
  | 'not-found'
  | 'conflict'

export type PowerOrder = 'on' | 'off' | 'reboot'

/** A first boot that is to phone home. Its token lies in a file of its own, named by `bootId`. */
export interface BootPlan {
  readonly bootId: string
  readonly hostname: string
  readonly phoneHomeUrl: string
  readonly durationMs: number
  /** It boots, and never says a word. */
  readonly silent: boolean
}

/** When a piece of work ends by itself; `null`: never, it is stuck. */
export type DoneAtMs = number | null

interface WorldOpened {
  readonly fact: 'world.opened'
  readonly version: 1
  readonly kind: WorldKind
  readonly worldId: string
  readonly seed: number
}

interface WorldConfigured {
  readonly fact: 'world.configured'
  readonly config: unknown
}

interface CallRefused {
  readonly fact: 'call.refused'
  readonly code: CloudCode
  readonly message: string
  readonly retryAfterMs?: number
}

/** A call that changed nothing because what it asks for is so already. */
interface CallRepeated {
  readonly fact: 'call.repeated'
  readonly id: string
}

export interface ServerCreated {
  readonly fact: 'server.created'
  readonly id: string
  readonly name: string
  readonly ownershipKey: string
  readonly type: string
  readonly location: string
  readonly image: string
  readonly labels: Readonly<Record<string, string>>
  readonly addresses: readonly string[]
  readonly runningAtMs: DoneAtMs
  readonly listedAtMs: number
  readonly failure?: string
  /** Keys that may log in. Absent: none. */
  readonly sshPublicKeys?: readonly string[]
  readonly boot?: BootPlan
  readonly vanishAfterMs?: number
  readonly simulate?: Simulation
}

interface ServerRetried {
  readonly fact: 'server.retried'
  readonly id: string
  readonly runningAtMs: DoneAtMs
}

interface ServerDeleted {
  readonly fact: 'server.deleted'
  readonly id: string
  readonly goneAtMs: DoneAtMs
}

interface ServerPowered {
  readonly fact: 'server.powered'
  readonly id: string
  readonly wish: PowerOrder
  readonly doneAtMs: DoneAtMs
}

/** A new system is put on a server. `mark`: which reinstall it was for, in its caller's own count. */
export interface ServerReinstalled {
  readonly fact: 'server.reinstalled'
  readonly id: string
  readonly mark: number
  readonly image: string
  readonly installedAtMs: DoneAtMs
  readonly failure?: string
  /** Keys that may log in. Absent: none. */
  readonly sshPublicKeys?: readonly string[]
  readonly boot?: BootPlan
}

/** A server is restarted into its rescue system, with these keys, or into its own. */
interface ServerRescued {
  readonly fact: 'server.rescued'
  readonly id: string
  readonly enabled: boolean
  readonly keys: readonly string[]
  readonly doneAtMs: DoneAtMs
}

/** The label that says whose a server is was put on, or taken off: empty. */
interface ServerKeyed {
  readonly fact: 'server.keyed'
  readonly id: string
  readonly ownershipKey: string
}

interface ServerVanished {
  readonly fact: 'server.vanished'
  readonly id: string
}

interface ServerPhonedHome {
  readonly fact: 'server.phoned-home'
  readonly id: string
  readonly bootId: string
  readonly tries: number
}

interface MachinePowered {
  readonly fact: 'machine.powered'
  readonly serial: string
  readonly wish: PowerOrder
  readonly doneAtMs: DoneAtMs
}

export interface MachineProvisioned {
  readonly fact: 'machine.provisioned'
  readonly serial: string
  readonly binding: string
  /** Which system of that host's it is, in the order in which they are put on. Absent: its first. */
  readonly mark?: number
  readonly host: string
  readonly image: string
  readonly installedAtMs: DoneAtMs
  readonly failure?: string
  /** Keys that may log in. Absent: none. */
  readonly sshPublicKeys?: readonly string[]
  readonly boot?: BootPlan
  readonly simulate?: Simulation
}

interface MachineReleased {
  readonly fact: 'machine.released'
  readonly serial: string
  readonly binding: string
}

interface MachineWipeStarted {
  readonly fact: 'machine.wipe-started'
  readonly serial: string
  readonly wipeId: string
  readonly doneAtMs: DoneAtMs
  readonly fails: boolean
}

/** `binding`: the host whose data is gone now; absent: there had been none. */
interface MachineWiped {
  readonly fact: 'machine.wiped'
  readonly serial: string
  readonly wipeId: string
  readonly binding?: string
}

interface MachineWipeFailed {
  readonly fact: 'machine.wipe-failed'
  readonly serial: string
  readonly wipeId: string
  readonly binding?: string
}

interface MachineVanished {
  readonly fact: 'machine.vanished'
  readonly serial: string
}

interface MachinePhonedHome {
  readonly fact: 'machine.phoned-home'
  readonly serial: string
  readonly bootId: string
  readonly tries: number
}

/** Something was asked of the world that must never be asked. It was refused, and is remembered. */
export interface ViolationSeen {
  readonly fact: 'violation'
  readonly serial: string
  readonly what: 'provision-bound' | 'provision-unwiped' | 'release-foreign' | 'wipe-bound'
  readonly message: string
  readonly binding?: string
  readonly heldBy?: string
}

export type Fact =
  | WorldOpened
  | WorldConfigured
  | CallRefused
  | CallRepeated
  | ServerCreated
  | ServerRetried
  | ServerDeleted
  | ServerPowered
  | ServerReinstalled
  | ServerRescued
  | ServerKeyed
  | ServerVanished
  | ServerPhonedHome
  | MachinePowered
  | MachineProvisioned
  | MachineReleased
  | MachineWipeStarted
  | MachineWiped
  | MachineWipeFailed
  | MachineVanished
  | MachinePhonedHome
  | ViolationSeen

export type WorldKind = 'cloud' | 'rack'

/** What every line of a ledger carries beside its fact. */
export interface Stamp {
  /** From 1, without gaps. */
  readonly seq: number
  /** The world's clock: milliseconds since 1970, never falling. */
  readonly atMs: number
  /** The writer: one for each process that opened the world. */
  readonly by: string
  /** The API call that led to it, where one did. */
  readonly call?: string
  /** What the call was about: an ownership key, an id or a serial number. */
  readonly subject?: string
  /** It was done, and the caller was told that it timed out. */
  readonly answer?: 'lost'
}

export type Line = Stamp & Fact
