import { Command, CommanderError } from 'commander'
import { CliError, errorToJson, errorToText, exitCodeOf, exitCodes, usageError } from './failure.js'
import { Session, outputs, type GlobalFlags } from './session.js'
import type { Surroundings } from './terminal.js'
import { version } from './version.js'

// The command line. Commands are loaded when they are used, so that help appears at once.

const many = (value: string, before: readonly string[] = []) => [...before, value]

interface Run {
  readonly program: Command
  readonly session: (command: Command) => Session
  code: number
}

/** Runs the command line to its end. @returns the exit code. */
export async function runCli(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  const program = new Command('slipway')
  const run: Run = {
    program,
    session: (command) => new Session(surroundings, command.optsWithGlobals<GlobalFlags>()),
    code: exitCodes.ok,
  }
  program
    .description('Order and keep servers.')
    .option('-o, --output <FORMAT>', `${outputs.join(', ')} (default table)`)
    .option('--no-headers', 'tables without headings')
    .option('--context <NAME>', 'which saved hub to speak to [SLIPWAY_CONTEXT]')
    .option('--server <URL>', 'which hub to speak to [SLIPWAY_SERVER; its token from SLIPWAY_TOKEN]')
    .option('-w, --workspace <NAME>', 'the workspace (default: default) [SLIPWAY_WORKSPACE]')
    .version(version, '-V, --version')
    .showHelpAfterError('See --help.')
    .configureOutput({
      writeOut: (text) => surroundings.stdout.write(text),
      writeErr: (text) => surroundings.stderr.write(text),
    })
    .exitOverride()
    .addHelpText(
      'after',
      '\nExit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 not allowed, 5 wait timed out, 6 failed for good while waiting,\n7 changes found (diff, apply --exit-code), 8 hub unavailable, 130 interrupted.\n',
    )
  addAccount(run)
  addResources(run)
  addDocuments(run)
  addHosts(run)
  addOperations(run)
  addCompletion(run)
  for (const command of allCommands(program))
    command.exitOverride().configureOutput({
      writeOut: (text) => surroundings.stdout.write(text),
      writeErr: (text) => surroundings.stderr.write(text),
    })
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return run.code
  } catch (error) {
    return explain(error, argv, surroundings)
  }
}

function allCommands(command: Command): Command[] {
  return command.commands.flatMap((child) => [child, ...allCommands(child)])
}

function explain(error: unknown, argv: readonly string[], surroundings: Surroundings): number {
  // Commander has said what was wrong already.
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage
  if (surroundings.signal.aborted && !(error instanceof CliError)) return exitCodes.interrupted
  const wantsJson = argv.some(
    (word, index) =>
      word === '-ojson' ||
      ((word === '-o' || word === '--output') && argv[index + 1] === 'json') ||
      word === '--output=json',
  )
  surroundings.stderr.write(wantsJson ? `${JSON.stringify(errorToJson(error))}\n` : errorToText(error))
  return exitCodeOf(error)
}

function addAccount({ program, session }: Run): void {
  program
    .command('login')
    .description('prove a client token, and keep it')
    .requiredOption('--token-file <FILE>', 'file with the token; - for standard input')
    .option('--name <NAME>', 'name of the context (default: the server)')
    .option('--ca-file <FILE>', 'authorities to trust, PEM')
    .addHelpText('after', '\nExample:\n  slipway login --server https://slipway.example --token-file token.txt\n')
    .action(async (_options, command: Command) => {
      const { login } = await import('./commands/login.js')
      await login(session(command), command.optsWithGlobals())
    })
  const context = program.command('context').description('saved hubs')
  const module = () => import('./commands/login.js')
  context
    .command('list')
    .description('list them')
    .action(async (_options, command: Command) => (await module()).contextList(session(command)))
  context
    .command('use <NAME>')
    .description('speak to this one from now on')
    .action(async (name: string, _options, command: Command) => (await module()).contextUse(session(command), name))
  context
    .command('show [NAME]')
    .description('show one; the token stays hidden')
    .action(async (name: string | undefined, _options, command: Command) =>
      (await module()).contextShow(session(command), name),
    )
  context
    .command('current')
    .description('show the one in use')
    .action(async (_options, command: Command) => (await module()).contextShow(session(command), undefined))
  context
    .command('delete <NAME>')
    .description('forget one')
    .action(async (name: string, _options, command: Command) => (await module()).contextDelete(session(command), name))
  program
    .command('whoami')
    .description('who the hub takes you for')
    .action(async (_options, command: Command) => (await module()).whoami(session(command)))
  program
    .command('version')
    .description('the version of this command line')
    .action((_options, command: Command) => session(command).printValue({ version }, `${version}\n`))
}

