import { Command, CommanderError, Option } from 'commander'
import { CliError, errorToJson, errorToText, exitCodeOf, exitCodes, usageError } from './failure.js'
import { Session, outputs, type GlobalFlags, type Output } from './session.js'
import type { Surroundings } from './terminal.js'
import { version } from './version.js'

// The command line. Commands are loaded when they are used, so that help appears at once.

const many = (value: string, before: readonly string[] = []) => [...before, value]

interface Run {
  readonly program: Command
  readonly session: (command: Command, more?: readonly Output[]) => Session
  code: number
}

/** Runs the command line to its end. @returns the exit code. */
export async function runCli(argv: readonly string[], surroundings: Surroundings): Promise<number> {
  const program = new Command('slipway')
  const run: Run = {
    program,
    session: (command, more) => new Session(surroundings, command.optsWithGlobals<GlobalFlags>(), more),
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
  addCatalog(run)
  addHosts(run)
  addHostSets(run)
  addOperations(run)
  addSecrets(run)
  addTenancy(run)
  addAudit(run)
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
    .description('sign in, or prove a token, and keep what lets you in')
    .option('--issuer <NAME>', 'where to sign in, if there are several')
    .option('--device', 'with a browser somewhere else: shows a code to enter there')
    .option('--browser', 'with a browser on this machine (default where there is one)')
    .option('--no-browser', 'open none: show its address')
    .option('--token-file <FILE>', 'for programs: file with a token; - for standard input')
    .option('--name <NAME>', 'name of the context (default: the server)')
    .option('--ca-file <FILE>', "authorities to trust in the hub's certificate, PEM")
    .addHelpText(
      'after',
      '\nExamples:\n  slipway login --server https://slipway.example\n  slipway login --server https://slipway.example --token-file token.txt\n',
    )
    .action(async (_options, command: Command) => {
      const { login } = await import('./commands/login.js')
      await login(session(command), command.optsWithGlobals())
    })
  program
    .command('logout')
    .description('end the session, and forget what lets you in')
    .action(async (_options, command: Command) => {
      const { logout } = await import('./commands/sign-in.js')
      await logout(session(command), command.optsWithGlobals<GlobalFlags>().context)
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
    .option('--all', 'RELEASED and GONE ones too, and classes that the hub made for shapes')
    .option('-A, --all-workspaces', 'of all workspaces')
}

function addResources({ program, session }: Run): void {
  const module = () => import('./commands/get.js')
  listFlags(program.command('get <RESOURCE> [NAME...]'))
    .description(
      'show resources: providers, secrets, quotas, pricelists, billingagreements, machineclasses, machines, machinerequests, hosts, hostsets, orphans, organizations, workspaces, principals, rolebindings, tokens, events',
    )
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

function addCatalog({ program, session }: Run): void {
  program
    .command('catalog')
    .description('what the workspace can order, and what it pays for it')
    .option('--family <NAME>', 'only of this family; may be repeated', many)
    .option('--location <NAME>', 'only there; may be repeated', many)
    .option('--min-cpus <N>', 'at least so many CPUs')
    .option('--min-memory <SIZE>', 'at least so much memory, for example 4Gi')
    .option('--arch <ARCH>', 'amd64 or arm64')
    .option('--max-price <AMOUNT>', 'not dearer by the hour')
    .option('--available', 'only what can be had at once')
    .option('--limit <N>', 'at most this many')
    .addHelpText(
      'after',
      '\n-o wide tells of every location its family, its price, how many are left, and how long ago the provider said so.\n\nExample:\n  slipway catalog --min-memory 8Gi --max-price 0.05\n',
    )
    .action(async (_options, command: Command) =>
      (await import('./commands/catalog.js')).catalog(session(command), command.optsWithGlobals()),
    )
  program
    .command('usage')
    .description('what the workspace, or an organization, has used, and what it costs')
    .option('--organization <NAME>', 'of all its workspaces')
    .option('--month <YYYY-MM>', 'of this calendar month (UTC)')
    .option('--from <TIME>', 'from this day or time on, for example 2026-04-01')
    .option('--to <TIME>', 'until this day or time, which is not counted any more')
    .addHelpText(
      'after',
      '\n-o csv writes it as CSV, a line for each host, month, provider and price.\n\nExample:\n  slipway usage --organization acme --month 2026-04 -o csv > acme-2026-04.csv\n',
    )
    .action(async (_options, command: Command) =>
      (await import('./commands/usage.js')).usage(session(command, ['csv']), command.opts()),
    )
}

/** What a host is to be. */
function orderFlags(command: Command): Command {
  return command
    .option('--class <NAME>', 'machine class')
    .option('--cpus <N>', 'instead of a class: so many CPUs')
    .addOption(new Option('--vcpus <N>', 'the same').hideHelp())
    .option('--memory <SIZE>', 'and so much memory, for example 4Gi')
    .option('--disk <SIZE>', 'and such a disk')
    .option('--arch <ARCH>', 'amd64 or arm64')
    .option('--provider <NAME>', 'only there; may be repeated', many)
    .option('--family <NAME>', 'only of this family; may be repeated', many)
    .option('--location <NAME>', 'only there; may be repeated', many)
    .option('--region <NAME>', 'only in this region; may be repeated', many)
    .option('--residency <TAG>', 'only where this may be said of data; may be repeated', many)
    .option(
      '--near <DOMAIN:LABELS>',
      'only in a provider, location or rack with a host labelled so; may be repeated',
      many,
    )
    .option('--apart <DOMAIN:LABELS>', 'only in one with no host labelled so; may be repeated', many)
    .option('--prefer-near <DOMAIN:LABELS>', 'the same where it can be had', many)
    .option('--prefer-apart <DOMAIN:LABELS>', 'the same where it can be had', many)
    .option('--spread-over <DOMAIN[:LABELS]>', 'where the fewest hosts are, or the fewest labelled so', many)
    .option('--max-price <AMOUNT>', 'not dearer by the hour')
    .option('--priority <LEVEL>', 'low, normal or high (default: as the workspace says)')
    .option('--data <KEY=VALUE>', "in the provider's own terms; may be repeated", many)
    .option('--data-file <FILE>', 'the same as an object, JSON or YAML')
    .option('--user-data-file <FILE>', 'user-data; - for standard input')
    .option('--ssh-key <KEY>', 'a public key that may log in, or a file of such; may be repeated', many)
    .option('--label <KEY=VALUE>', 'may be repeated', many)
    .option('--lifetime <TIME>', 'release it by itself after this, for example 8h')
}

function addHostSets({ program, session }: Run): void {
  const set = program.command('hostset').description('keep a number of like hosts')
  const module = () => import('./commands/host-sets.js')
  orderFlags(set.command('create <NAME>').description('make one, and watch it until all members are READY'))
    .requiredOption('--replicas <N>', 'how many members')
    .option('--spread <OVER>', 'none, provider, location, failure-domain')
    .option('--max-surge <N>', 'so many members more while they are replaced (default 1)')
    .option('--max-unavailable <N>', 'so many fewer READY while they are replaced (default 0)')
    .option('--protect', 'members are protected: the set never releases them')
    .option('--dry-run', 'check only')
    .option('--no-wait', 'do not wait until it is READY')
    .option('--timeout <TIME>', 'give up waiting after this; the set stands', '30m')
    .addHelpText(
      'after',
      '\nMembers are called NAME-0, NAME-1, …\n\nExample:\n  slipway hostset create web --class small --replicas 3 --spread location\n',
    )
    .action(async (name: string, _options, command: Command) =>
      (await module()).createSet(session(command), name, command.opts()),
    )
  set
    .command('scale <NAME> <REPLICAS>')
    .description('have more or fewer members')
    .option('--wait', 'until all are READY')
    .option('--timeout <TIME>', 'give up waiting after this', '30m')
    .addHelpText(
      'after',
      '\nOf too many, unhealthy ones go first, then those that are not READY yet, then outdated ones, then the newest. Never a protected one.\n',
    )
    .action(async (name: string, replicas: string, _options, command: Command) =>
      (await module()).scaleSet(session(command), name, replicas, command.opts()),
    )
  set
    .command('status <NAME>')
    .description('how it is coming along')
    .option('--watch', 'until all members are READY and up to date')
    .option('--timeout <TIME>', 'give up waiting after this', '30m')
    .action(async (name: string, _options, command: Command) =>
      (await module()).setStatus(session(command), name, command.opts()),
    )
  for (const [what, text] of [
    ['pause', 'have rollouts and repairs stand still'],
    ['resume', 'have them go on; failures from before count no more'],
  ] as const)
    set
      .command(`${what} <NAME>`)
      .description(text)
      .action(async (name: string, _options, command: Command) =>
        (await module()).setPaused(session(command), name, what === 'pause'),
      )
  set
    .command('delete <NAME>')
    .description('end one; its members stay, as hosts of their own')
    .option('--cascade', 'release its members first')
    .option('-y, --yes', 'do not ask')
    .option('--wait', 'until it is gone')
    .option('--timeout <TIME>', 'give up waiting after this', '30m')
    .action(async (name: string, _options, command: Command) =>
      (await module()).deleteSet(session(command), name, command.opts()),
    )
}

function addHosts({ program, session }: Run): void {
  const host = program.command('host').description('order and release hosts')
  const module = () => import('./commands/hosts.js')
  orderFlags(host.command('order <NAME>').description('order a host, and watch it until it is READY'))
    .option('--hostname <NAME>', 'default: its name')
    .option('--explain', 'show every place that was considered, and order nothing')
    .option('--dry-run', 'check and price only')
    .option('--no-wait', 'do not wait until it is READY')
    .option('--timeout <TIME>', 'give up waiting after this; the order stands', '30m')
    .addHelpText(
      'after',
      '\nExamples:\n  slipway host order web-1 --class small\n  slipway host order db-1 --cpus 4 --memory 16Gi --location fsn1 --explain\n  slipway host order web-2 --class small --label app=web --apart rack:app=web --prefer-near location:app=db\n',
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
    .command('adopt <NAME>')
    .description('make a host of a server that exists already at a provider, untouched, and watch it until it is READY')
    .requiredOption('--provider <PROVIDER>', 'the provider that it is at, a dynamic one')
    .requiredOption('--id <ID>', "the server's id there, exactly as the provider writes it")
    .requiredOption('--class <NAME>', 'the machine class that it is kept and charged as')
    .option('--type <TYPE>', 'its type there; needed where the class offers several')
    .option('--location <LOCATION>', 'its location there; needed where the class offers several')
    .option('--hostname <NAME>', 'the name that it goes by; default: NAME')
    .option('--label <KEY=VALUE>', 'of the host; may be repeated', many)
    .option('--dry-run', 'check, and have the provider look at it only')
    .addOption(new Option('--validate-only').hideHelp())
    .option('--no-wait', 'do not wait until it is READY')
    .option('--timeout <TIME>', 'give up waiting after this; the order stands', '10m')
    .addHelpText(
      'after',
      '\nThe host is protected: take that off before you release it, which deletes the server. Until it is READY, a release leaves the server alone.\n\nExample:\n  slipway host adopt db-1 --provider fsn1 --id 4711 --class medium\n',
    )
    .action(async (name: string, _options, command: Command) =>
      (await import('./commands/host-adopt.js')).adopt(session(command), name, command.opts()),
    )
  host
    .command('protect <NAME> <on|off>')
    .description('keep it from being released, or no longer')
    .action(async (name: string, wish: string, _options, command: Command) =>
      (await module()).protect(session(command), name, wish),
    )
  host
    .command('extend <NAME>')
    .description('move the time at which it is released by itself')
    .option('--lifetime <TIME>', 'this long from now, for example 8h')
    .option('--until <TIME>', 'this time, for example 2030-01-31T18:00:00Z')
    .option('--never', 'it stays until somebody releases it')
    .action(async (name: string, _options, command: Command) =>
      (await module()).extend(session(command), name, command.opts()),
    )
  host
    .command('retry <NAME>')
    .description('lead a host out of ERROR')
    .action(async (name: string, _options, command: Command) => (await module()).retry(session(command), name))
}

function addMachineLife(machine: Command, session: Run['session']): void {
  const module = () => import('./commands/machine-life.js')
  machine
    .command('maintenance <NAME> <on|off>')
    .description('have it left alone while somebody is at work on it, or no longer: its deadlines stand still')
    .option('--reason <TEXT>', 'why, for others')
    .action(async (name: string, wish: string, _options, command: Command) =>
      (await module()).maintenance(session(command), name, wish, command.opts()),
    )
  machine
    .command('hold <NAME>')
    .description('stop it where it is in its life, until unhold')
    .requiredOption('--reason <TEXT>', 'why, for others')
    .action(async (name: string, _options, command: Command) =>
      (await module()).hold(session(command), name, command.opts()),
    )
  machine
    .command('unhold <NAME>')
    .description('let it go on where it was')
    .action(async (name: string, _options, command: Command) => (await module()).unhold(session(command), name))
  machine
    .command('adopt <NAME>')
    .description('make a host of a server that is in use, untouched; host and machine are protected')
    .requiredOption('--hostname <NAME>', 'the name that it goes by')
    .option('--host <ID>', 'the host to make of it; default: the first part of its hostname')
    .option('--class <NAME>', 'machine class that it counts for; default: one for what it has')
    .option('--wait', 'until it is READY')
    .option('--timeout <TIME>', 'give up waiting after this', '10m')
    .addHelpText('after', '\nExample:\n  slipway machine adopt m-1 -w production --hostname web-1.example.org --wait\n')
    .action(async (name: string, _options, command: Command) =>
      (await module()).adopt(session(command), name, command.opts()),
    )
  machine
    .command('move <NAME>')
    .description('put it under another provider that lists it too; its host keeps it, untouched')
    .requiredOption('--to <PROVIDER>', 'the provider')
    .option('--yes', 'do not ask')
    .action(async (name: string, _options, command: Command) =>
      (await module()).move(session(command), name, command.opts()),
    )
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
  machine
    .command('console <NAME>')
    .description('show what it writes to its console')
    .option('-f, --follow', 'go on with what comes, over interruptions, until Ctrl-C')
    .option('--tail <N>', 'begin N lines before the end of what there is (default: with all of it)')
    .option('--raw', 'pass control characters and escape sequences on to a file or pipe, too')
    .addHelpText(
      'after',
      '\nThe bytes go to standard output as they are where that is a terminal; elsewhere without escape sequences and\ncontrol characters, but with --raw. A console may hold secrets: mind where you keep it.\n\nExamples:\n  slipway machine console m-1 --follow --tail 50\n  slipway machine console m-1 --raw > console.log\n',
    )
    .action(async (name: string, _options, command: Command) =>
      (await import('./commands/console.js')).machineConsole(session(command), name, command.opts()),
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
  addMachineLife(machine, session)
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
    .option('--credentials-secret <NAME>', 'the secret that holds its credentials, instead of a file')
    .option('--owner <NAME>', 'whose it is: organizations/NAME or workspaces/NAME (default: everybody may use it)')
    .option('--pool <NAME>', 'the pool that it can be claimed from')
    .option('--region <NAME>', 'where it is')
    .option('--residency <TAG>', 'what may be said of where data stays; may be repeated', many)
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
    .command('release-holds <NAME>')
    .description(
      'offer again what is held back because a create was refused; other providers with the same secret offer it again, too',
    )
    .option('--type <ID>', 'only this type')
    .option('--location <NAME>', 'only there')
    .addHelpText('after', '\n`slipway describe provider NAME` shows what is held back, why, and until when.\n')
    .action(async (name: string, options: { type?: string; location?: string }, command: Command) =>
      (await module()).releaseHolds(session(command), name, options),
    )
  provider
    .command('claim <POOL>')
    .description('give a workspace a provider of a pool')
    .requiredOption('--for <WORKSPACE>', 'which workspace')
    .action(async (pool: string, options: { for: string }, command: Command) =>
      (await module()).claimProvider(session(command), pool, options.for),
    )
  provider
    .command('release <NAME>')
    .description('give a provider back to its pool; nothing of its workspace may be left there')
    .action(async (name: string, _options, command: Command) =>
      (await module()).releaseProvider(session(command), name),
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

function addSecrets({ program, session }: Run): void {
  const module = () => import('./commands/secrets.js')
  const secret = program.command('secret').description('what is written and used, and never read back')
  const withData = (command: Command) =>
    command
      .option('--data-file <FILE>', 'what it holds, an object as JSON or YAML; - for standard input')
      .option('--key-file <KEY=FILE>', 'a key whose value is a whole file; may be repeated', many)
  withData(secret.command('create <NAME>').description('store a secret; NAME, or ORGANIZATION/NAME'))
    .option('--description <TEXT>', 'what it holds, for people')
    .addHelpText('after', '\nExample:\n  slipway secret create hetzner --key-file apiToken=token.txt\n')
    .action(async (name: string, _options, command: Command) =>
      (await module()).createSecret(session(command), name, command.opts()),
    )
  withData(
    secret
      .command('rotate <NAME>')
      .description('a new version; the one before goes when all that use it work with this'),
  ).action(async (name: string, _options, command: Command) =>
    (await module()).rotateSecret(session(command), name, command.opts()),
  )
}

function addTenancy({ program, session }: Run): void {
  const module = () => import('./commands/tenancy.js')
  const displayed = (command: Command) => command.option('--display-name <TEXT>', 'for people')
  displayed(
    program.command('organization').description('tenants of the hub').command('create <NAME>').description('make one'),
  ).action(async (name: string, _options, command: Command) =>
    (await module()).createOrganization(session(command), name, command.opts()),
  )
  const workspace = program.command('workspace').description('where hosts live')
  workspace
    .command('share <NAME>')
    .description('say what it is due where several compete for one provider')
    .option('--weight <N>', 'its part, against the weights of the others (default 1)')
    .option('--priority <LEVEL>', 'of its orders that say nothing: low, normal or high (default normal)')
    .option('--max-priority <LEVEL>', 'the highest that its orders may ask for (default: as --priority)')
    .action(async (name: string, _options, command: Command) =>
      (await module()).setShare(session(command), name, command.opts()),
    )
  displayed(workspace.command('create <NAME>').description('make one'))
    .requiredOption('--organization <NAME>', 'to whom it belongs')
    .action(async (name: string, _options, command: Command) =>
      (await module()).createWorkspace(session(command), name, command.opts()),
    )
  const principal = program.command('principal').description('users and service accounts')
  displayed(principal.command('create <NAME>').description('make one; ORGANIZATION/NAME, or NAME for the hub itself'))
    .option('--user', 'a person; without it, a service account')
    .addHelpText('after', '\nExample:\n  slipway principal create acme/deploy\n')
    .action(async (name: string, _options, command: Command) =>
      (await module()).createPrincipal(session(command), name, command.opts()),
    )
  for (const [what, text] of [
    ['disable', 'keep it out, and cut what it has open'],
    ['enable', 'let it in again'],
  ] as const)
    principal
      .command(`${what} <NAME>`)
      .description(text)
      .action(async (name: string, _options, command: Command) =>
        (await module()).setDisabled(session(command), name, what === 'disable'),
      )
  addIdentities(principal, session)
  program
    .command('role')
    .description('what principals may do')
    .command('bind <ROLE> <PRINCIPAL>')
    .description('give a role; `slipway delete rolebinding` takes it back')
    .option('--organization <NAME>', 'there: owner, operator, host-creator, viewer')
    .option('--in-workspace <NAME>', 'only in this workspace')
    .addHelpText(
      'after',
      '\nExamples:\n  slipway role bind operator acme/deploy --organization acme\n  slipway role bind auditor eve\n',
    )
    .action(async (role: string, name: string, _options, command: Command) =>
      (await module()).bindRole(session(command), role, name, command.opts()),
    )
  const token = program.command('token').description('tokens of principals')
  displayed(
    token.command('create [PRINCIPAL]').description('make one, for yourself where nobody is named; it is shown once'),
  )
    .option('--ttl <TIME>', 'how long it is good for, for example 24h (default: for ever)')
    .action(async (name: string | undefined, _options, command: Command) =>
      (await module()).createToken(session(command), name, command.opts()),
    )
  token
    .command('revoke <ID>')
    .description('end one; watches that rest on it end at once')
    .action(async (id: string, _options, command: Command) => (await module()).revokeToken(session(command), id))
}

function addIdentities(principal: Command, session: Run['session']): void {
  const module = () => import('./commands/identities.js')
  principal
    .command('link <NAME>')
    .description('say who at an issuer is this user, before the first sign-in')
    .requiredOption('--issuer <NAME>', 'where the user signs in')
    .option('--subject <TEXT>', 'who it is there, by the claim that names users')
    .option('--email <ADDRESS>', 'by which verified address the first sign-in is recognized')
    .addHelpText('after', '\nExample:\n  slipway principal link acme/ada --issuer acme --email ada@acme.example\n')
    .action(async (name: string, _options, command: Command) =>
      (await module()).linkIdentity(session(command), name, command.opts()),
    )
  principal
    .command('identities <NAME>')
    .description('who at which issuers is this user')
    .action(async (name: string, _options, command: Command) => (await module()).listIdentities(session(command), name))
  principal
    .command('unlink <NAME> <ID>')
    .description('take a link away, and end its sessions')
    .action(async (name: string, id: string, _options, command: Command) =>
      (await module()).unlinkIdentity(session(command), name, id),
    )
}

function addAudit({ program, session }: Run): void {
  const module = () => import('./commands/audit.js')
  const audit = program.command('audit').description('who did what')
  const chain = (name: string, text: string) =>
    audit.command(name).description(text).option('--organization <NAME>', "its log (default: the hub's own)")
  chain('list', 'show it, newest first')
    .option('--principal <NAME>', 'only by this principal, by its resource name')
    .option('--resource <NAME>', 'only to this resource')
    .option('--method <NAME>', 'only by this method, for example CreateHost')
    .option('--denied', 'only what was refused')
    .option('--since <TIME>', 'only of the last 10m, 2h, …')
    .option('--limit <N>', 'at most this many (default 100)')
    .action(async (_options, command: Command) => (await module()).listAudit(session(command), command.opts()))
  chain('verify', 'prove that nobody has changed it since it was sealed')
    .option('--head <FILE>', 'and that it still leads to this end, which was exported before')
    .action(async (_options, command: Command) => (await module()).verifyAudit(session(command), command.opts()))
  chain('export', 'write it out, oldest first, a line of JSON each')
    .option('--head <FILE>', 'and the signed end of its chain into this file')
    .addHelpText(
      'after',
      '\nExample:\n  slipway audit export --organization acme --head acme-head.json > acme-audit.ndjson\n',
    )
    .action(async (_options, command: Command) => (await module()).exportAudit(session(command), command.opts()))
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
