import { parse } from 'node:path'
import { describeCounts, main, type CaseResult } from '@slipway/sdk/conformance'
import { families, Unsupported } from './families.js'

// `npm run conformance -- FAMILY [options of the kit]`: the kit against a provider of this repository.

/** Options whose value is a file or folder: each target gets one of its own. */
const outputs = ['--tap', '--junit', '--transcripts']

/** The options for one of several targets. */
function optionsFor(name: string, options: readonly string[]): string[] {
  return options.map((option, index) => {
    if (!outputs.includes(options[index - 1] ?? '')) return option
    const { dir, name: file, ext } = parse(option)
    return `${dir === '' ? '' : `${dir}/`}${file}-${name}${ext}`
  })
}

async function runAll(name: string, options: readonly string[]): Promise<number> {
  const find = families[name]
  if (find === undefined) {
    console.error(
      `give a family first, one of ${Object.keys(families).join(', ')}; then options of slipway-conformance`,
    )
    return 2
  }
  const targets = find()
  const all: CaseResult[] = []
  let exitCode = 0
  for (const target of targets) {
    if (targets.length > 1) console.log(`# ${target.name}`)
    const own = targets.length > 1 ? optionsFor(target.name, options) : options
    const ended = await main(['--adapter', target.adapter, ...own, '--', ...target.command])
    all.push(...ended.results)
    exitCode = Math.max(exitCode, ended.exitCode)
  }
  if (targets.length > 1 && all.length > 0) console.log(`# all of ${name}\n${describeCounts(all)}`)
  return exitCode
}

const [name = '', ...options] = process.argv.slice(2)
try {
  process.exit(await runAll(name, options))
} catch (error) {
  if (!(error instanceof Unsupported)) throw error
  console.error(error.message)
  process.exit(2)
}
