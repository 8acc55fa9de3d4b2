import { Command } from 'commander'
import { runKeys, runMigrate, runTokenCreate, runTokenList, runTokenRevoke } from './commands/database.js'
import { serve } from './commands/serve.js'
import { readConfig, redactedConfig, settings } from './config.js'
import { version } from './version.js'

type Flags = Readonly<Record<string, string | boolean | undefined>>

/** Adds every setting as a flag; commander's camel case is turned back, so that flags have one spelling everywhere. */
function withSettings(command: Command): Command {
  for (const { flag, value, env, help, fallback } of settings) {
    const shown = fallback === '' || value === '' ? `${help} [${env}]` : `${help} (default ${fallback}) [${env}]`
    // Commander reads --no-x as the negation of --x; ours is a flag of that very name.
    command.option(flag.startsWith('no-') ? `--${flag}` : `--${flag}${value === '' ? '' : ` <${value}>`}`, shown)
  }
  return command
}

function flagsOf(command: Command): Flags {
  const given = command.opts<Record<string, string | boolean | undefined>>()
  const byFlag: Record<string, string | boolean | undefined> = { ttl: given['ttl'] }
  for (const { flag } of settings) {
    const positive = flag.replace(/^no-/, '')
    const camel = positive.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())
    const value = given[camel]
    byFlag[flag] = flag.startsWith('no-') ? (value === false ? true : undefined) : value
  }
  return byFlag
}

const program = new Command('slipway-hub')
  .description('The Slipway hub: the system of record for machines, machine classes and hosts.')
  .version(version)

withSettings(
  program
    .command('serve')
    .description('run a hub on the database of DATABASE_URL, or on the embedded one of --data-dir'),
).action(async (_options, command: Command) => process.exit(await serve('serve', flagsOf(command))))
withSettings(
  program
    .command('dev')
    .description('run a hub for trying out: embedded database, loopback, everything made by itself'),
).action(async (_options, command: Command) => process.exit(await serve('dev', flagsOf(command))))
withSettings(program.command('migrate').description('apply missing migrations; any number may run at once')).action(
  (_options, command: Command) => runMigrate(flagsOf(command)),
)
withSettings(program.command('config').description('show the settings in force, without secrets')).action(
  (_options, command: Command) => {
    console.log(JSON.stringify(redactedConfig(readConfig('serve', flagsOf(command), process.env)), undefined, 2))
  },
)
withSettings(
  program.command('keys').description('show the key-encryption keys, and how many sealed values each of them wraps'),
).action((_options, command: Command) => runKeys(flagsOf(command)))
const token = program
  .command('token')
  .description('client tokens, straight in the database: for the first one, and for when all are lost')
withSettings(
  token
    .command('create <name>')
    .description('make a token')
    .option('--ttl <TIME>', 'how long it is good for, for example 24h (default: for ever)'),
).action((name: string, _options, command: Command) => runTokenCreate(name, flagsOf(command)))
withSettings(token.command('list').description('list them')).action((_options, command: Command) =>
  runTokenList(flagsOf(command)),
)
withSettings(token.command('revoke <id>').description('end one')).action((id: string, _options, command: Command) =>
  runTokenRevoke(id, flagsOf(command)),
)

program.parseAsync().catch((error: unknown) => {
  console.error(`slipway-hub: ${error instanceof Error ? error.message : String(error)}`)
  process.exit(1)
})
