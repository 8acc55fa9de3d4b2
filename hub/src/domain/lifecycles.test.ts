import { readFileSync } from 'node:fs'
import t from 'tap'
import { eventReasons } from './facts.js'
import { hostStates } from './host/host.js'
import { hostEvents, transitionHost } from './host/transitions.js'
import { lifecycles, printLifecycles } from './lifecycles.js'
import { afterOperation, doingOperation } from './machine/lifecycle.js'
import { machineStates } from './machine/machine.js'
import { machineEvents, machineStateKinds, machineTransitions, transitionMachine } from './machine/transitions.js'
import { requestStates } from './request/request.js'
import { requestEvents, transitionRequest } from './request/transitions.js'

const docs = (name: string) => readFileSync(new URL(`../../../../docs/${name}`, import.meta.url), 'utf8')

const walkers: Record<
  string,
  { events: readonly string[]; transition: (state: string, event: string) => string | undefined }
> = {
  Host: { events: hostEvents, transition: transitionHost as (state: string, event: string) => string | undefined },
  'Machine request': {
    events: requestEvents,
    transition: transitionRequest as (state: string, event: string) => string | undefined,
  },
  Machine: {
    events: machineEvents,
    transition: transitionMachine as (state: string, event: string) => string | undefined,
  },
}

for (const lifecycle of lifecycles) {
  const walker = walkers[lifecycle.title]
  if (walker === undefined) throw new Error(`no walker for ${lifecycle.title}`)

  void t.test(`${lifecycle.title}: every pair of state and event is what the table says`, async (t) => {
    let legal = 0
    for (const state of lifecycle.states) {
      for (const event of walker.events) {
        const rows = lifecycle.moves.filter((move) => move.from === state && move.event === event)
        t.ok(rows.length <= 1, `${state} ${event} is listed once at most`)
        t.equal(walker.transition(state, event), rows[0]?.to, `${state} ${event}`)
        legal += rows.length
      }
    }
    t.equal(legal, lifecycle.moves.length, 'and the table lists nothing else')
  })

  void t.test(`${lifecycle.title}: every state is reached and can be left, but the final one`, async (t) => {
    const reached = new Set(lifecycle.start)
    for (let before = -1; before !== reached.size;) {
      before = reached.size
      for (const move of lifecycle.moves) if (reached.has(move.from)) reached.add(move.to)
    }
    t.strictSame([...reached].sort(), [...lifecycle.states].sort(), 'all are reached from the start')
    for (const state of lifecycle.states) {
      const ways = lifecycle.moves.filter((move) => move.from === state)
      t.equal(ways.length > 0, state !== lifecycle.final, `${state} has ${ways.length} ways out`)
    }
    const ending = new Set([lifecycle.final])
    for (let before = -1; before !== ending.size;) {
      before = ending.size
      for (const move of lifecycle.moves) if (ending.has(move.to)) ending.add(move.from)
    }
    t.strictSame([...ending].sort(), [...lifecycle.states].sort(), 'the end is reached from all')
    const used = new Set(lifecycle.moves.map((move) => move.event))
    t.strictSame([...used].sort(), [...walker.events].sort(), 'every event is of some use')
  })
}

void t.test('machines: the kinds of states are kept', async (t) => {
  for (const move of machineTransitions) {
    const kinds = machineStateKinds
    if (kinds[move.from] === 'failed' && !['GONE', 'DISCOVERED'].includes(move.to))
      t.equal(kinds[move.to], 'doing', `${move.from} is left by work, never straight to use`)
    if (move.to === 'AVAILABLE')
      t.ok(['cleaned', 'unallocated'].includes(move.event), 'only a wipe, or nothing at all, makes a machine available')
  }
  for (const state of machineStates) {
    if (machineStateKinds[state] === 'waiting') {
      const doing = machineTransitions.filter((move) => move.to === state)
      t.ok(doing.length > 0 && doing.every((move) => machineStateKinds[move.from] === 'doing'), `${state} follows work`)
      const ways = machineTransitions.filter((move) => move.from === state).map((move) => machineStateKinds[move.to])
      t.ok(ways.includes('failed') && ways.includes('doing'), `${state} ends in failure or in another try`)
    }
    if (machineStateKinds[state] !== 'doing') continue
    const failed = machineTransitions.find((move) => move.from === state && machineStateKinds[move.to] === 'failed')
    t.ok(failed, `${state} can fail`)
  }
})

void t.test('machines: work that ends leads on to what follows by itself', async (t) => {
  t.equal(afterOperation('VERIFYING', 'VERIFY', 'done'), 'INSPECTING')
  t.equal(afterOperation('INSPECTING', 'INSPECT', 'done'), 'CLEANING')
  t.equal(afterOperation('CLEANING', 'CLEAN', 'done'), 'AVAILABLE')
  t.equal(afterOperation('VERIFYING', 'VERIFY', 'failed'), 'VERIFY_FAILED')
  t.equal(afterOperation('INSPECTING', 'INSPECT', 'failed'), 'INSPECT_FAILED')
  t.equal(afterOperation('CLEANING', 'CLEAN', 'failed'), 'CLEAN_FAILED')
  for (const state of machineStates) {
    t.equal(afterOperation(state, 'POWER', 'done'), state)
    t.equal(afterOperation(state, 'POWER', 'failed'), state)
    const operation = doingOperation(state)
    if (operation !== null) t.not(afterOperation(state, operation, 'failed'), state, `${state} ends`)
  }
  t.equal(afterOperation('ACTIVE', 'CLEAN', 'done'), 'ACTIVE', 'a stray end of work changes nothing')
})

void t.test('every host and request can be let go of', async (t) => {
  for (const state of hostStates) {
    if (state !== 'RELEASING' && state !== 'RELEASED') t.equal(transitionHost(state, 'release'), 'RELEASING', state)
  }
  for (const state of requestStates) if (state !== 'GONE') t.equal(transitionRequest(state, 'forgotten'), 'GONE', state)
})

void t.test('docs/lifecycles.md is what the tables print', async (t) => {
  t.equal(docs('lifecycles.md'), printLifecycles(), 'else run: npm run docs:lifecycles -w hub')
})

void t.test('docs/events.md lists every reason of events, and no other', async (t) => {
  const listed = [...docs('events.md').matchAll(/^\| `([A-Za-z]+)`/gm)].map((match) => match[1])
  t.equal(new Set(listed).size, listed.length, 'each once')
  t.strictSame([...listed].sort(), [...eventReasons].sort())
})
