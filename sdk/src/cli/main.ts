import { runCli } from './program.js'

const interrupted = new AbortController()
process.on('SIGINT', () => {
  // Asked twice, it goes at once.
  if (interrupted.signal.aborted) process.exit(130)
  interrupted.abort()
})
// Whoever stops reading, such as `head`, has seen enough.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

const { stdout, stderr, stdin, env } = process
const code = await runCli(process.argv.slice(2), {
  stdout,
  stderr,
  stdin,
  env,
  signal: interrupted.signal,
  now: () => Date.now(),
})
// Open connections would keep the process for a while.
stdout.write('', () => process.exit(code))
