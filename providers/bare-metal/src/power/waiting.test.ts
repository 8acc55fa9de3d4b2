import { getEventListeners } from 'node:events'
import t from 'tap'
import { Lane } from './lane.js'
import { Turns } from './turns.js'
import { pause, underSignals, untilAborted } from './waiting.js'

const { signal: never } = new AbortController()
const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

void t.test('whichever signal fires ends the work, and nothing is left at the others', async (t) => {
  const [first, second] = [new AbortController(), new AbortController()]
  const signals = [first.signal, second.signal]
  const work = underSignals(signals, (signal) => pause(60_000, signal))
  second.abort(new Error('enough'))
  await t.rejects(work, { message: 'enough' })
  t.same(
    signals.map((signal) => getEventListeners(signal, 'abort').length),
    [0, 0],
  )
  await t.rejects(
    underSignals(signals, (signal) => pause(60_000, signal)),
    { message: 'enough' },
    'one that fired before counts too',
  )
  t.equal(await underSignals([first.signal], async () => 'done'), 'done')
  t.equal(getEventListeners(first.signal, 'abort').length, 0)
})

void t.test('waiting ends with its signal', async (t) => {
  const controller = new AbortController()
  const waiting = [pause(60_000, controller.signal), untilAborted(new Promise(() => undefined), controller.signal)]
  controller.abort(new Error('enough'))
  for (const one of waiting) await t.rejects(one, { message: 'enough' })
  t.equal(getEventListeners(controller.signal, 'abort').length, 0)
  t.equal(await untilAborted(Promise.resolve(7), never), 7)
})

void t.test('turns come in order, one at a time; who gives up leaves the queue', async (t) => {
  const turns = new Turns()
  const order: string[] = []
  let let1 = (): void => undefined
  const one = turns.run(never, () =>
    new Promise<void>((resolve) => (let1 = resolve)).then(() => void order.push('one')),
  )
  const controller = new AbortController()
  const two = turns.run(controller.signal, async () => void order.push('two'))
  const three = turns.run(never, async () => void order.push('three'))
  controller.abort(new Error('gave up'))
  await t.rejects(two, { message: 'gave up' })
  await tick()
  t.same(order, [], 'the third still waits for the first')
  let1()
  await Promise.all([one, three])
  t.same(order, ['one', 'three'])
  await t.rejects(
    turns.run(never, () => Promise.reject(new Error('failed'))),
    { message: 'failed' },
  )
  t.equal(await turns.run(never, async () => 'next'), 'next', 'a failure blocks nobody')
})

void t.test('a lane has so many places, and none is lost', async (t) => {
  const lane = new Lane(2)
  const ends: (() => void)[] = []
  let running = 0
  const work = (): Promise<void> => {
    running += 1
    return new Promise<void>((resolve) => ends.push(resolve)).finally(() => (running -= 1))
  }
  const controller = new AbortController()
  const first = [lane.run(never, work), lane.run(never, work)]
  t.equal(lane.free, 0)
  const givesUp = lane.run(controller.signal, work)
  const last = lane.run(never, work)
  await tick()
  t.equal(running, 2)
  controller.abort(new Error('gave up'))
  await t.rejects(givesUp, { message: 'gave up' })
  ends.shift()?.()
  await tick()
  t.equal(running, 2, 'the one that still waits took the place')
  for (const end of ends) end()
  await tick()
  for (const end of ends) end()
  await Promise.all([...first, last])
  t.equal(lane.free, 2)
  await t.rejects(
    lane.run(never, () => Promise.reject(new Error('failed'))),
    { message: 'failed' },
  )
  t.equal(lane.free, 2)
})
