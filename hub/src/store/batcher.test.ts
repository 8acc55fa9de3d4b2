import t from 'tap'
import { Batcher, type Settled } from './batcher.js'

function ok<T>(result: T): Settled<T> {
  return { ok: true, result }
}

void t.test('a batcher', async (t) => {
  await t.test('does together what comes together, and what comes meanwhile next', async (t) => {
    const batches: number[][] = []
    let release: () => void = () => undefined
    const first = new Promise<void>((resolve) => (release = resolve))
    const batcher = new Batcher<number, number>({
      max: 3,
      work: async (items) => {
        batches.push([...items])
        if (batches.length === 1) await first
        return items.map((item) => ok(item * 2))
      },
    })
    const early = [1, 2].map((item) => batcher.submit(item))
    await new Promise((resolve) => setImmediate(resolve))
    await new Promise((resolve) => setImmediate(resolve))
    const late = [3, 4, 5, 6].map((item) => batcher.submit(item))
    release()
    t.strictSame(await Promise.all([...early, ...late]), [2, 4, 6, 8, 10, 12])
    t.strictSame(batches, [[1, 2], [3, 4, 5], [6]])
    t.equal(await batcher.submit(7), 14, 'and goes on after a rest')
  })

  await t.test('keeps items of one key apart, in their order', async (t) => {
    const batches: string[][] = []
    const batcher = new Batcher<string, string>({
      max: 10,
      keyOf: (item) => (item === '-' ? undefined : item[0]),
      work: (items) => {
        batches.push([...items])
        return Promise.resolve(items.map(ok))
      },
    })
    await Promise.all(['a1', 'b1', 'a2', '-', '-', 'a3'].map((item) => batcher.submit(item)))
    t.strictSame(batches, [['a1', 'b1', '-', '-'], ['a2'], ['a3']])
  })

  await t.test('lets one that cannot be done fail alone', async (t) => {
    const batcher = new Batcher<number, number>({
      max: 10,
      work: (items) => {
        if (items.includes(2)) return Promise.reject(new Error('no twos'))
        return Promise.resolve(
          items.map((item) => (item === 3 ? { ok: false, error: new Error('no threes') } : ok(item))),
        )
      },
    })
    const outcomes = await Promise.allSettled([1, 2, 3, 4].map((item) => batcher.submit(item)))
    t.strictSame(
      outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value : String(outcome.reason))),
      [1, 'Error: no twos', 'Error: no threes', 4],
    )
  })

  await t.test('tries nothing again where the database went away: it may have been done', async (t) => {
    let batches = 0
    const batcher = new Batcher<number, number>({
      max: 10,
      work: () => {
        batches++
        return Promise.reject(new Error('Connection terminated unexpectedly'))
      },
    })
    const outcomes = await Promise.allSettled([1, 2].map((item) => batcher.submit(item)))
    t.ok(outcomes.every(({ status }) => status === 'rejected'))
    t.equal(batches, 1)
  })
})
