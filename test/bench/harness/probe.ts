import { renameSync, writeFileSync } from 'node:fs'

// Loaded into measured processes with --import: tells on a signal what the process holds. It does nothing else.

const file = process.env['SLIPWAY_PROBE_FILE'] ?? ''

process.on('SIGUSR2', () => {
  globalThis.gc?.()
  const { rss, heapUsed, external } = process.memoryUsage()
  writeFileSync(`${file}.part`, JSON.stringify({ rss, heapUsed, external }))
  renameSync(`${file}.part`, file)
})
// The channel to the benchmark must not keep the process alive.
process.channel?.unref()
