import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { enrol } from '../../internal/enrol.js'
import { parseGateway } from '../../internal/grpc.js'
import { loadIdentity, saveIdentity, type Identity } from '../../internal/identity.js'
import { parseJoinToken } from '../../internal/join-token.js'
import { Engine } from '../../provider/engine.js'
import { makeLogger, serveEngine } from '../../provider/run.js'
import { defects, type Defect } from './defects.js'
import { folderProvider } from './provider.js'
import { dialBent } from './wire-defects.js'

// A provider that the kit is tested with: `main.js DEFECT`, or `main.js sound`.

const [name = 'sound'] = process.argv.slice(2)
if (name !== 'sound' && !(name in defects)) throw new Error(`there is no defect ${name}`)
const defect = name === 'sound' ? undefined : (name as Defect)

const gateway = parseGateway(process.env['SLIPWAY_GATEWAY'] ?? '')
const stateDir = process.env['SLIPWAY_STATE_DIR'] ?? ''
const instanceName = process.env['SLIPWAY_INSTANCE_NAME'] ?? 'folder'

async function identify(): Promise<Identity> {
  const stored = await loadIdentity(stateDir)
  if (stored !== undefined) return stored
  const identity = await enrol(gateway, parseJoinToken(process.env['SLIPWAY_JOIN_TOKEN'] ?? ''), instanceName)
  await saveIdentity(stateDir, identity)
  return identity
}

const identity = await identify()
if (defect === 'leaves-its-key-open') chmodSync(join(stateDir, 'identity.json'), 0o644)
const engine = new Engine({
  definition: folderProvider(defect, stateDir),
  gateway,
  identity: () => identity,
  instanceName,
  capacity: 20,
  log: makeLogger(),
  dial: (options) => dialBent(options, defect),
})
const stop = new AbortController()
process.on('SIGTERM', () => {
  if (defect !== 'does-not-end-when-asked') stop.abort(new Error('stopped'))
})
await serveEngine(engine, () => Promise.resolve(), stop.signal)
process.exit(0)
