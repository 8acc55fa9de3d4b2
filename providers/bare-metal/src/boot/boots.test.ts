import fc from 'fast-check'
import t from 'tap'
import { Boots, defaultBootSettings, type BootWindow } from './boots.js'

const mac = '52:54:00:00:00:01'
const uuid = '4c4c4544-0051-4810-8056-b4c04f595931'
const window: BootWindow = { windowId: 'w1', machineId: 'm1', macs: [mac], uuid, generation: '7', into: 'agent' }

function boots(known: readonly string[] = [mac]): Boots {
  return new Boots(defaultBootSettings, (asked) => known.includes(asked))
}

function tokenOf(minted: ReturnType<Boots['mint']>): string {
  if (minted.outcome !== 'minted') throw new Error(minted.outcome)
  return minted.token
}

void t.test('one token, one session, one window', (t) => {
  const all = boots()
  t.match(all.admit(mac, uuid, 0), { admit: 'address' })
  t.match(all.mint(mac, uuid, 0), { outcome: 'refused', rogue: 'wrong-window' })
  all.open(window)
  t.match(all.admit(mac, uuid, 0), { admit: 'boot' })
  const token = tokenOf(all.mint(mac, uuid, 0))
  t.match(token, /^7\.[\w-]{43}$/, 'it names the generation')
  t.match(all.redeem(token, { bootMac: mac, uuid }, 1), { outcome: 'redeemed', boot: { machineId: 'm1' } })
  t.match(all.redeem(token, { bootMac: mac, uuid }, 2), { outcome: 'refused', rogue: 'replayed-token' })
  t.match(all.mint(mac, uuid, 3), { outcome: 'later' }, 'its agent is heard')
  t.match(all.mint(mac, uuid, 60_000), { outcome: 'minted' }, 'it is not any more')
  t.notMatch(JSON.stringify(all.snapshot(4)), token.slice(2), 'the token is kept nowhere')
  t.end()
})

void t.test('a window that was opened for something else takes older tokens along', (t) => {
  const all = boots()
  all.open(window)
  const token = tokenOf(all.mint(mac, uuid, 0))
  all.open({ ...window, windowId: 'w2', generation: '8' })
  t.match(all.redeem(token, {}, 1), { outcome: 'refused', rogue: 'wrong-window' })
  all.open(window)
  t.match(all.lookUp(token, 1), { outcome: 'found' }, 'the same one takes up where it was, as after a restart')
  all.close('m1', 'w2')
  t.match(all.lookUp(token, 1), { outcome: 'found' }, 'nobody closes the window of another')
  all.close('m1', 'w1')
  t.match(all.lookUp(token, 1), { outcome: 'refused' })
  t.end()
})

void t.test('what was written down is known again, and tokens grow old', (t) => {
  const before = boots()
  before.open(window)
  const [used, left] = [tokenOf(before.mint(mac, uuid, 0)), '']
  before.redeem(used, {}, 0)
  const after = new Boots(defaultBootSettings, () => true, before.snapshot(0))
  after.open(window)
  t.match(after.redeem(used, {}, 1), { outcome: 'refused', rogue: 'replayed-token' })
  t.match(after.redeem(left, {}, 1), { outcome: 'refused', rogue: 'unknown-token' })
  t.ok(after.mayRun('m1'))
  const late = tokenOf(after.mint(mac, uuid, 100_000))
  t.match(after.redeem(late, {}, 100_000 + defaultBootSettings.tokenMs + 1), {
    outcome: 'refused',
    rogue: 'wrong-window',
  })
  after.endBefore('m1', 100_000)
  t.notOk(after.mayRun('m1'), 'nothing runs without power')
  t.end()
})

void t.test('a machine that boots for ever is sick, and so is a segment full of strangers', (t) => {
  const all = boots()
  all.open(window)
  for (let n = 0; n < defaultBootSettings.maxBoots; n += 1) t.match(all.mint(mac, uuid, n), { outcome: 'minted' })
  t.match(all.mint(mac, uuid, 100), { outcome: 'refused', rogue: 'too-many-boots' })
  t.match(all.mint(mac, uuid, 3_700_000), { outcome: 'minted' }, 'an hour later it may try again')
  const strangers = boots([])
  for (let n = 0; n < defaultBootSettings.maxUnknown; n += 1)
    strangers.mint(
      `52:54:00:01:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`,
      undefined,
      n,
    )
  t.match(strangers.mint('52:54:00:02:00:00', undefined, 1_000), { outcome: 'refused', rogue: 'too-many-boots' })
  t.match(new Boots({ ...defaultBootSettings, discovery: false }, () => false).admit(mac, undefined, 0), {
    admit: 'nothing',
    rogue: false,
  })
  t.end()
})

void t.test('whatever happens, no token makes two sessions, and none outside of its window', (t) => {
  const machine = fc.integer({ min: 1, max: 3 })
  const step = fc.oneof(
    fc.record({ do: fc.constant('open' as const), machine, window: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ do: fc.constant('close' as const), machine, window: fc.integer({ min: 1, max: 3 }) }),
    fc.record({ do: fc.constant('mint' as const), machine, window: fc.constant(0) }),
    fc.record({ do: fc.constant('redeem' as const), machine, window: fc.nat(20) }),
    fc.record({ do: fc.constant('restart' as const), machine, window: fc.constant(0) }),
    fc.record({ do: fc.constant('cut' as const), machine, window: fc.constant(0) }),
  )
  fc.assert(
    fc.property(fc.array(fc.tuple(step, fc.nat(40_000)), { maxLength: 80 }), (steps) => {
      let all = boots(['52:54:00:00:00:01', '52:54:00:00:00:02', '52:54:00:00:00:03'])
      const open = new Map<number, number>()
      const tokens: { readonly token: string; readonly machine: number; readonly window: number }[] = []
      const used = new Set<string>()
      let nowMs = 0
      for (const [{ do: what, machine, window }, pauseMs] of steps) {
        nowMs += pauseMs
        const machineId = `m${machine}`
        const mac = `52:54:00:00:00:0${machine}`
        if (what === 'open') {
          all.open({ windowId: `w${window}`, machineId, macs: [mac], generation: String(window), into: 'agent' })
          open.set(machine, window)
        } else if (what === 'close') {
          all.close(machineId, `w${window}`)
          if (open.get(machine) === window) open.delete(machine)
        } else if (what === 'mint') {
          const minted = all.mint(mac, undefined, nowMs)
          if (minted.outcome === 'minted')
            tokens.push({ token: minted.token, machine, window: open.get(machine) ?? -1 })
          if (minted.outcome === 'minted' && !open.has(machine)) return false
        } else if (what === 'redeem') {
          const chosen = tokens[window % Math.max(1, tokens.length)]
          if (chosen === undefined) continue
          if (all.redeem(chosen.token, { bootMac: `52:54:00:00:00:0${machine}` }, nowMs).outcome === 'refused') continue
          if (used.has(chosen.token) || chosen.machine !== machine || open.get(machine) !== chosen.window) return false
          used.add(chosen.token)
        } else if (what === 'cut') all.endBefore(machineId, nowMs)
        else {
          all = new Boots(defaultBootSettings, () => true, all.snapshot(nowMs))
          open.clear()
        }
        for (const id of ['m1', 'm2', 'm3'])
          if (
            all
              .snapshot(nowMs)
              .filter((boot) => boot.machineId === id && boot.redeemedAtMs !== undefined && boot.over !== true).length >
            1
          )
            return false
      }
      return true
    }),
    { numRuns: 400 },
  )
  t.end()
})
