import type { Logger } from 'pino'
import type { ConsoleChunk, ConsoleMachine, ConsoleWish } from './console.js'

/** Anything that JSON can say. Step results and attributes are of it. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json }

/**
 * A schema of the author's own choosing: any library that follows Standard Schema and Standard JSON Schema (zod ≥ 4.2,
 * valibot ≥ 1.2 through its JSON Schema package, arktype ≥ 2.1.28). The SDK depends on none of them.
 * Shape: https://standardschema.dev
 */
export interface Schema<Output> {
  readonly '~standard': {
    readonly version: 1
    readonly vendor: string
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>
    readonly types?: { readonly input: unknown; readonly output: Output } | undefined
    readonly jsonSchema: { readonly input: (options: { target: string }) => Record<string, unknown> }
  }
}

export type SchemaResult<Output> =
  { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly SchemaIssue[] }

export interface SchemaIssue {
  readonly message: string
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined
}

export type Power = 'on' | 'off'
export type PowerWish = 'on' | 'off' | 'reboot'

/** The rescue system, with the keys that may log in there, or the machine's own system again. */
export type RescueWish =
  | {
      readonly enabled: true
      /** By what the provider knows them by. These and `sshPublicKeys` together are one at least. */
      readonly sshKeys: readonly string[]
      /** As in `authorized_keys`. */
      readonly sshPublicKeys: readonly string[]
    }
  | { readonly enabled: false }

export interface Address {
  readonly type: 'public' | 'private'
  /** IPv4 or IPv6, without prefix length. */
  readonly ip: string
}

export interface Shape {
  readonly vcpus: number
  readonly memoryMib: number
  readonly diskGib: number
  /** `ssd`, `nvme`, `hdd`; empty: any. */
  readonly diskClass?: string
  /** `amd64`, `arm64`; empty: any. */
  readonly architecture?: string
}

/** Amounts are millionths of the currency's unit, without tax. */
export interface Price {
  /** ISO 4217. */
  readonly currency: string
  readonly hourlyMicros: bigint
  readonly monthlyMicros?: bigint
  readonly setupMicros?: bigint
}

export interface Offering {
  readonly typeId: string
  /** Empty: the provider has only one. */
  readonly location?: string
  readonly shape: Shape
  readonly price?: Price
  readonly available: boolean
  /** How many can be had, where that is known. */
  readonly remaining?: number
}

/** What an order gets wrong. `field` is a path from the order's root, for example `spec.provider_data.image`. */
export interface Violation {
  readonly field: string
  readonly description: string
}

/** One machine as it was ordered; frozen under its ownership key. */
export interface MachineSpec<Data> {
  /** The name to give it out there: deterministic, a DNS label of at most 63 characters. */
  readonly name: string
  /** Goes on everything that is created, and is looked up before creating. `<hub id>/<request id>`. */
  readonly ownershipKey: string
  readonly typeId: string
  readonly location: string
  readonly shape: Shape
  /** Checked against the provider's `data` schema. */
  readonly data: Data
  readonly bootstrap: Bootstrap
  readonly host: HostContext
}

export interface Bootstrap {
  readonly hostname: string
  /** May hold secrets: never log it. */
  readonly userData: string
  /** Empty: the class does not ask for it. */
  readonly phoneHomeUrl: string
  /** The same with the token in its path. Secret. */
  readonly phoneHomePathUrl: string
  /** Secret. */
  readonly phoneHomeToken: string
  /**
   * Keys that may log in as the image's own user, each one line `type base64 comment`, besides what the user-data brings along: at the first boot, and after each reinstall.
   * Refuse an order with keys that you cannot hand over.
   */
  readonly sshPublicKeys: readonly string[]
}

/** Whom a machine is for, to be pushed out there as labels. */
export interface HostContext {
  readonly host: string
  readonly hostUid: string
  readonly workspace: string
  readonly machineClass: string
  readonly labels: Readonly<Record<string, string>>
}

/** A machine as it is now. */
export interface ObservedMachine {
  /** Its id out there. */
  readonly externalId: string
  /** Absent: unknown. */
  readonly power?: Power
  readonly addresses?: readonly Address[]
  /** What the hub is to keep and show. No secrets. */
  readonly attributes?: { readonly [key: string]: Json }
}

/** Something out there that carries an ownership key. */
export interface OwnedMachine extends ObservedMachine {
  readonly ownershipKey: string
  readonly name?: string
  /** Default `server`. */
  readonly kind?: string
}

