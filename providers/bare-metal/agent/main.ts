#!/usr/bin/env node
import { parseArgs } from 'node:util'
import { ensureAgentImage } from './image/agent.js'
import type { Flavour } from './image/build.js'

// slipway-agent-image: builds the agent's image, and prints where it is.

const help = `Usage: slipway-agent-image --cache-dir DIR [--flavour generic|cloud]

Builds the kernel and the initramfs of the agent from Debian's packages, and prints where they are. Nothing is installed; run apt-get update before.

  --cache-dir DIR   keeps packages and images; an image that is there already is not built again
  --flavour NAME    generic (default): drivers for real machines. cloud: for virtual ones alone
`

const { values } = parseArgs({
  options: {
    'cache-dir': { type: 'string' },
    flavour: { type: 'string', default: 'generic' },
    help: { type: 'boolean' },
  },
})
const cacheDir = values['cache-dir']
if (values.help === true) process.stdout.write(help)
else if (cacheDir === undefined || !isFlavour(values.flavour)) {
  process.stderr.write(help)
  process.exitCode = 2
} else {
  try {
    process.stdout.write(
      `${JSON.stringify(await ensureAgentImage({ flavour: values.flavour, cacheDir }), undefined, 2)}\n`,
    )
  } catch (error) {
    process.stderr.write(`slipway-agent-image: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}

function isFlavour(text: string): text is Flavour {
  return text === 'generic' || text === 'cloud'
}
