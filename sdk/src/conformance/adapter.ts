import type { Json } from '../provider/types.js'

export type JsonObject = { readonly [key: string]: Json }

/** Where a case takes place: one cloud account or rack, as far as the case can tell. Isolated adapters make a new one for each case. */
export interface World {
  /** A folder of the case's own, empty at the start. */
  readonly dir: string
  /** The id of the kit's hub in this case: the first half of every ownership key that is ours. */
  readonly hubId: string
}

/** An order, but for what the kit itself chooses: name, key, host, bootstrap. */
export interface OrderSample {
  readonly typeId?: string
  readonly location?: string
  readonly providerData?: JsonObject
  readonly shape?: { readonly vcpus: number; readonly memoryMib: number; readonly diskGib: number }
}

/** An order that must be refused before anything is made. */
export interface BadOrder {
  /** What is wrong with it, for people. */
  readonly title: string
  readonly order: OrderSample
  /** The field that the refusal names, for example `spec.type_id`. */
  readonly field: string
}

/**
 * Faults that a case may ask for. An adapter injects those that it can, and says which.
 *
 * - `none`: takes back all that was injected, as far as it lasts. An adapter that injects anything can do this.
 * - `capacity`, `quota`: the next create is refused for that reason.
 * - `rate-limited`: all calls are refused for too many, until `none`.
 * - `unavailable`: the next create is answered with "unavailable", without effect; after that all is well.
 * - `lost-answer`: the next create takes effect, and its answer never comes.
 * - `timeout-before`: the next create has no effect, and no answer.
 * - `create-fails`: the next create is accepted, and fails later.
 * - `slow-create`, `slow-delete`: these take some seconds from now on.
 * - `delete-sticks`: the next server's delete is accepted, and ends only when it is asked for again.
 * - `credentials-refused`: every credential is refused. Injected before a provider is started.
 * - `list-breaks`: a listing fails after its first page, until `none`.
 * - `clean-fails`, `verify-fails`: a static machine's wipes or verifications fail.
 */
export const faultNames = [
  'none',
  'capacity',
  'quota',
  'rate-limited',
  'unavailable',
  'lost-answer',
  'timeout-before',
  'create-fails',
  'slow-create',
  'slow-delete',
  'delete-sticks',
  'credentials-refused',
  'list-breaks',
  'clean-fails',
  'verify-fails',
] as const

export type FaultName = (typeof faultNames)[number]

/** What a fault takes beyond what the adapter did: other settings for the provider, or something in the order. */
export interface Injected {
  readonly config?: JsonObject
  readonly credentials?: JsonObject
  /** Merged into the provider data of the case's orders. */
  readonly providerData?: JsonObject
}

/** What a provider is started and configured with in one world. */
export interface Settings {
  readonly config?: JsonObject
  readonly credentials?: JsonObject
  /** More environment for the provider's process. */
  readonly env?: Readonly<Record<string, string>>
  /** More arguments for the provider's command. */
  readonly args?: readonly string[]
}

/** Something that exists out there. */
export interface Thing {
  /** `server` for machines; else the provider's own word, as in its listing. */
  readonly kind: string
  readonly externalId: string
  /** The ownership key on it; of a static machine, that of the request whose host is on it. Empty: none. */
  readonly ownershipKey: string
  readonly name?: string
  readonly power?: 'on' | 'off'
  /** How often it was rebooted, where the adapter can tell. */
  readonly reboots?: number
  /** How often a new system was put on it, where the adapter can tell. */
  readonly reinstalls?: number
  /** Whether it was started into its rescue system last, where the adapter can tell. */
  readonly rescue?: boolean
  /** The order's keys that may log in, where the adapter can tell. */
  readonly sshPublicKeys?: readonly string[]
  /** Static: whether its disks are clean. */
  readonly clean?: boolean
}

/** The ground truth: what exists, whoever knows of it. */
export interface Truth {
  readonly things: readonly Thing[]
  /** Calls that changed something, or tried to, since the world began, where the adapter can tell. */
  readonly writes?: number
  /** All calls since the world began, where the adapter can tell. */
  readonly calls?: number
  /** The most servers that ever lived at once under each ownership key, where the adapter can tell. */
  readonly maxLive?: Readonly<Record<string, number>>
  /** What must never have been asked of the cloud or rack, in words. */
  readonly violations?: readonly string[]
}

/** What can be tested with a provider, and how. */
export interface Description {
  readonly family: string
  readonly kind: 'dynamic' | 'static'
  /** An order that works. */
  readonly order: OrderSample
  readonly badOrders?: readonly BadOrder[]
  /** Credentials that are not accepted. */
  readonly badCredentials?: JsonObject
  /** Other credentials that are accepted. */
  readonly otherCredentials?: JsonObject
  /** A configuration that must be refused. */
  readonly badConfig?: JsonObject
  readonly faults?: readonly FaultName[]
  /** What the adapter can do beyond list. */
  readonly verbs?: readonly AdapterVerb[]
  /** Whether each world is apart from all others, so that cases can run side by side, and nothing needs to be swept. */
  readonly isolated?: boolean
  /** Whether the provider honours SLIPWAY_FAILPOINTS, as those with the SDK do. */
  readonly failpoints?: boolean
  /** Whether machines really boot and phone home. */
  readonly phonesHome?: boolean
  /** How often the provider lists, as it is started here. Default 30 000. */
  readonly listIntervalMs?: number
  /** How long one machine takes to be made, at most. Default 60 000. */
  readonly createMs?: number
  /** Keys that may log in to rescue systems, by what the provider knows them by. Default: `kit`. */
  readonly rescueKeys?: readonly string[]
  /** How many orders at once are not too many. Default 10. */
  readonly orders?: number
  /** What else is told to people at the head of the report. */
  readonly notes?: readonly string[]
}

/** Verbs that an adapter may leave out. */
export const adapterVerbs = ['inject', 'plant', 'vanish'] as const

export type AdapterVerb = (typeof adapterVerbs)[number]

/** What to plant: something that exists, and that the provider never made. */
export interface Planting {
  readonly name: string
  readonly ownershipKey: string
  /** Default 1. With more, names end in a number. */
  readonly count?: number
}

/**
 * The author's side of the kit: it reads the ground truth, past the provider, and injects faults.
 *
 * An ES module gives one as its default export. Any other file is an executable that is called with the verb (`describe`, `set-up`, `list`, `inject`, `plant`,
 * `vanish`, `tear-down`) as its first argument and the parameters as JSON on standard input, and answers with JSON on standard output.
 */
export interface Adapter {
  describe(): Description | Promise<Description>
  /** Makes a world ready, and says how to start and configure a provider in it. */
  setUp(world: World): Settings | Promise<Settings>
  list(world: World): Truth | Promise<Truth>
  inject?(world: World, fault: FaultName): Injected | Promise<Injected>
  /** Makes things appear behind the provider's back. @returns their external ids. */
  plant?(world: World, planting: Planting): readonly string[] | Promise<readonly string[]>
  /** Makes a thing disappear, as if somebody had pulled the plug for good. */
  vanish?(world: World, externalId: string): void | Promise<void>
  /** Removes what a case has left, whatever became of it. */
  tearDown?(world: World): void | Promise<void>
}
