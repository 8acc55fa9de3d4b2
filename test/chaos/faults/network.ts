import type { Fault } from '../kinds.js'
import type { Link, Weather } from '../proxy.js'
import { addressOf, wireAddress, wireNamed, type Wire } from '../topology.js'
import type { World } from '../world.js'
import { last, type Effect, type Injector } from './effect.js'

/** Bytes that were under way already when a cut began may still arrive. */
const graceMs = 150

type Direction = 'up' | 'down'

function wireOf(world: World, fault: Fault): { readonly wire: Wire; readonly link: Link } {
  return { wire: wireNamed(fault.target), link: world.link(fault.target) }
}

/** Both directions of a wire. */
export const cut: Injector = (world, fault, signal) => cutting(world, fault, signal, ['up', 'down'])
/** What the dialling side says is lost; it still hears. */
export const cutTo: Injector = (world, fault, signal) => cutting(world, fault, signal, ['up'])
/** What the dialled side says is lost. */
export const cutFrom: Injector = (world, fault, signal) => cutting(world, fault, signal, ['down'])

async function cutting(
  world: World,
  fault: Fault,
  signal: AbortSignal,
  directions: readonly Direction[],
): Promise<Effect> {
  const { wire, link } = wireOf(world, fault)
  const parties = directions.flatMap((direction) => (direction === 'up' ? [wire.near] : wire.far))
  const address = wireAddress(wire.name)
  const wasUsed = link.open > 0
  for (const party of parties) await world.network.silence(party, address)
  await last(graceMs, signal)
  const before = { ...link.counters }
  await last(fault.durationMs - graceMs, signal)
  const passed = directions.reduce((sum, direction) => sum + link.counters[direction] - before[direction], 0)
  for (const party of parties) await world.network.unsilence(party, address)
  const tried = wasUsed || link.counters.accepted > before.accepted
  return {
    effective: tried && passed === 0,
    evidence: `${tried ? 'in use' : 'not in use'}, ${passed} bytes passed during the cut`,
  }
}

/** Pulls the plug of a party: it is cut off from everybody. */
export const unplug: Injector = async (world, fault, signal) => {
  await world.network.unplug(fault.target)
  const down = !(await world.network.isPlugged(fault.target))
  await last(fault.durationMs, signal)
  await world.network.plug(fault.target)
  const running = world.party(fault.target).running
  return { effective: down && running, evidence: `${addressOf(fault.target)} was ${down ? 'off' : 'on'} the network` }
}

/** Holds everything back, and closes nothing. */
export const stall: Injector = (world, fault, signal) => {
  const direction = fault.params['direction']
  const stalled: Weather = { stalled: true }
  return weather(world, fault, signal, {
    ...(direction !== 'down' && { up: stalled }),
    ...(direction !== 'up' && { down: stalled }),
  })
}

export const slow: Injector = (world, fault, signal) => {
  const drag = {
    latencyMs: Number(fault.params['latencyMs']),
    bytesPerSecond: Number(fault.params['bytesPerSecond']),
  }
  return weather(world, fault, signal, { up: drag, down: drag })
}

/** A few bytes at a time. */
export const slice: Injector = (world, fault, signal) => {
  const pieces = { sliceBytes: Number(fault.params['bytes']) }
  return weather(world, fault, signal, { up: pieces, down: pieces })
}

async function weather(
  world: World,
  fault: Fault,
  signal: AbortSignal,
  change: Partial<Record<Direction, Weather>>,
): Promise<Effect> {
  const { link } = wireOf(world, fault)
  const before = link.counters.troubled
  link.setWeather(change)
  await last(fault.durationMs, signal)
  link.clear()
  const troubled = link.counters.troubled - before
  return { effective: troubled > 0, evidence: `${troubled} pieces held back, delayed or cut up` }
}

/** Resets every connection. */
export const reset: Injector = (world, fault) => {
  const count = wireOf(world, fault).link.reset()
  return Promise.resolve({ effective: count > 0, evidence: `${count} connections reset` })
}

/** Lets so many bytes through, and then resets. */
export const truncate: Injector = async (world, fault, signal) => {
  const { link } = wireOf(world, fault)
  const before = link.counters.resets
  link.truncateAfter(Number(fault.params['bytes']))
  await last(fault.durationMs, signal)
  link.clear()
  const resets = link.counters.resets - before
  return { effective: resets > 0, evidence: `${resets} connections reset after ${fault.params['bytes']} bytes` }
}

/** New connections are accepted, and never answered; old ones are reset, so that there are new ones. */
export const halfOpen: Injector = async (world, fault, signal) => {
  const { link } = wireOf(world, fault)
  const before = link.counters.troubled
  link.setDeaf(true)
  link.reset()
  await last(fault.durationMs, signal)
  link.clear()
  const deaf = link.counters.troubled - before
  return { effective: deaf > 0, evidence: `${deaf} connections accepted and left without an answer` }
}
