import { pino } from 'pino'
import type { Context } from '@slipway/sdk'
import { configSchema, type Config, type Credentials } from '../src/config.js'
import { SiteHolder } from '../src/site.js'
import { SimPower } from '../testing/sim-power.js'

// Run in a namespace: serves network boot by the configuration in the first argument, in the folders of the environment, and says when it does.

const { STATE_DIR = '', FILES_DIR = '', IPXE_DIR = '/usr/lib/ipxe' } = process.env
const config = configSchema.parse(JSON.parse(process.argv[2] ?? '{}'))
const holder = new SiteHolder({
  stateDir: STATE_DIR,
  filesDir: FILES_DIR,
  ipxeDir: IPXE_DIR,
  supervise: () => new SimPower(() => undefined),
})
const context: Context<Config, Credentials> = {
  config,
  credentials: { bmc: {} },
  provider: 'providers/test',
  hubId: 'hub',
  signal: new AbortController().signal,
  log: pino({ level: 'debug' }, pino.destination({ fd: 2, sync: true })),
  budget: () => Promise.resolve(),
  event: () => undefined,
  calledBack: () => undefined,
}
const site = await holder.open(context)
console.log(JSON.stringify({ bootUrl: site.boot.url }))
