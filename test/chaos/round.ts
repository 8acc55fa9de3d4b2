import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { root } from '../tools/processes.js'
import { Clerk } from './clerk.js'
import { plantForeign } from './faults/cloud.js'
import { inject } from './faults/inject.js'
import type { Fault } from './kinds.js'
import type { Network } from './network.js'
import type { Options } from './options.js'
import { judgeRound, type RoundReport } from './report.js'
import * as topology from './topology.js'
import { World } from './world.js'

/** How long the parties may take to come back after the last fault was healed. */
const healMs = 60_000
const watchMs = 30_000

export interface RoundPlan {
  readonly seed: number
  readonly faults: readonly Fault[]
  readonly forMs: number
}

/** Runs one round in a fresh world, and has it judged. @param say for people who watch. */
export async function runRound(
  plan: RoundPlan,
  options: Options,
  places: { readonly folder: string; readonly histories: string; readonly network: Network },
  signal: AbortSignal,
  say: (text: string) => void,
): Promise<RoundReport> {
  say(`round with seed ${plan.seed}: building a world`)
  const world = await World.create(plan.seed, places.folder, places.histories, places.network)
  let faultsMs = 0
  let restMs = 0
  try {
    await plantForeign(world, topology.clouds)
    world.startAll([...topology.watchers, ...topology.clients])
    const clerk = new Clerk(world)
    const beganAt = performance.now()
    say(`${plan.faults.length} faults in ${plan.forMs / 1000} s`)
    await injectAll(world, plan, signal, say)
    faultsMs = performance.now() - beganAt
    say('healed; waiting for rest')
    restMs = await comeToRest(world, clerk, options.restSeconds * 1_000)
    say(`at rest after ${(restMs / 1000).toFixed(1)} s; everything was released`)
  } finally {
    await world.close()
  }
  const counters = Object.fromEntries([...world.links].map(([name, link]) => [name, link.counters]))
  writeFileSync(join(places.histories, 'links.json'), `${JSON.stringify(counters, undefined, 2)}\n`)
  const violations = await runChecker(places.histories)
  const report = judgeRound(places.histories, violations, { ...options, ...plan, faultsMs, restMs })
  writeFileSync(join(places.histories, 'report.json'), `${JSON.stringify(report, undefined, 2)}\n`)
  return report
}

async function injectAll(world: World, plan: RoundPlan, signal: AbortSignal, say: (text: string) => void) {
  const beganAt = performance.now()
  const running: Promise<void>[] = []
  for (const fault of plan.faults) {
    await sleep(Math.max(0, beganAt + fault.atMs - performance.now()), undefined, { signal }).catch(() => undefined)
    if (signal.aborted) break
    say(`${((performance.now() - beganAt) / 1000).toFixed(1)} s  ${fault.kind} ${fault.target}`)
    running.push(inject(world, fault, signal))
  }
  await Promise.all(running)
  await sleep(Math.max(0, beganAt + plan.forMs - performance.now()), undefined, { signal }).catch(() => undefined)
  signal.throwIfAborted()
}

/** Everything up again, nothing new ordered, all that was ordered at its end, everything released, all watchers told. @returns how long rest took. */
async function comeToRest(world: World, clerk: Clerk, withinMs: number): Promise<number> {
  for (const link of world.links.values()) link.clear()
  await world.postgres.start()
  world.startAll([...world.parties.keys()])
  const deadline = performance.now() + healMs
  for (const hub of topology.hubs) while (!(await world.isReady(hub)) && performance.now() < deadline) await sleep(200)
  writeFileSync(world.stopFile, '')
  for (const name of topology.clients) world.party(name).expectEnd('told to stop')
  for (const name of topology.clients) {
    const how = await world.party(name).ended(Math.max(1_000, deadline - performance.now()))
    if (how === undefined) await world.party(name).end('SIGKILL', 'it did not come to an end')
  }
  const restMs = await clerk.untilRest(withinMs)
  await clerk.list('rest')
  await clerk.releaseAll(withinMs)
  await clerk.untilRest(withinMs)
  await clerk.list('end')
  await clerk.untilWatched(watchMs)
  return restMs
}

/** The checker is a program of its own, and reads files alone. */
async function runChecker(histories: string): Promise<readonly unknown[]> {
  const output = openSync(join(histories, 'violations.json'), 'w')
  const errors: Buffer[] = []
  const child = spawn(process.execPath, [join(root, 'test/dist/chaos/check.js'), histories, '--json'], {
    stdio: ['ignore', output, 'pipe'],
  })
  closeSync(output)
  child.stderr?.on('data', (data: Buffer) => errors.push(data))
  const [code] = (await once(child, 'close')) as [number]
  if (code > 1) throw new Error(`the checker failed: ${Buffer.concat(errors).toString()}`)
  return JSON.parse(readFileSync(join(histories, 'violations.json'), 'utf8')) as readonly unknown[]
}
