#!/usr/bin/env node
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { createPowerSupervisor } from './power/supervisor.js'
import { bareMetalProvider } from './provider.js'

// The flags are the runtime's; of them only the state folder concerns us.
const { values } = parseArgs({ options: { 'state-dir': { type: 'string' } }, strict: false })
const stateDir = resolve(String(values['state-dir'] ?? process.env['SLIPWAY_STATE_DIR'] ?? '.'))

/** Where the agent, images, netboot classes and certificates lie. */
const filesDir = resolve(process.env['SLIPWAY_BARE_METAL_DIR'] || '/var/lib/slipway-bare-metal')
/** Where Debian's package ipxe puts its programs. */
const ipxeDir = resolve(process.env['SLIPWAY_BARE_METAL_IPXE_DIR'] || '/usr/lib/ipxe')
const listIntervalMs = Number(process.env['SLIPWAY_BARE_METAL_LIST_INTERVAL_MS'])

await bareMetalProvider({
  stateDir,
  filesDir,
  ipxeDir,
  supervise: (_log, mayCorrect) => createPowerSupervisor({ mayCorrect }),
  ...(Number.isInteger(listIntervalMs) && listIntervalMs >= 100 && { listIntervalMs }),
}).serve()
