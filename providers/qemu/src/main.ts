#!/usr/bin/env node
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { qemuProvider } from './provider.js'

// The flags are the runtime's; of them only the state folder concerns us, where machines live unless configured otherwise.
const { values } = parseArgs({ options: { 'state-dir': { type: 'string' } }, strict: false })
const stateDir = values['state-dir'] ?? process.env['SLIPWAY_STATE_DIR'] ?? '.'
const imageRoot = process.env['SLIPWAY_QEMU_IMAGE_DIR']

await qemuProvider({
  defaultDirectory: join(resolve(String(stateDir)), 'machines'),
  ...(imageRoot !== undefined && imageRoot !== '' && { imageRoot }),
}).serve()
