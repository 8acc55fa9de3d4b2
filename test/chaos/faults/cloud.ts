import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { readWorld } from '@slipway/provider-simulated/ledger'
import { root } from '../../tools/processes.js'
import type { World } from '../world.js'
import { last, type Injector } from './effect.js'

const run = promisify(execFile)
const program = join(root, 'providers/simulated/dist/src/main.js')

/** A server is gone, and nobody was told. */
export const vanish: Injector = async (world, fault, signal) => {
  const folder = world.worldFolder(fault.target)
  const victim = readWorld(folder).servers.find(
    ({ isLive, status, ownershipKey }) => isLive && status === 'running' && !ownershipKey.startsWith('somebody-else'),
  )
  if (victim === undefined) return { effective: false, evidence: 'no server ran' }
  await run(process.execPath, [program, 'vanish', '--world', folder, victim.id])
  await last(fault.durationMs, signal)
  const after = readWorld(folder).servers.find(({ id }) => id === victim.id)
  return { effective: after?.status === 'vanished', evidence: `server ${victim.id} is ${after?.status ?? 'unknown'}` }
}

/** Puts a server of another hub into each cloud: nobody may touch it. */
export async function plantForeign(world: World, clouds: readonly string[]): Promise<void> {
  for (const cloud of clouds) {
    const args = ['plant', '--world', world.worldFolder(cloud), '--name', `foreign-${cloud}`]
    await run(process.execPath, [program, ...args, '--ownership-key', `somebody-else/${cloud}`])
  }
}
