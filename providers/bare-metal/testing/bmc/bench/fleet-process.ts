import { SimulatedFleet } from '../fleet.js'

/**
 * Simulated BMCs in a process of their own, so that what the supervisor costs can be told from what they cost. Started by the bench: it says where
 * they listen, and does as it is told by messages.
 */
export type FleetOrder =
  { readonly order: 'silence'; readonly indexes: readonly number[] } | { readonly order: 'count' }

export type FleetSays =
  | { readonly said: 'ready'; readonly ports: readonly number[] }
  | {
      readonly said: 'count'
      readonly on: number
      readonly lost: number
      readonly passed: number
      readonly requests: number
    }
  | { readonly said: 'done' }

const [count, loss, seed] = process.argv.slice(2).map(Number)
const fleet = await SimulatedFleet.start(count ?? 1, { loss: loss ?? 0, seed: seed ?? 1 })

function say(message: FleetSays): void {
  process.send?.(message)
}

process.on('message', (message: FleetOrder) => {
  switch (message.order) {
    case 'silence':
      for (const [index, { bmc }] of fleet.members.entries()) bmc.silent = message.indexes.includes(index)
      return say({ said: 'done' })
    case 'count': {
      const { lost, passed } = fleet.network
      const on = fleet.members.filter(({ bmc }) => bmc.machine.power === 'on').length
      const requests = fleet.members.reduce((sum, { bmc }) => sum + bmc.requests, 0)
      return say({ said: 'count', on, lost, passed, requests })
    }
  }
})
process.on('disconnect', () => process.exit(0))
say({ said: 'ready', ports: fleet.members.map(({ port }) => port) })
