// `npm run quickstart`: the whole way once, on a machine that has nothing but Node and npm.
//
// Installs and builds; starts a hub with its embedded database and a simulated cloud as separate processes; orders a host, and shows it
// through every state to READY. Then it stays up until Ctrl-C. With --once it releases the host, waits until nothing of it exists, and ends
// with 0, or with 1 if any of it failed. --dir DIR keeps its data there instead of in .slipway/quickstart.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'

const root = new URL('../../', import.meta.url).pathname
const { values } = parseArgs({
  options: {
    once: { type: 'boolean', default: false },
    dir: { type: 'string' },
    help: { type: 'boolean', short: 'h', default: false },
  },
})
if (values.help) {
  console.log(
    'npm run quickstart [-- --once] [-- --dir DIR]\n\nStarts a hub and a simulated cloud, and orders a host. --once also releases it, and ends.',
  )
  process.exit(0)
}
const [major, minor] = process.versions.node.split('.').map(Number)
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`Slipway needs Node 20.19 or newer; this is ${process.versions.node}.`)
  process.exit(1)
}

const dir = resolve(values.dir ?? join(root, '.slipway/quickstart'))
const children = []
let stopping = false

function say(text) {
  console.log(process.stdout.isTTY ? `\n\u001b[1m==> ${text}\u001b[0m` : `\n==> ${text}`)
}

function npm(...args) {
  const { status } = spawnSync('npm', args, { cwd: root, stdio: 'inherit' })
  if (status !== 0) throw new Error(`npm ${args.join(' ')} failed`)
}

function installed() {
  const marker = join(root, 'node_modules/.package-lock.json')
  return existsSync(marker) && statSync(marker).mtimeMs >= statSync(join(root, 'package-lock.json')).mtimeMs
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

/** Starts a process of ours whose output goes to a file; its end before ours is a failure. */
function start(name, script, args, env) {
  const file = join(dir, `${name}.log`)
  const log = openSync(file, 'a')
  const child = spawn(process.execPath, [join(root, script), ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', log, log],
  })
  children.push({ name, child })
  child.on('exit', (code, signal) => {
    if (stopping) return
    console.error(`\nThe ${name} ended (${signal ?? code}). The end of ${file}:\n`)
    console.error(readFileSync(file, 'utf8').split('\n').slice(-15).join('\n'))
    void stop(1)
  })
  return child
}

/** The command line, run as its user would; its output is shown unless it is wanted. */
async function slipway(env, args, { quiet = false } = {}) {
  if (!quiet) console.log(`$ slipway ${args.join(' ')}`)
  const child = spawn(process.execPath, [join(root, 'sdk/bin/slipway.js'), ...args], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', quiet ? 'pipe' : 'inherit', quiet ? 'pipe' : 'inherit'],
  })
  let output = ''
  let errors = ''
  child.stdout?.on('data', (data) => (output += data))
  child.stderr?.on('data', (data) => (errors += data))
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`slipway ${args.join(' ')} ended with ${code}\n${errors}`)
  return output.trim()
}

async function reachable(url, what) {
  const deadline = performance.now() + 60_000
  while (performance.now() < deadline) {
    try {
      if ((await fetch(url)).ok) return
    } catch {
      // Not up yet.
    }
    await sleep(50)
  }
  throw new Error(`${what} is not up after a minute; see ${dir}`)
}

async function stop(code) {
  if (stopping) return
  stopping = true
  // The provider first, so that it can hand back what it holds.
  for (const { child } of children.reverse()) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGTERM')
    await Promise.race([once(child, 'exit'), sleep(15_000).then(() => child.kill('SIGKILL'))])
  }
  process.exit(code)
}

process.on('SIGINT', () => {
  console.log('\nStopping…')
  void stop(0)
})
process.on('SIGTERM', () => void stop(0))

async function main() {
  if (!installed()) {
    say('Installing (npm ci)')
    npm('ci')
  }
  say('Building')
  npm('run', '--silent', 'build')

  // The demonstration begins anew each time. Only a folder that it made itself is removed.
  if (existsSync(join(dir, 'quickstart'))) rmSync(dir, { recursive: true })
  mkdirSync(dir, { recursive: true, mode: 0o700 })
  writeFileSync(join(dir, 'quickstart'), 'Made by npm run quickstart, and removed by its next run.\n')

  say('Starting the hub, with its embedded database')
  const [apiPort, gatewayPort] = [await freePort(), await freePort()]
  const url = `http://127.0.0.1:${apiPort}`
  const tokenFile = join(dir, 'token')
  start('hub', 'hub/bin/slipway-hub.js', [
    'dev',
    '--data-dir',
    join(dir, 'hub'),
    '--listen',
    `127.0.0.1:${apiPort}`,
    '--gateway-listen',
    `127.0.0.1:${gatewayPort}`,
    '--bootstrap-token-file',
    tokenFile,
  ])
  await reachable(`${url}/readyz`, 'The hub')
  const env = { SLIPWAY_CONFIG: join(dir, 'config.yaml') }
  await slipway(env, ['login', '--server', url, '--token-file', tokenFile])

  say('Adding a provider: a simulated cloud, as a process of its own')
  await slipway(env, ['provider', 'add', 'demo', '--family', 'simulated', '--kind', 'dynamic'])
  const joinTokenFile = join(dir, 'join-token')
  writeFileSync(joinTokenFile, await slipway(env, ['provider', 'token', 'demo'], { quiet: true }), { mode: 0o600 })
  start('provider', 'providers/simulated/dist/src/main.js', [
    '--kind',
    'dynamic',
    '--gateway',
    `127.0.0.1:${gatewayPort}`,
    '--join-token-file',
    joinTokenFile,
    '--state-dir',
    join(dir, 'provider'),
  ])
  await slipway(env, ['wait', 'provider/demo', '--for', 'state=CONNECTED', '--timeout', '60s'])

  say('Adding a machine class to the catalog, and ordering a host of it')
  await slipway(env, ['apply', '-f', 'deploy/quickstart/classes.yaml'])
  await slipway(env, ['host', 'order', 'web-1', '--class', 'small', '--timeout', '120s'])
  await slipway(env, ['get', 'hosts'])
  await slipway(env, ['events', 'host/web-1'])

  if (values.once) {
    say('Releasing it')
    await slipway(env, ['host', 'release', 'web-1', '--yes', '--wait', '--timeout', '120s'])
    const left = JSON.parse(await slipway(env, ['get', 'machinerequests', '-o', 'json'], { quiet: true }))
    if (left.length !== 0) throw new Error(`machine requests are left: ${JSON.stringify(left)}`)
    console.log('\nReleased, and nothing of it exists any more.')
    await stop(0)
    return
  }
  say('It runs. Go on in another terminal:')
  console.log(`
  export SLIPWAY_CONFIG=${env.SLIPWAY_CONFIG}
  alias slipway="node ${join(root, 'sdk/bin/slipway.js')}"

  slipway get hosts                     what there is
  slipway describe host web-1           all about one, with its timeline
  slipway host order web-2 --class large
  slipway get hosts --watch             in a third terminal
  slipway host release web-1 --wait

  Client API   ${url}   (gRPC, gRPC-Web and JSON; the token is in ${tokenFile})
  Gateway      127.0.0.1:${gatewayPort}   (where providers connect)
  Logs         ${dir}/*.log

Ctrl-C stops everything.`)
}

main().catch((error) => {
  console.error(`\n${error.message}`)
  void stop(1)
})