function listFlags(command: Command): Command {
  return command
    .option('--state <STATE>', 'only in this state; may be repeated', many)
    .option('--provider <NAME>', 'only of this provider')
    .option('--class <NAME>', 'only of this machine class')
    .option('-l, --selector <SELECTOR>', 'only with these labels, for example zone=a,tier!=test')
    .option('--limit <N>', 'at most this many')
    .option('--all', 'RELEASED and GONE ones too')
    .option('-A, --all-workspaces', 'of all workspaces')
}

function addResources({ program, session }: Run): void {
  const module = () => import('./commands/get.js')
  listFlags(program.command('get <RESOURCE> [NAME...]'))
    .description('show resources: providers, machineclasses, machines, machinerequests, hosts, orphans, events')
    .option('--watch', 'go on with every change')
    .addHelpText(
      'after',
      '\nExamples:\n  slipway get hosts\n  slipway get host web-1 -o yaml\n  slipway get machines --state AVAILABLE --provider rack-1\n',
    )
    .action(async (word: string, names: string[], _options, command: Command) =>
      (await module()).get(session(command), word, names, command.opts()),
    )
  listFlags(program.command('watch <RESOURCE> [NAME]'))
    .description('follow resources as they change')
    .action(async (word: string, name: string | undefined, _options, command: Command) =>
      (await module()).get(session(command), word, name === undefined ? [] : [name], {
        ...command.opts(),
        watch: true,
      }),
    )
  program
    .command('describe <RESOURCE> <NAME>')
    .description('all about one, with its conditions, its last error and its timeline')
    .action(async (word: string, name: string, _options, command: Command) =>
      (await module()).describe(session(command), word, name),
    )
  program
    .command('events [RESOURCE/NAME]')
    .description('the timeline, oldest first')
    .option('--watch', 'go on with every event')
    .option('--since <TIME>', 'only of the last 10m, 2h, …')
    .option('--limit <N>', 'at most this many, the newest')
    .action(async (reference: string | undefined, _options, command: Command) =>
      (await module()).events(session(command), reference, command.opts()),
    )
  program
    .command('wait <RESOURCE/NAME...>')
    .description('wait until something is so; what does not exist yet is waited for, what failed for good is not')
    .requiredOption(
      '--for <GOAL>',
      'ready, released, deleted, state=STATE, condition=TYPE[=STATUS]; may be repeated, and all must hold',
      many,
    )
    .option('--timeout <TIME>', 'give up after this', '10m')
    .addHelpText('after', '\nExample:\n  slipway wait host/web-1 host/web-2 --for ready --timeout 5m\n')
    .action(async (references: string[], _options, command: Command) =>
      (await import('./commands/operate.js')).wait(session(command), references, command.opts()),
    )
  program
    .command('delete <RESOURCE> <NAME>')
    .description('delete one; a host is released by it')
    .option('-y, --yes', 'do not ask')
    .option('--wait', 'until it is gone')
    .option('--timeout <TIME>', 'give up waiting after this', '15m')
    .action(async (word: string, name: string, _options, command: Command) =>
      (await import('./commands/operate.js')).remove(session(command), word, name, command.opts()),
    )
}

function addDocuments(run: Run): void {
  const { program, session } = run
  const module = () => import('./commands/documents.js')
  const documents = (name: string, description: string) =>
    program
      .command(name)
      .description(description)
      .requiredOption('-f, --filename <FILE>', 'YAML or JSON; a folder; - for standard input')
  documents('apply', 'make what is missing, change what differs')
    .option('--dry-run', 'check only')
    .option('--exit-code', 'end with 7 where something changed')
    .action(async (_options, command: Command) => {
      run.code = await (await module()).apply(session(command), command.opts())
    })
  documents('create', 'make what is missing, refuse what is there')
    .option('--dry-run', 'check only')
    .action(async (_options, command: Command) => {
      run.code = await (await module()).createAll(session(command), command.opts())
    })
  documents('diff', 'what apply would change; ends with 7 where that is something').action(
    async (_options, command: Command) => {
      run.code = await (await module()).diff(session(command), command.opts())
    },
  )
}