/** The machine that an order would put a new system on. */
export interface ReinstallTarget<Data> {
  readonly externalId: string
  /** What it was made with, or reinstalled with last. Absent where it is not known, or fits the schema no more. */
  readonly data?: Data
}

/** A server that exists already, as it is found. */
export interface ExistingServer extends ObservedMachine {
  /** The whole ownership key that it bears, of whichever hub. Empty: none. */
  readonly ownershipKey: string
  /** As it is found it is kept; what cannot tell is taken to be on. */
  readonly power: Power
  /** As offerings name it. What is said of it is compared with what was ordered; absent: unknown. */
  readonly typeId?: string
  /** As offerings name it. */
  readonly location?: string
  readonly shape?: Shape
}

/** A server that exists already, and the key that says who keeps it. */
export interface MarkedServer {
  readonly externalId: string
  readonly ownershipKey: string
}

/**
 * Taking over servers that exist already. None of these may touch power, disks, network, names or user-data: of all that a server has, the ownership key alone is put
 * on and taken off. The SDK looks, refuses what is somebody else's or is not what was ordered, and looks again after.
 */
export interface AdoptFunctions<Config, Credentials> {
  /**
   * Looks at a server, whoever it belongs to. `undefined`: looked up, and not there; also for what can be no id. Never give one server under two ids: report its
   * own in `externalId`.
   */
  find(context: Context<Config, Credentials>, externalId: string): Promise<ExistingServer | undefined>
  /** Puts the key on it, and leaves all its other labels as they are. Asked only where it bore none a moment ago, and where it bears this very one no harm may come of it. */
  mark(context: WorkContext<Config, Credentials>, server: MarkedServer): Promise<void>
  /** Takes the key off it, if it is this very one, and leaves all else as it is. Missing is success. */
  unmark(context: WorkContext<Config, Credentials>, server: MarkedServer): Promise<void>
}

/** A static machine, as the hub hands it over. */
export interface StaticMachine {
  readonly machineId: string
  readonly externalId: string
  /** What `discover` said, given back. */
  readonly providerData: { readonly [key: string]: Json }
}

export interface Hardware {
  readonly shape?: Shape
  readonly vendor?: string
  readonly model?: string
  readonly serial?: string
  readonly details?: { readonly [key: string]: Json }
  /** Network cards. */
  readonly nics?: number
  /** SMBIOS UUID. By this, the serial number and MACs a machine is recognised, also under another provider. */
  readonly uuid?: string
  /** In lower case, with colons. */
  readonly macs?: readonly string[]
}

export interface DiscoveredMachine {
  /** Stable and unique for the provider. */
  readonly externalId: string
  readonly hardware?: Hardware
  readonly power?: Power
  /** By which classes can select it. */
  readonly labels?: Readonly<Record<string, string>>
  /** Given back with each piece of work. No secrets. */
  readonly providerData?: { readonly [key: string]: Json }
  readonly addresses?: readonly Address[]
  /** The rule of the configuration by which it is to be accepted without a person. The hub does so once its hardware is known. */
  readonly acceptedByRule?: string
  /** A server in use, which nobody may boot, wipe or switch: it is never accepted, but can be adopted. */
  readonly inUse?: boolean
}

/** Something that happened, for the timelines of people. */
export interface ProviderEvent {
  /** The machine that it is about. Absent: the provider as a whole. */
  readonly externalId?: string
  /** UpperCamelCase, for programs, for example `RogueBoot`. */
  readonly reason: string
  /** No secrets. */
  readonly message: string
  /** Default `info`. */
  readonly severity?: 'info' | 'warning' | 'error'
  /** How often it happened. Default 1. */
  readonly count?: number
  /** Puts the machine into maintenance because the provider cannot judge it any more, or ends what it has begun so. What a person began stays. */
  readonly maintenance?: 'begin' | 'end'
}

/** What every function of a provider gets. */
export interface Context<Config, Credentials> {
  readonly config: Config
  /** Secret: never log, never report. */
  readonly credentials: Credentials
  /** The provider's resource name, `providers/{id}`. */
  readonly provider: string
  /** The hub's id: the first half of every ownership key that is ours. */
  readonly hubId: string
  /** Fires when the work is no longer wanted or no longer ours. Pass it on to every call. */
  readonly signal: AbortSignal
  readonly log: Logger
  /**
   * Takes one call from a rate budget and waits for it. Budgets are declared in the definition; urgent work goes first.
   * @throws the signal's reason when aborted while waiting.
   */
  readonly budget: (name: string) => Promise<void>
  /** Tells people of something. It is not waited for; what is alike is counted, and who tells too much is cut short. */
  readonly event: (event: ProviderEvent) => void
  /**
   * Says that a machine has given word: what waits for it, see {@link WorkContext.wait}, is due at once, at any instance. Also where a static machine that waits for its
   * next host is not as it should be: it is looked after under a claim. Harmless where nothing waits; say it again where nothing came of it.
   */
  readonly calledBack: (externalId: string) => void
}

