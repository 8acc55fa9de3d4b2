import { isRefusal } from '../errors.js'
import { Cloud } from '../cloud.js'
import { cloudRules } from '../cloud-state.js'
import { World } from '../world.js'
import { cloudConfig, serverOrder } from './world.js'

/** A process that creates and deletes servers in a small cloud without pause, and says so each time. Ends at SIGTERM. */
const [dir = '', writer = ''] = process.argv.slice(2)
const config = cloudConfig({ capacity: [{ servers: 5 }], createDuration: 0, deleteDuration: 0 })
const world = new World(dir, cloudRules)
const cloud = new Cloud(world, config, { apiToken: undefined })
const { signal } = new AbortController()
let isOver = false
process.on('SIGTERM', () => (isOver = true))

// Names that the others use too: they must not get in each other's way.
for (let round = 0; !isOver; round++) {
  const names = [`shared-${round % 7}`, `${writer}-${round}`, `${writer}-${round}b`]
  const ids = await Promise.all(names.map(create))
  await Promise.all(ids.flatMap((id) => (id === undefined || round % 5 === 0 ? [] : [cloud.deleteServer(id, signal)])))
  if (round % 5 === 4) await clear()
  process.send?.(round)
  await new Promise((resolve) => setImmediate(resolve))
}
world.close()
process.disconnect()

async function create(name: string): Promise<string | undefined> {
  try {
    return await cloud.createServer(serverOrder(name), signal)
  } catch (error) {
    if (isRefusal(error, 'out-of-capacity') || isRefusal(error, 'name-taken')) return undefined
    throw error
  }
}

/** Removes what this process and those that were killed have left. */
async function clear(): Promise<void> {
  for await (const { id } of cloud.listServers({}, signal)) await cloud.deleteServer(id, signal)
}
