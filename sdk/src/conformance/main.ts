import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander'
import type { Adapter } from './adapter.js'
import type { Case } from './case.js'
import { allCases } from './cases/index.js'
import { AdapterError, loadAdapter } from './load-adapter.js'
import { describeCounts, describeProvider, describeResult, describeSkips } from './report/people.js'
import { toJunit } from './report/junit.js'
import { toTap } from './report/tap.js'
import { runConformance, type CaseResult } from './runner.js'

const exitOk = 0
const exitFailure = 1
const exitUsage = 2

/** Where an adapter is looked for that was not named. */
const usualAdapters = ['conformance/adapter.js', 'dist/conformance/adapter.js', 'conformance/adapter']

interface Flags {
  readonly adapter?: string
  readonly only?: readonly string[]
  readonly set: 'basic' | 'all'
  readonly list?: true
  readonly tap?: string
  readonly junit?: string
  readonly transcripts?: string
  readonly jobs: number
  readonly wait: number
}

/** How a call of `slipway-conformance` ended. */
export interface Ending {
  readonly exitCode: number
  /** Of the cases that were chosen; empty where none was run. */
  readonly results: readonly CaseResult[]
}

/** The whole of `slipway-conformance`. @param print takes what is told to people. */
export async function main(argv: readonly string[], print: (text: string) => void = console.log): Promise<Ending> {
  const called = parse(argv)
  if (typeof called === 'number') return { exitCode: called, results: [] }
  const { flags, command } = called
  const cases = select(allCases, flags)
  if (cases.length === 0) return wrong('no case has such a name; see --list')
  if (flags.list === true) return list(cases, print)
  if (command.length === 0 || flags.adapter === undefined)
    return wrong('give --adapter FILE, and the command that starts a provider after --; see --help')
  try {
    return await run(await loadAdapter(flags.adapter), flags, command, cases, print)
  } catch (error) {
    if (error instanceof AdapterError) return wrong(error.message)
    throw error
  }
}

async function run(
  adapter: Adapter,
  flags: Flags,
  command: readonly string[],
  cases: readonly Case[],
  print: (text: string) => void,
): Promise<Ending> {
  const description = await adapter.describe()
  const { hello, results } = await runConformance({
    adapter,
    description,
    command,
    cases,
    jobs: flags.jobs,
    waitMs: flags.wait * 1_000,
    onResult: (result) => {
      print(describeResult(result))
      if (flags.transcripts !== undefined) writeTranscript(flags.transcripts, result)
    },
  })
  if (flags.tap !== undefined) writeFileSync(flags.tap, toTap(results))
  if (flags.junit !== undefined) writeFileSync(flags.junit, toJunit(results, `conformance.${description.family}`))
  const parts = [describeProvider(hello, description), describeSkips(results), describeCounts(results)]
  print(parts.filter((part) => part !== '').join('\n'))
  return { exitCode: results.some(({ outcome }) => outcome === 'failed') ? exitFailure : exitOk, results }
}

function list(cases: readonly Case[], print: (text: string) => void): Ending {
  for (const { id, rule, basic } of cases) print(`${id}${basic === true ? '  (basic)' : ''}\n    ${rule}`)
  print(`${cases.length} cases`)
  return { exitCode: exitOk, results: [] }
}

function wrong(what: string): Ending {
  console.error(what)
  return { exitCode: exitUsage, results: [] }
}

function parse(argv: readonly string[]): { readonly flags: Flags; readonly command: readonly string[] } | number {
  const end = argv.indexOf('--')
  const own = end === -1 ? argv : argv.slice(0, end)
  const program = new Command('slipway-conformance')
    .usage('[options] -- COMMAND [ARGUMENT...]')
    .description(
      'Runs the conformance kit against a provider, over the protocol alone. COMMAND starts one instance of it; it is given SLIPWAY_GATEWAY, SLIPWAY_STATE_DIR,\n' +
        'SLIPWAY_INSTANCE_NAME and, for its first start, SLIPWAY_JOIN_TOKEN in its environment.',
    )
    .addOption(
      new Option('--adapter <file>', "the author's adapter: an ES module, or an executable").default(
        usualAdapters.find((file) => existsSync(file)),
        `whichever of ${usualAdapters.join(', ')} is there`,
      ),
    )
    .option('--only <id>', 'only this case, or this theme, or what a * stands for; may be repeated', collect)
    .addOption(new Option('--set <set>', 'which cases').choices(['basic', 'all']).default('all'))
    .option('--list', 'lists the cases and what they ask for, and runs none')
    .option('--tap <file>', 'writes the results there in the Test Anything Protocol')
    .option('--junit <file>', 'writes the results there as JUnit XML')
    .option('--transcripts <folder>', 'writes what was said and done in each case there')
    .option('--jobs <n>', 'cases at once, where the adapter keeps them apart', wholeNumber, 4)
    .option('--wait <seconds>', 'how long to wait for anything that must happen', wholeNumber, 60)
    .addHelpText(
      'after',
      '\nExit codes: 0 nothing failed, 1 something failed, 2 called wrongly. The last line is `N passed, N failed, N skipped`.',
    )
    .allowExcessArguments(false)
    .exitOverride()
  try {
    const flags = program.parse([...own], { from: 'user' }).opts<Flags & Record<string, unknown>>()
    return { flags, command: end === -1 ? [] : argv.slice(end + 1) }
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0 ? exitOk : exitUsage
  }
}

function select(cases: readonly Case[], { only, set }: Flags): readonly Case[] {
  const patterns = only?.map((text) => new RegExp(`^${text.split('*').map(escape).join('.*')}(/.*)?$`))
  return cases.filter(
    ({ id, basic }) =>
      (set === 'all' || basic === true) && (patterns === undefined || patterns.some((pattern) => pattern.test(id))),
  )
}

function escape(text: string): string {
  return text.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&')
}

function writeTranscript(folder: string, { id, transcript, reason = '', outcome }: CaseResult): void {
  if (transcript === undefined) return
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, `${id.replaceAll('/', '.')}.txt`), `${id}: ${outcome} ${reason}\n${transcript}\n`)
}

function collect(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, text]
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,4}$/.test(text)) throw new InvalidArgumentError('Give a whole number above 0.')
  return Number(text)
}