/**
 * The claim under which work is done, for effects that are carried out by somebody else and at another time: an agent on a machine, say. Let it know item, operation, generation and
 * fence, and have it ask again right before it acts.
 */
export interface Claim {
  /** `machineRequests/{id}` or `machines/{id}`; the id is a UUID. */
  readonly item: string
  readonly operation:
    | 'observe'
    | 'provision'
    | 'reinstall'
    | 'deprovision'
    | 'verify'
    | 'inspect'
    | 'clean'
    | 'power'
    | 'adopt'
    | 'unadopt'
  /** Of the operation: it rises when that is to be begun anew. */
  readonly generation: bigint
  /** It rises with every claim of the item. */
  readonly fence: bigint
  /** Whether something may be begun now, by this process's own clock: false after a pause longer than the lease bears. */
  readonly mayAct: () => boolean
  /**
   * Asks the hub whether the claim still stands.
   *
   * @returns for how long from now something may be begun on its word, in milliseconds; 0 or more.
   * @throws Stopped where it does not stand any more.
   */
  readonly confirm: () => Promise<number>
}

/** What a function that works on one item gets. */
export interface WorkContext<Config, Credentials> extends Context<Config, Credentials> {
  /** Times the item has been tried since it last went well, from 1. */
  readonly attempt: number
  /** Absent: the work is on no item of the hub's, as the removal of an orphan. */
  readonly claim?: Claim
  /** What any instance reported last of the item, as far as known. */
  readonly last: { readonly externalId?: string; readonly attributes?: { readonly [key: string]: Json } }
  /**
   * Runs a named piece of work once over all crashes: its result is stored in the hub before `step` returns, and a step that has
   * a stored result gives it back without running.
   *
   * An effect out there (something is created, something costs money) gives `find` too: it looks for what an earlier try under
   * the same ownership key made, and is asked before `run` whenever a try may have been lost. What it finds is the result.
   *
   * @param name lower-case words with dashes, unique in the operation.
   * @throws whatever `run` throws, and {@link Stopped} when the claim is lost or the wish has changed.
   */
  readonly step: <Result extends Json>(name: string, run: StepRun<Result> | StepEffect<Result>) => Promise<Result>
  /**
   * Says where the work is, for people who wait. Not stored for ever; may be dropped when the stream is busy.
   * @param percent 0 to 100.
   */
  readonly progress: (message: string, percent?: number) => void
  /** Reports what is known so far, and returns when the hub has stored it. Report the external id before waiting for anything. */
  readonly report: (observed: Partial<ObservedMachine>) => Promise<void>
  /**
   * Polls until `check` gives a value, with back-off and jitter.
   * @throws ProviderError of code TIMEOUT after `timeoutMs`.
   */
  readonly poll: <Result>(
    check: (signal: AbortSignal) => Promise<Result | undefined>,
    options?: PollOptions,
  ) => Promise<Result>
  /**
   * Static: the work goes on out there by itself, and the machine's own callback tells its end. The claim ends here, and costs no capacity; the function is called again
   * when the machine has called back, or after `lookAfterMs`, by any instance, with the steps stored so far. It finds out for itself how things stand, and waits on
   * where they are not done.
   *
   * @throws always, {@link Stopped} of `waiting`: let it pass.
   */
  readonly wait: (options: WaitOptions) => Promise<never>
}

export interface WaitOptions {
  /** How long the callback may take, from when this is said first. After that the hub takes the operation for failed. */
  readonly timeoutMs: number
  /** When to look though nobody called. Default 600 000. */
  readonly lookAfterMs?: number
  /** What is waited for, for people. */
  readonly message: string
}

export type StepRun<Result> = (signal: AbortSignal) => Promise<Result>

export interface StepEffect<Result> {
  readonly run: StepRun<Result>
  readonly find: (signal: AbortSignal) => Promise<Result | undefined>
  /** How long `run` may take before its outcome is in doubt. Default: the definition's `effectTimeoutMs`. */
  readonly timeoutMs?: number
}

export interface PollOptions {
  /** Default 500. */
  readonly initialDelayMs?: number
  /** Default 10 000. */
  readonly maxDelayMs?: number
  /** Default 600 000. */
  readonly timeoutMs?: number
  /** What is waited for, for people. */
  readonly what?: string
}

