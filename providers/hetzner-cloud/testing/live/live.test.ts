import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Emulator } from '../emulator/emulator.js'
import { apiAt, record, replay } from './live.js'
import { scenarios } from './scenarios.js'
import { sweep } from './sweeper.js'

// The scenarios that anyone with a token can run against the real API, here against the emulator: through the recorder, and from the tape that it made.

t.setTimeout(200_000)

const of = { type: 'cx22', image: 'debian-12', location: 'fsn1' }

async function start(t: Test) {
  const emulator = await Emulator.start()
  const folder = mkdtempSync(join(tmpdir(), 'slipway-live-'))
  t.teardown(async () => {
    await emulator.close()
    rmSync(folder, { recursive: true, force: true })
  })
  const run = (capMicros: bigint) =>
    record({
      ...of,
      upstream: emulator.endpoint,
      token: emulator.token,
      tapeFile: join(folder, 'tape'),
      capMicros,
      say: (line) => t.comment(line),
    })
  return { emulator, run, tapeFile: join(folder, 'tape') }
}

void t.test('scenarios are recorded, and pass again from the tape alone', async (t) => {
  const { emulator, run, tapeFile } = await start(t)
  const recorded = await run(1_000_000n)
  t.strictSame(recorded.failed, [])
  t.strictSame(recorded.passed, Object.keys(scenarios))
  t.strictSame(recorded.swept, [], 'nothing was left')
  t.ok(recorded.spentMicros > 0n && recorded.spentMicros < 200_000n, String(recorded.spentMicros))
  t.strictSame(emulator.violations, [])
  const tape = readFileSync(tapeFile, 'utf8')
  t.notMatch(tape, emulator.token, 'no token is on the tape')
  t.notMatch(tape, /emulated-root-password|#cloud-config/)
  const calls = emulator.ledger.calls.length
  await emulator.close()
  const replayed = await replay(tapeFile, (line) => t.comment(line))
  t.strictSame(replayed.failed, [])
  t.equal(replayed.unheard, 0, 'every change on the tape was asked for again')
  t.equal(emulator.ledger.calls.length, calls)
})

void t.test('the cap is kept, and what a failed run leaves is swept up', async (t) => {
  const { emulator, run } = await start(t)
  const none = await run(1_000n)
  t.equal(none.passed.length, 1, 'only what costs nothing passes')
  t.strictSame(emulator.ledger.created('server'), [], 'nothing was made')
  const [foreign] = emulator.plant([{ name: 'theirs', labels: { 'slipway/hub': 'other', 'slipway/request': 'a' } }])
  emulator.faults.planAction('reboot_server', { code: 'action_failed', message: 'broken' })
  const broken = await run(1_000_000n)
  t.equal(broken.failed.length, 1)
  t.match(broken.swept, [/^server \d+$/])
  t.strictSame(
    emulator.ledger.live('server').map(({ id }) => id),
    [foreign],
    'what is somebody else’s stays',
  )
  emulator.plant([{ name: 'late', labels: { 'slipway/hub': 'live-test-0', 'slipway/request': 'a' } }])
  t.equal((await sweep(apiAt(emulator.endpoint, emulator.token))).length, 1, 'earlier runs too')
})
