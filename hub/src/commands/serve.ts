import { readConfig, readKeys, type HubConfig } from '../config.js'
import { startHub } from '../hub.js'
import { createLogger } from '../observe/log.js'

/** Lines of Node that get no security fixes any more. */
const unfixedLines = [20, 21, 23]

/** Runs a hub until it is told to stop. Resolves with the exit code. */
export async function serve(
  mode: HubConfig['mode'],
  flags: Readonly<Record<string, string | boolean | undefined>>,
): Promise<number> {
  const config = readConfig(mode, flags, process.env)
  const keys = readKeys(config, process.env)
  const log = createLogger({ level: config.logLevel })
  const major = Number(process.versions.node.split('.')[0])
  if (unfixedLines.includes(major))
    log.warn(`Node ${process.versions.node} is of a line that gets no security fixes any more; run on Node 24`)
  process.on('unhandledRejection', (error) => {
    log.fatal({ err: error }, 'unhandled rejection')
    process.exit(1)
  })
  const hub = await startHub(config, keys, log)
  if (hub.bootstrapToken !== undefined) {
    process.stdout.write(
      `\nThe first client token. It is shown this once:\n\n  ${hub.bootstrapToken}\n\nslipway login --server ${hub.apiUrl} --token-file -\n\n`,
    )
  }
  await stopSignal()
  log.info('stopping')
  await hub.stop()
  log.info('stopped')
  return 0
}

/** Resolves at the first SIGTERM or SIGINT; the second one ends the process at once. */
function stopSignal(): Promise<void> {
  return new Promise((resolve) => {
    let asked = false
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (asked) process.exit(130)
        asked = true
        resolve()
      })
    }
  })
}