/** How much of a rate limit is left. */
export interface RateBudgetState {
  /** Which limit, in the provider's own words. */
  readonly name: string
  /** Calls allowed in a window. */
  readonly limit: number
  readonly remaining: number
  /** Until it is whole again, if nothing more is called. */
  readonly resetsInMs: number
}

interface CommonDefinition<Config, Credentials, Data> {
  /** The kind of API behind it, for example `hetzner-cloud`. */
  readonly family: string
  /** The provider software's own version. */
  readonly version?: string
  readonly config?: Schema<Config>
  /** Everything in it is treated as secret. */
  readonly credentials?: Schema<Credentials>
  /** Schema of `provider_data` in classes and orders. */
  readonly data?: Schema<Data>
  /** Items worked on at once. Default 10. */
  readonly capacity?: number
  /** How long after a create a listing may still not show it, at most. Default 0. */
  readonly listingLagMs?: number
  /**
   * How long a create may be under way out there until it has either happened or never will. Default 60 000. It is what a step's
   * effect may take where the step itself does not say, and what a delete waits for where a create is in doubt.
   */
  readonly effectTimeoutMs?: number
  /** How often to list. Default 30 000. */
  readonly listIntervalMs?: number
  /** Calls allowed by window, by budget name. They belong to the credential. */
  readonly budgets?: Readonly<Record<string, { readonly limit: number; readonly windowMs: number }>>
  /** Rate limits that the provider keeps itself, as its API tells of them. Asked for with each heartbeat, and shown to people; it must not wait for anything. */
  rateBudgets?(): readonly RateBudgetState[]
  /** Proves configuration and credentials against the real API; throw a {@link ProviderError} to refuse them. */
  check?(context: Context<Config, Credentials>): Promise<void>
  /** Checks an order before it costs money. Empty: nothing is wrong with it. It must have no effect. */
  validate?(
    context: Context<Config, Credentials>,
    spec: MachineSpec<Data>,
    /** Set where the order is to put a new system on this machine: then only what a reinstall changes may be refused, and a change of what it cannot change. */
    reinstall?: ReinstallTarget<Data>,
  ): Promise<readonly Violation[]>
  /**
   * Shows what a machine writes to its console, as bytes, without any effect on the machine: what there is already, and, where it is to be followed, what
   * comes, until the context's signal fires. It is read no faster than its reader reads, so keep nothing back for one who is slow. Neither log the
   * bytes nor store more of them than before: they may hold secrets. {@link readConsoleFile} does it for a console that is written to a file.
   *
   * A {@link ConsoleChunk} says where its bytes stand, so that a reader who was cut off can go on from there; bare bytes do where nothing can be
   * read twice. Any instance may be asked for any machine.
   *
   * @throws ConsoleRefused where there is nothing to show; ProviderError for what went wrong.
   */
  console?(
    context: Context<Config, Credentials>,
    machine: ConsoleMachine,
    wish: ConsoleWish,
  ): AsyncIterable<ConsoleChunk | Uint8Array>
}

/** A provider that creates a machine for a request and deletes it after. Capabilities follow from which functions are there. */
export interface DynamicDefinition<Config, Credentials, Data> extends CommonDefinition<Config, Credentials, Data> {
  readonly kind: 'dynamic'
  /** What can be had now. Asked every `offeringsIntervalMs`. */
  offerings?(context: Context<Config, Credentials>): Promise<readonly Offering[]>
  /** Default 60 000. */
  readonly offeringsIntervalMs?: number
  /** Makes the machine, in steps. It may be called again at any time, by any instance, with the steps stored so far. */
  create(context: WorkContext<Config, Credentials>, spec: MachineSpec<Data>): Promise<ObservedMachine>
  /** Looks at one machine. `undefined`: looked up, and not there. */
  observe(context: Context<Config, Credentials>, externalId: string): Promise<ObservedMachine | undefined>
  /**
   * Makes the machine and all that it brought along not exist, and returns when it was seen to be gone. Missing is success.
   * `externalId` is absent where none was ever reported: look by ownership key.
   */
  delete(
    context: WorkContext<Config, Credentials>,
    machine: { readonly externalId?: string; readonly ownershipKey: string; readonly name: string },
  ): Promise<void>
  /** Lists everything that carries an ownership key, of this hub or another. */
  list(context: Context<Config, Credentials>): AsyncIterable<OwnedMachine>
  /** Brings power to what is wished. `reboot` does so once, and returns when it is done. */
  power?(context: WorkContext<Config, Credentials>, externalId: string, wish: PowerWish): Promise<void>
  /**
   * Puts a new system on the machine, in steps, and leaves it on: its id and addresses stay, what is on its disks does not. It may be called again at any time, by
   * any instance, with the steps stored so far.
   *
   * @param machine.reinstall which one in the machine's life this is, from 1: a mark by which a step's `find` can tell this one from those before it.
   */
  reinstall?(
    context: WorkContext<Config, Credentials>,
    machine: { readonly externalId: string; readonly reinstall: number },
    spec: MachineSpec<Data>,
  ): Promise<ObservedMachine>
  /** Takes over servers that exist already, untouched, and lets go of them again. Whatever was adopted, `delete` deletes once its host was in use and is released. */
  readonly adopt?: AdoptFunctions<Config, Credentials>
  /** Restarts the machine into its rescue system, or into its own; also where it is so already. One that is off is only seen to that it starts its own. */
  rescue?(context: WorkContext<Config, Credentials>, externalId: string, wish: RescueWish): Promise<void>
}

