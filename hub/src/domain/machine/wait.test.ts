import t from 'tap'
import { isSameMachine, isKnown } from './identity.js'
import { isWaitOver, nextWait } from './wait.js'

const now = new Date('2026-01-01T00:00:00Z')
const after = (ms: number) => new Date(now.getTime() + ms)
const said = { operation: 'CLEAN', operationGeneration: 1, timeoutMs: 10_000, message: 'the wipe' }

void t.test('a wait keeps the deadline that it began with', async (t) => {
  const first = nextWait(null, said, now)
  t.match(first, { since: now, until: after(10_000) })
  t.strictSame(nextWait(first, { ...said, message: 'still' }, after(9_000)), { ...first, message: 'still' })
  t.strictSame(nextWait(null, { ...said, timeoutMs: 0 }, now).until, after(1_000), 'no time at all is none')
})

void t.test('silence is held against nobody who could not be heard', async (t) => {
  const clock = { now: after(10_000), connectedSince: after(-900_000), graceUntil: now, reconnectGraceMs: 120_000 }
  t.equal(isWaitOver(after(10_000), clock), true)
  t.equal(isWaitOver(after(10_001), clock), false)
  t.equal(isWaitOver(after(10_000), { ...clock, connectedSince: null }), false, 'its provider is out of reach')
  t.equal(isWaitOver(after(10_000), { ...clock, connectedSince: after(5_000) }), false, 'it has only just come back')
  t.equal(isWaitOver(after(10_000), { ...clock, graceUntil: after(20_000) }), false, 'the hub has only just come back')
})

void t.test('machines are told apart by what cannot be in two', async (t) => {
  const macs = ['52:54:00:00:00:01']
  t.ok(isSameMachine({ serial: 'A' }, { serial: 'A' }))
  t.ok(isSameMachine({ uuid: 'AB' }, { uuid: 'ab' }))
  t.ok(isSameMachine({ macs }, { macs: [...macs, '52:54:00:00:00:02'] }))
  t.notOk(isSameMachine({ serial: 'A', macs }, { serial: 'B', macs }), 'a card that moved')
  t.notOk(isSameMachine({ serial: 'A', uuid: 'x' }, { serial: 'A', uuid: 'y' }), 'a serial number that was used twice')
  t.notOk(isSameMachine({ serial: '' }, { serial: '' }))
  t.notOk(isSameMachine({}, {}))
  const shape = { vcpus: 1, memoryMib: 1, diskGib: 0, diskClass: '', architecture: '' }
  t.ok(isKnown({ shape, serial: 'A' }))
  t.notOk(isKnown({ shape }), 'nobody knows who it is')
  t.notOk(isKnown({ serial: 'A', macs }), 'nobody knows what it has')
})
