import { readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import type { Logger } from 'pino'
import { FinalError } from '../internal/rpc-error.js'
import { makeLogger, runProvider } from './run.js'
import type { AnyDefinition } from './settings.js'

const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']

interface Flags {
  readonly gateway: string
  readonly stateDir: string
  readonly joinTokenFile?: string
  readonly capacity?: number
  readonly instanceName: string
  readonly logLevel: string
}

/** Exit codes of a provider process: stopped as asked, failed, called wrongly. */
const exitOk = 0
const exitFailure = 1
const exitUsage = 2

/** The whole life of a provider process; ends it with its exit code. */
export async function serveProvider(definition: AnyDefinition, argv: readonly string[]): Promise<void> {
  const flags = parseFlags(definition, argv)
  if (typeof flags === 'number') return exit(flags)
  const log = makeLogger(flags.logLevel)
  try {
    const joinToken = await readJoinToken(flags, log)
    await runProvider(definition, {
      gateway: flags.gateway,
      stateDir: flags.stateDir,
      instanceName: flags.instanceName,
      log,
      signal: stopSignal((name) =>
        log.info({ signal: name }, 'stopping: finishing what cannot be interrupted; once more stops at once'),
      ),
      ...(joinToken !== undefined && { joinToken }),
      ...(flags.capacity !== undefined && { capacity: flags.capacity }),
    })
    exit(exitOk)
  } catch (error) {
    if (error instanceof FinalError) log.fatal({ reason: error.reason }, error.message)
    else log.fatal({ err: error }, 'the provider failed')
    exit(exitFailure)
  }
}

/** What the process was called with, or the exit code that it is to end with. */
function parseFlags(definition: AnyDefinition, argv: readonly string[]): Flags | number {
  const command = new Command(`${definition.family} provider`)
    .description(`Serves a Slipway hub as a ${definition.kind} provider of the family ${definition.family}.`)
    .version(definition.version ?? 'unversioned')
    .addOption(
      option('--gateway <host:port>', "the hub's gateway for providers", 'SLIPWAY_GATEWAY').makeOptionMandatory(),
    )
    .addOption(
      option(
        '--state-dir <folder>',
        "keeps this instance's certificate and key; whoever reads it can act as the provider",
        'SLIPWAY_STATE_DIR',
      ).makeOptionMandatory(),
    )
    .addOption(
      option(
        '--join-token-file <file>',
        'holds the join token from `slipway provider token`, or - for standard input; needed for the first start in a state folder (or SLIPWAY_JOIN_TOKEN, the token itself)',
        'SLIPWAY_JOIN_TOKEN_FILE',
      ),
    )
    .addOption(
      option(
        '--capacity <n>',
        `items worked on at once (default: ${definition.capacity ?? 10})`,
        'SLIPWAY_CAPACITY',
      ).argParser(wholeNumber),
    )
    .addOption(
      option('--instance-name <name>', 'a name for people, shown by the hub', 'SLIPWAY_INSTANCE_NAME').default(
        hostname(),
        'the host name',
      ),
    )
    .addOption(
      option('--log-level <level>', 'how much is logged', 'SLIPWAY_LOG_LEVEL').choices(logLevels).default('info'),
    )
    .addHelpText(
      'after',
      '\nSIGTERM and SIGINT stop it in good order, a second one at once. Logs go to standard output as JSON lines.' +
        '\nExit codes: 0 stopped as asked, 1 failed, 2 called wrongly.',
    )
    .allowExcessArguments(false)
    .exitOverride()
  try {
    return command.parse(argv, { from: 'user' }).opts<Flags & Record<string, unknown>>()
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0 ? exitOk : exitUsage
  }
}

function option(flags: string, description: string, variable: string): Option {
  return new Option(flags, description).env(variable)
}

function wholeNumber(text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 10_000)
    throw new InvalidArgumentError('Give a whole number from 0 to 10000.')
  return Number(text)
}

async function readJoinToken(flags: Flags, log: Logger): Promise<string | undefined> {
  const token = process.env['SLIPWAY_JOIN_TOKEN']
  // What the process starts must not inherit it.
  delete process.env['SLIPWAY_JOIN_TOKEN']
  if (token !== undefined && token !== '') return token
  if (flags.joinTokenFile === undefined) return undefined
  try {
    return await readFile(flags.joinTokenFile === '-' ? '/dev/stdin' : flags.joinTokenFile, 'utf8')
  } catch (error) {
    // A token is needed once; a file that was taken away after that is no reason not to start.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      log.warn(
        { file: flags.joinTokenFile },
        'there is no such join token file; going on with the identity in the state folder',
      )
      return undefined
    }
    throw new FinalError('JOIN_TOKEN_UNREADABLE', `the join token cannot be read: ${(error as Error).message}`, error)
  }
}

/** Fires at the first SIGTERM or SIGINT; the second one ends the process at once. */
function stopSignal(onFirst: (name: NodeJS.Signals) => void): AbortSignal {
  const controller = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(exitFailure)
      onFirst(name)
      controller.abort(new Error(`stopped by ${name}`))
    })
  }
  return controller.signal
}

/** Ends the process even where an author's function or connection would keep it. */
function exit(code: number): void {
  process.exit(code)
}