/** A provider of machines that exist already: off when unused, wiped between uses. */
export interface StaticDefinition<Config, Credentials, Data> extends CommonDefinition<Config, Credentials, Data> {
  readonly kind: 'static'
  /** Lists the machines, asked every `listIntervalMs`. */
  discover(context: Context<Config, Credentials>): AsyncIterable<DiscoveredMachine>
  /** Proves that a machine's address and credentials work. */
  verify?(context: WorkContext<Config, Credentials>, machine: StaticMachine): Promise<void>
  /** Looks at a server in use that is taken over as it is, and proves that it is the one that is meant. It must change nothing. Default: it is observed. */
  adopt?(context: WorkContext<Config, Credentials>, machine: StaticMachine): Promise<Hardware>
  /** Reads its hardware. */
  inspect?(context: WorkContext<Config, Credentials>, machine: StaticMachine): Promise<Hardware>
  /** Looks at it. `undefined`: it is not there any more. */
  observe(context: Context<Config, Credentials>, machine: StaticMachine): Promise<ObservedMachine | undefined>
  /** Brings power to what is wished. `reboot` does so once. */
  power(context: WorkContext<Config, Credentials>, machine: StaticMachine, wish: PowerWish): Promise<void>
  /** Makes a host of it, in steps, and leaves it on. */
  provision(
    context: WorkContext<Config, Credentials>,
    machine: StaticMachine,
    spec: MachineSpec<Data>,
  ): Promise<ObservedMachine>
  /** Puts a new system on the machine of a host. See {@link DynamicDefinition.reinstall}. */
  reinstall?(
    context: WorkContext<Config, Credentials>,
    machine: StaticMachine & { readonly reinstall: number },
    spec: MachineSpec<Data>,
  ): Promise<ObservedMachine>
  /** See {@link DynamicDefinition.rescue}. */
  rescue?(context: WorkContext<Config, Credentials>, machine: StaticMachine, wish: RescueWish): Promise<void>
  /** Takes the host off it. Default: power off. Its data goes with the cleaning that follows. */
  deprovision?(context: WorkContext<Config, Credentials>, machine: StaticMachine): Promise<void>
  /** Wipes it, verifies the wipe, and leaves it off. */
  clean(context: WorkContext<Config, Credentials>, machine: StaticMachine): Promise<void>
}

export type ProviderDefinition<Config, Credentials, Data> =
  DynamicDefinition<Config, Credentials, Data> | StaticDefinition<Config, Credentials, Data>

/** Where a provider runs, and as whom. */
export interface RunOptions {
  /** The hub's gateway, host:port. */
  readonly gateway: string
  /** Needed once, for the first start in a state folder. */
  readonly joinToken?: string
  /** Keeps the certificate and its key (mode 0700). Whoever reads it can act as this provider. */
  readonly stateDir: string
  /** For people. Default: the host name. */
  readonly instanceName?: string
  /** Overrides the definition's. */
  readonly capacity?: number
  readonly log?: Logger
  /** Stops it: it drains, releases what it holds, and closes. */
  readonly signal?: AbortSignal
}

/** What `defineProvider` gives. */
export interface Provider {
  readonly family: string
  readonly kind: 'dynamic' | 'static'
  /** Runs until the signal fires. @throws only where going on makes no sense: a refused join token, a wrong family, a revoked certificate. */
  run(options: RunOptions): Promise<void>
  /** The whole command line of a provider process: flags, environment, signals, exit code. */
  serve(argv?: readonly string[]): Promise<void>
}
