#!/usr/bin/env node
import { existsSync } from 'node:fs'

const program = new URL('../dist/conformance/main.js', import.meta.url)
if (existsSync(program)) {
  const { main } = await import(program.href)
  const { exitCode } = await main(process.argv.slice(2))
  // What was written to a pipe that is full is still on its way.
  process.stdout.write('', () => process.exit(exitCode))
} else {
  console.error('slipway-conformance is not built yet: run `npm run build` first.')
  process.exit(1)
}
