import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Bench } from '../bench.js'
import { faketimeLibrary, type Case } from '../case.js'
import type { Instance } from '../instance.js'
import { CaseSkipped, expect } from '../until.js'
import { pause, reportNumber, strikeAt } from './moments.js'

const dayMs = 86_400_000

/** Starts an instance for which it is another time. @param offset as libfaketime understands it, `+1d`. */
async function instanceAt(
  bench: Bench,
  offset: string,
): Promise<{ instance: Instance; set: (offset: string) => void }> {
  if (faketimeLibrary === undefined || !existsSync(faketimeLibrary))
    throw new CaseSkipped('libfaketime is not installed here')
  const file = join(bench.folder, 'time')
  const set = (text: string) => writeFileSync(file, `${text}\n`)
  set(offset)
  const env = {
    LD_PRELOAD: faketimeLibrary,
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: '1',
    // What runs off is the time of day: the monotonic clock never does.
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    DONT_FAKE_MONOTONIC: '1',
  }
  return { instance: await bench.instance({ env }), set }
}

const wide = { certificateFromMs: -2 * dayMs, certificateLifeMs: 2 * dayMs }

/** Leases and pauses hang on no time of day. */
export const clockCases: readonly Case[] = [
  ...['-1d', '+1d'].map((offset): Case => {
    return {
      id: `clock/a-day-${offset === '-1d' ? 'behind' : 'ahead'}`,
      rule: `A process whose clock is a day ${offset === '-1d' ? 'behind' : 'ahead'} works as any other, where its certificate lets it.`,
      options: wide,
      async run(bench) {
        const { instance } = await instanceAt(bench, offset)
        const item = await bench.order()
        await bench.drive(item, [instance])
        await bench.server(item)
      },
    }
  }),
  ...['-6h', '+6h'].map((offset): Case => {
    return {
      id: `clock/jumps-${offset === '-6h' ? 'back' : 'ahead'}`,
      rule: 'A clock that jumps in the middle of the work ends no lease, and makes no second machine.',
      options: { ...wide, leaseMs: 8_000 },
      async run(bench) {
        const { instance, set } = await instanceAt(bench, '+0s')
        const session = await instance.ready()
        const item = await bench.order()
        const reached = strikeAt(bench, item, reportNumber(2), async () => {
          set(offset)
          await pause(1_500)
          return 'ack' as const
        })
        await instance.claim(item)
        await reached()
        await bench.drive(item)
        expect(item.fence === 1n && session.open, 'the jump cost the claim, or the session')
        await bench.server(item)
        await session.beats(2)
      },
    }
  }),
]
