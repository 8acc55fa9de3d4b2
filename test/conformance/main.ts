import { main } from '@slipway/sdk/conformance'
import { families } from './families.js'

// `npm run conformance -- FAMILY [options of the kit]`: the kit against a provider of this repository.

const [name = '', ...options] = process.argv.slice(2)
const family = families[name]
if (family === undefined) {
  console.error(`give a family first, one of ${Object.keys(families).join(', ')}; then options of slipway-conformance`)
  process.exitCode = 2
} else {
  process.exit(await main(['--adapter', family.adapter, ...options, '--', ...family.command]))
}