function addHosts({ program, session }: Run): void {
  const host = program.command('host').description('order and release hosts')
  const module = () => import('./commands/hosts.js')
  host
    .command('order <NAME>')
    .description('order a host, and watch it until it is READY')
    .option('--class <NAME>', 'machine class')
    .option('--vcpus <N>', 'instead of a class: so many CPUs')
    .option('--memory <SIZE>', 'and so much memory, for example 4Gi')
    .option('--disk <SIZE>', 'and such a disk')
    .option('--arch <ARCH>', 'amd64 or arm64')
    .option('--hostname <NAME>', 'default: its name')
    .option('--provider <NAME>', 'only there; may be repeated', many)
    .option('--family <NAME>', 'only of this family; may be repeated', many)
    .option('--location <NAME>', 'only there; may be repeated', many)
    .option('--max-price <AMOUNT>', 'not dearer by the hour')
    .option('--data <KEY=VALUE>', "in the provider's own terms; may be repeated", many)
    .option('--data-file <FILE>', 'the same as an object, JSON or YAML')
    .option('--user-data-file <FILE>', 'user-data; - for standard input')
    .option('--label <KEY=VALUE>', 'may be repeated', many)
    .option('--explain', 'show every place that was considered, and order nothing')
    .option('--dry-run', 'check and price only')
    .option('--no-wait', 'do not wait until it is READY')
    .option('--timeout <TIME>', 'give up waiting after this; the order stands', '30m')
    .addHelpText(
      'after',
      '\nExamples:\n  slipway host order web-1 --class small\n  slipway host order db-1 --vcpus 4 --memory 16Gi --location fsn1 --explain\n',
    )
    .action(async (name: string, _options, command: Command) =>
      (await module()).order(session(command), name, command.opts()),
    )
  host
    .command('release <NAME>')
    .description('give a host back; its data is lost')
    .option('-y, --yes', 'do not ask')
    .option('--wait', 'until nothing of it exists any more')
    .option('--timeout <TIME>', 'give up waiting after this', '30m')
    .action(async (name: string, _options, command: Command) =>
      (await module()).release(session(command), name, command.opts()),
    )
  host
    .command('reinstall <NAME>')
    .description('put a new system on its machine, and watch it until it is READY; its data is lost')
    .option('--data <KEY=VALUE>', "what is to be different, in the provider's own terms; may be repeated", many)
    .option('--data-file <FILE>', 'the same as an object, JSON or YAML')
    .option('--user-data-file <FILE>', 'other user-data; - for standard input')
    .option('--dry-run', 'check only')
    .option('-y, --yes', 'do not ask')
    .option('--no-wait', 'do not wait until it is READY')
    .option('--timeout <TIME>', 'give up waiting after this; the wish stands', '30m')
    .addHelpText('after', '\nExample:\n  slipway host reinstall web-1 --data image=debian-13 --yes\n')
    .action(async (name: string, _options, command: Command) =>
      (await module()).reinstall(session(command), name, command.opts()),
    )
  host
    .command('retry <NAME>')
    .description('lead a host out of ERROR')
    .action(async (name: string, _options, command: Command) => (await module()).retry(session(command), name))
}

function addOperations({ program, session }: Run): void {
  const module = () => import('./commands/operate.js')
  const machine = program.command('machine').description('machines, and their power')
  machine
    .command('power <NAME> <on|off|reboot>')
    .description('switch it')
    .option('--wait', 'until it is so')
    .option('--timeout <TIME>', 'give up waiting after this', '10m')
    .action(async (name: string, action: string, _options, command: Command) =>
      (await module()).power(session(command), name, action, command.opts()),
    )
  machine
    .command('rescue <NAME>')
    .description('start its rescue system, or its own again')
    .option('--ssh-key <NAME>', 'a key that the provider knows, which may log in; may be repeated', many)
    .option('--ssh-key-file <FILE>', 'a public key that may log in; may be repeated', many)
    .option('--leave', 'start its own system again')
    .option('--wait', 'until it is so')
    .option('--timeout <TIME>', 'give up waiting after this', '10m')
    .addHelpText('after', '\nExample:\n  slipway machine rescue m-1 --ssh-key-file ~/.ssh/id_ed25519.pub --wait\n')
    .action(async (name: string, _options, command: Command) =>
      (await module()).rescue(session(command), name, command.opts()),
    )
  for (const [what, text] of [
    ['accept', 'take a discovered machine into service; its disks are wiped'],
    ['retry', 'lead it out of a failed state'],
    ['cordon', 'let no order take it'],
    ['uncordon', 'let orders take it again'],
  ] as const) {
    machine
      .command(`${what} <NAME>`)
      .description(text)
      .action(async (name: string, _options, command: Command) =>
        (await module()).operateMachine(session(command), name, what),
      )
  }
  machine
    .command('maintenance <NAME> <on|off>')
    .description('keep every timer and order off it, or no longer')
    .action(async (name: string, wish: string, _options, command: Command) => {
      if (wish !== 'on' && wish !== 'off') throw usageError(`maintenance is on or off, and not «${wish}»`)
      await (
        await module()
      ).operateMachine(session(command), name, wish === 'on' ? 'maintenance-on' : 'maintenance-off')
    })
  const request = program.command('machinerequest').description('machine requests')
  request
    .command('retry <NAME>')
    .description('make its next attempt due at once')
    .action(async (name: string, _options, command: Command) =>
      (await module()).operateRequest(session(command), name, { retry: true }),
    )
  request
    .command('forget <NAME>')
    .description('end one that cannot be ended by its provider; its machine may go on costing money')
    .requiredOption('--reason <TEXT>', 'why; it is kept')
    .option('-y, --yes', 'do not ask')
    .action(async (name: string, options: { reason: string; yes?: boolean }, command: Command) =>
      (await module()).operateRequest(session(command), name, { forget: options.reason, yes: options.yes ?? false }),
    )
  const provider = program.command('provider').description('providers')
  provider
    .command('add <NAME>')
    .description('add a source of machines')
    .requiredOption('--family <FAMILY>', 'the kind of API behind it')
    .requiredOption('--kind <static|dynamic>', 'whether its machines exist already')
    .option('--config-file <FILE>', 'its configuration, JSON or YAML')
    .option('--credentials-file <FILE>', 'its credentials, JSON or YAML; - for standard input')
    .option('--auto-accept', 'static: take machines into service as soon as they are discovered')
    .action(async (name: string, _options, command: Command) =>
      (await module()).addProvider(session(command), name, command.opts()),
    )
  provider
    .command('token <NAME>')
    .description('a token with which one new instance enrols, once')
    .option('--ttl <TIME>', 'how long it can be used', '1h')
    .action(async (name: string, options: { ttl: string }, command: Command) =>
      (await module()).providerToken(session(command), name, options.ttl),
    )
  provider
    .command('drain <NAME>')
    .description('place no new orders on it')
    .action(async (name: string, _options, command: Command) =>
      (await module()).drainProvider(session(command), name, true),
    )
  provider
    .command('undrain <NAME>')
    .description('place orders on it again')
    .action(async (name: string, _options, command: Command) =>
      (await module()).drainProvider(session(command), name, false),
    )
  addOrphans({ program, session }, provider)
}

