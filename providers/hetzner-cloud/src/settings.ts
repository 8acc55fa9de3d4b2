import { Command, InvalidArgumentError, Option } from 'commander'

/** What a provider process declares to the hub when it starts. */
export interface Settings {
  /** How long a listing may not show what was just made. */
  readonly listingLagMs: number
  /** How long a create may be under way. */
  readonly effectTimeoutMs: number
  readonly listIntervalMs: number
  readonly offeringsIntervalMs: number
}

/** Takes the flags of this provider off a command line; the others are the SDK's. @throws CommanderError where they make no sense. */
export function takeSettings(argv: readonly string[]): {
  readonly settings: Settings
  readonly rest: readonly string[]
} {
  const command = ownFlags().exitOverride().allowUnknownOption().allowExcessArguments().helpOption(false)
  command.parse([...argv], { from: 'user' })
  return { settings: command.opts<Settings & Record<string, unknown>>(), rest: command.args }
}

/** Help on them. */
export function settingsHelp(): string {
  return ownFlags().helpInformation()
}

function ownFlags(): Command {
  return new Command('slipway-provider-hetzner-cloud')
    .description('A provider of servers of the Hetzner Cloud. The flags common to all providers follow below.')
    .addOption(ms('--listing-lag-ms', 'declared: how long a listing may not show a new server', 5_000))
    .addOption(ms('--effect-timeout-ms', 'declared: how long a create may be under way', 60_000))
    .addOption(ms('--list-interval-ms', 'how often everything is listed', 60_000))
    .addOption(ms('--offerings-interval-ms', 'how often offerings are told', 60_000))
}

function ms(name: string, description: string, fallback: number): Option {
  const variable = `SLIPWAY_HETZNER_CLOUD_${name.slice(2).replaceAll('-', '_').toUpperCase()}`
  return new Option(`${name} <ms>`, description)
    .env(variable)
    .default(fallback)
    .argParser((text) => {
      if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Give whole milliseconds.')
      return Number(text)
    })
}
