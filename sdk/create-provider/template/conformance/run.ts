import { fileURLToPath } from 'node:url'
import { main } from '@slipway/sdk/conformance'

// `npm run conformance -- [options]` is `npx slipway-conformance --adapter dist/conformance/adapter.js [options] -- node dist/src/main.js`.

const adapter = fileURLToPath(new URL('adapter.js', import.meta.url))
const program = fileURLToPath(new URL('../src/main.js', import.meta.url))
const { exitCode } = await main(['--adapter', adapter, ...process.argv.slice(2), '--', process.execPath, program])
process.exit(exitCode)