function addOrphans({ program, session }: Pick<Run, 'program' | 'session'>, provider: Command): void {
  const module = () => import('./commands/orphans.js')
  const orphan = program.command('orphan').description('what exists out there under our key, and no record owns')
  orphan
    .command('remove <NAME>')
    .description('remove what it stands for, whatever the policy says; its data is lost')
    .option('-y, --yes', 'do not ask')
    .option('--wait', 'until it is not listed any more')
    .option('--timeout <TIME>', 'give up waiting after this; the order stands', '15m')
    .addHelpText('after', '\nExample:\n  slipway orphan remove o-4f1c2ab09d3e --yes\n')
    .action(async (name: string, _options, command: Command) =>
      (await module()).removeOrphan(session(command), name, command.opts()),
    )
  orphan
    .command('keep <NAME>')
    .description('have the policy leave it alone')
    .requiredOption('--reason <TEXT>', 'why; it is kept')
    .action(async (name: string, options: { reason: string }, command: Command) =>
      (await module()).keepOrphan(session(command), name, options.reason),
    )
  orphan
    .command('unkeep <NAME>')
    .description('leave it to the policy again')
    .action(async (name: string, _options, command: Command) => (await module()).keepOrphan(session(command), name, ''))
  provider
    .command('orphans <NAME>')
    .description('set what becomes of its orphans; removal that had stopped itself goes on')
    .option('--mode <report|remove>', 'show them, or remove them')
    .option('--min-age <TIME>', 'remove only what was seen for this long')
    .option('--max-per-pass <N>', 'at most this many after one listing')
    .option('--max-percent <N>', 'stop where more than this share of what is listed would go after one listing')
    .addHelpText('after', '\nExample:\n  slipway provider orphans fra1 --mode remove --min-age 2h\n')
    .action(async (name: string, _options, command: Command) =>
      (await module()).setOrphanPolicy(session(command), name, command.opts()),
    )
}

function addCompletion({ program, session }: Run): void {
  const module = () => import('./completion.js')
  program
    .command('completion <SHELL>')
    .description('a script for bash, zsh, fish')
    .addHelpText('after', '\nExample:\n  source <(slipway completion bash)\n')
    .action(async (shell: string, _options, command: Command) => {
      const { completionScript, shellNames } = await module()
      const script = completionScript(shell)
      if (script === undefined)
        throw usageError(`there is no completion for ${shell}; there is for ${shellNames.join(', ')}`)
      session(command).print(script)
    })
  program
    .command('__complete [WORDS...]', { hidden: true })
    .allowUnknownOption()
    .action(async (words: string[], _options, command: Command) => {
      const { complete } = await module()
      for (const word of await complete(program, session(command), words)) session(command).print(`${word}\n`)
    })
}
