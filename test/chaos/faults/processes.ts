import { readFileSync } from 'node:fs'
import { leaseMs } from '../topology.js'
import type { World } from '../world.js'
import { causeOf, last, type Injector } from './effect.js'

const failpointGraceMs = 5_000

/** SIGKILL, and a new start after a while. */
export const kill: Injector = async (world, fault, signal) => {
  const party = world.party(fault.target)
  const { pid, running } = party
  await party.end('SIGKILL', causeOf(fault))
  const gone = running && !party.running
  await last(fault.durationMs, signal)
  party.start()
  return { effective: gone, evidence: gone ? `process ${pid} is gone` : 'it did not run' }
}

/** SIGTERM as in a rolling restart: it may take its time to drain. */
export const terminate: Injector = async (world, fault, signal) => {
  const party = world.party(fault.target)
  const { pid, running } = party
  const beganAt = performance.now()
  await party.end('SIGTERM', causeOf(fault), 15_000)
  const tookMs = Math.round(performance.now() - beganAt)
  await last(fault.durationMs, signal)
  party.start()
  return { effective: running, evidence: running ? `process ${pid} ended in ${tookMs} ms` : 'it did not run' }
}

/** SIGSTOP, and SIGCONT. */
export const stop: Injector = async (world, fault, signal) => {
  const party = world.party(fault.target)
  party.signal('SIGSTOP')
  await last(fault.durationMs, signal)
  const { stopped, pid } = party
  party.signal('SIGCONT')
  const span = `${fault.durationMs} ms, the lease is ${leaseMs} ms`
  return { effective: stopped, evidence: stopped ? `process ${pid} stood still for ${span}` : 'it did not stand still' }
}

/** Starts the process anew with a failpoint, and waits until it strikes. */
export const atFailpoint: Injector = async (world, fault, signal) => {
  const party = world.party(fault.target)
  await party.end('SIGTERM', causeOf(fault), 5_000)
  party.start({ SLIPWAY_FAILPOINTS: `${fault.params['failpoint']}:${fault.params['hit']}=kill` })
  party.expectEnd(causeOf(fault))
  const deadline = performance.now() + fault.durationMs - failpointGraceMs
  while (party.running && performance.now() < deadline && !signal.aborted) await last(50, signal)
  const struck = (await party.ended(0)) === 'SIGKILL'
  if (!struck) await party.end('SIGKILL', causeOf(fault))
  party.start()
  return { effective: struck, evidence: struck ? 'it ended itself there' : 'it never came there' }
}

/** Moves the wall clock of one process, and back. */
export const jumpClock: Injector = async (world, fault, signal) => {
  const party = world.party(fault.target)
  const seconds = Number(fault.params['seconds'])
  const before = logTimes(world, fault.target)
  party.setClock(seconds)
  await last(fault.durationMs, signal)
  party.setClock(0)
  // The hub and the providers log in JSON with the time: one line written in another hour is proof.
  const jumped = logTimes(world, fault.target)
    .slice(before.length)
    .some((at) => Math.abs(at - Date.now() - seconds * 1000) < 20_000)
  const preloaded = readFileSync(`/proc/${party.pid}/maps`, 'utf8').includes('libfaketime')
  return {
    effective: party.running && preloaded,
    evidence: jumped
      ? 'its log shows the other time'
      : preloaded
        ? 'libfaketime is loaded'
        : 'libfaketime is not loaded',
  }
}

function logTimes(world: World, name: string): readonly number[] {
  const text = readFileSync(world.party(name).logFile, 'utf8')
  return [...text.matchAll(/"time":"?([^",]+)/g)].map(([, time = '']) => Date.parse(time))
}
