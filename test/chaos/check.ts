import { check } from './checker/rules.js'
import { readHistories } from './checker/histories.js'

// The checker: `node test/dist/chaos/check.js FOLDER`. It reads files, and asks nobody. Exit code 1: a violation; 2: wrong use, or no histories.

const [folder, ...flags] = process.argv.slice(2)
if (folder === undefined || flags.some((flag) => flag !== '--json')) {
  process.stderr.write('usage: node test/dist/chaos/check.js FOLDER [--json]\n')
  process.exit(2)
}
try {
  const violations = check(readHistories(folder))
  if (flags.includes('--json')) process.stdout.write(`${JSON.stringify(violations)}\n`)
  else {
    for (const { rule, message, lines } of violations) {
      process.stdout.write(`VIOLATION ${rule}: ${message}\n`)
      for (const line of lines) process.stdout.write(`    ${JSON.stringify(line)}\n`)
    }
    process.stdout.write(`${violations.length} violations in ${folder}\n`)
  }
  process.exitCode = violations.length === 0 ? 0 : 1
} catch (error) {
  process.stderr.write(`cannot judge ${folder}: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 2
}
