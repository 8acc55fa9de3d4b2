import { join } from 'node:path'
import { ProviderError } from '@slipway/sdk'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { DurationSetting } from './config.js'
import type { RateLimit } from './rate-limit.js'

/** What a provider process declares to the hub when it starts, and where its world is. */
export interface ProviderSettings {
  readonly version: string
  readonly listingLagMs: number
  readonly effectTimeoutMs: number
  readonly listIntervalMs: number
  readonly offeringsIntervalMs: number
  /** The calls that the provider allows itself. */
  readonly apiBudget: RateLimit | undefined
  /** The world's folder, given what the configuration says. */
  readonly worldFor: (configured: string | undefined) => string
}

export interface OwnFlags {
  readonly kind: 'dynamic' | 'static'
  readonly settings: ProviderSettings
  /** The flags that are the SDK's business. */
  readonly rest: readonly string[]
}

const version = '0.1.0'

interface Flags {
  readonly kind: 'dynamic' | 'static'
  readonly world?: string
  readonly listingLagMs: number
  readonly effectTimeoutMs: number
  readonly listIntervalMs: number
  readonly offeringsIntervalMs: number
  readonly apiBudget?: RateLimit
}

/** Takes the flags of the simulated providers off a command line. @throws CommanderError where they make no sense. */
export function takeOwnFlags(argv: readonly string[], environment: NodeJS.ProcessEnv): OwnFlags {
  const command = ownFlags().exitOverride().allowUnknownOption().allowExcessArguments().helpOption(false)
  command.parse([...argv], { from: 'user' })
  const { kind, world, apiBudget, ...declared } = command.opts<Flags & Record<string, unknown>>()
  const stateDir = stateDirOf(command.args, environment)
  const worldFor = (configured: string | undefined) => world ?? configured ?? join(stateDir, 'world')
  return { kind, settings: { ...declared, version, apiBudget, worldFor }, rest: command.args }
}

/** Help on the flags of the simulated providers. */
export function ownHelp(): string {
  return ownFlags().helpInformation()
}

function ownFlags(): Command {
  return new Command('slipway-provider-simulated')
    .description(
      'A provider of machines that are simulated: a cloud (dynamic) or a rack (static), with its own record on disk.\n' +
        'Other commands: ledger, vanish, plant; each has its own --help. The flags common to all providers follow below.',
    )
    .addOption(
      new Option('--kind <kind>', 'simulate a cloud or a rack').choices(['dynamic', 'static']).default('dynamic'),
    )
    .addOption(worldOption())
    .addOption(ms('--listing-lag-ms <ms>', 'declared: how long a listing may not show a new server', 0))
    .addOption(ms('--effect-timeout-ms <ms>', 'declared: how long a create may be under way', 10_000))
    .addOption(ms('--list-interval-ms <ms>', 'how often everything is listed', 5_000))
    .addOption(ms('--offerings-interval-ms <ms>', 'how often offerings are told', 5_000))
    .addOption(
      new Option('--api-budget <calls/ms>', 'calls that the provider allows itself by window, as 100/60000').argParser(
        parseBudget,
      ),
    )
}

/** The folder of a world, as a flag or from the environment. */
export function worldOption(): Option {
  return new Option(
    '--world <folder>',
    "the world's folder (default: the configuration's, else <state-dir>/world)",
  ).env('SLIPWAY_SIMULATED_WORLD')
}

/** What was declared to the hub holds for the life of the process: a configuration must keep to it. @throws ProviderError where it does not. */
export function refuseBeyond(flag: string, declaredMs: number, field: string, configuredMs: number): void {
  if (configuredMs <= declaredMs) return
  throw new ProviderError(
    'INVALID_SPEC',
    `${field} comes to ${configuredMs} ms, and this process declares ${declaredMs} ms; start it with ${flag} ${configuredMs}, or set less`,
    { retryable: false },
  )
}

/** Refuses a configuration under which a create may take longer than was declared. @throws ProviderError where it does. */
export function refuseBeyondEffect(
  settings: ProviderSettings,
  latency: DurationSetting,
  answerTimeoutMs: number,
): void {
  const longestMs = (typeof latency === 'number' ? latency : latency.maxMs) + answerTimeoutMs
  refuseBeyond('--effect-timeout-ms', settings.effectTimeoutMs, 'config.latency and answerTimeoutMs', longestMs)
}

function ms(flags: string, description: string, fallback: number): Option {
  return new Option(flags, description).default(fallback).argParser((text) => {
    if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Give whole milliseconds.')
    return Number(text)
  })
}

function parseBudget(text: string): RateLimit {
  const [, limit, windowMs] = /^([1-9]\d{0,8})\/([1-9]\d{0,8})$/.exec(text) ?? []
  if (limit === undefined || windowMs === undefined)
    throw new InvalidArgumentError('Give calls and milliseconds, as 100/60000.')
  return { limit: Number(limit), windowMs: Number(windowMs) }
}

/** The SDK reads this flag; here it is only looked at. */
function stateDirOf(rest: readonly string[], environment: NodeJS.ProcessEnv): string {
  const index = rest.findIndex((argument) => argument === '--state-dir' || argument.startsWith('--state-dir='))
  const flag = rest[index]
  const given = flag === '--state-dir' ? rest[index + 1] : flag?.slice('--state-dir='.length)
  return given ?? environment['SLIPWAY_STATE_DIR'] ?? '.'
}
