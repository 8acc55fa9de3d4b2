import fc from 'fast-check'
import t from 'tap'
import { listAll, pageSize } from './paging.js'

/** A listing that changes after each page, in the order of ids. */
class Shelf {
  items: { readonly id: number }[]
  #nextId: number
  reads = 0
  readonly #tellsLast: boolean

  constructor(count: number, tellsLast = true) {
    this.items = Array.from({ length: count }, (_, index) => ({ id: index + 1 }))
    this.#nextId = count + 1
    this.#tellsLast = tellsLast
  }

  remove(at: number): number | undefined {
    return this.items.splice(at % Math.max(1, this.items.length), 1)[0]?.id
  }

  add(): void {
    this.items.push({ id: this.#nextId++ })
  }

  read({ page, per_page: size }: { readonly page: number; readonly per_page: number }) {
    this.reads += 1
    const last = Math.max(1, Math.ceil(this.items.length / size))
    const pagination = {
      page,
      per_page: size,
      previous_page: page > 1 ? page - 1 : null,
      next_page: page < last ? page + 1 : null,
      last_page: this.#tellsLast ? last : null,
      total_entries: this.items.length,
    }
    return { meta: { pagination }, items: this.items.slice((page - 1) * size, page * size) }
  }
}

async function idsOf(items: AsyncIterable<{ readonly id: number }>): Promise<number[]> {
  const ids: number[] = []
  for await (const { id } of items) ids.push(id)
  return ids
}

void t.test('one page is read once', async (t) => {
  for (const count of [0, 1, pageSize]) {
    const shelf = new Shelf(count)
    t.equal((await idsOf(listAll(async (query) => shelf.read(query)))).length, count)
    t.equal(shelf.reads, 1)
  }
})

void t.test('many pages cost one more call than there are pages', async (t) => {
  const shelf = new Shelf(10_000)
  t.equal(new Set(await idsOf(listAll(async (query) => shelf.read(query)))).size, 10_000)
  t.equal(shelf.reads, 10_000 / pageSize + 1)
})

void t.test('an API that does not tell the last page is read whole too', async (t) => {
  const shelf = new Shelf(170, false)
  t.equal(new Set(await idsOf(listAll(async (query) => shelf.read(query)))).size, 170)
})

void t.test('what exists all the while is seen once, whatever is deleted and created between pages', async () => {
  const change = fc.record({ removals: fc.array(fc.nat(500), { maxLength: 120 }), adds: fc.nat(80) })
  await fc.assert(
    fc.asyncProperty(fc.nat(400), fc.boolean(), fc.array(change, { maxLength: 12 }), async (count, tells, changes) => {
      const shelf = new Shelf(count, tells)
      const steady = new Set(shelf.items.map(({ id }) => id))
      const queue = [...changes]
      const ids = await idsOf(
        listAll(async (query) => {
          const page = shelf.read(query)
          const next = queue.shift()
          for (const at of next?.removals ?? []) {
            const id = shelf.remove(at)
            if (id !== undefined) steady.delete(id)
          }
          for (let add = 0; add < (next?.adds ?? 0); add += 1) shelf.add()
          return page
        }),
      )
      return new Set(ids).size === ids.length && [...steady].every((id) => ids.includes(id))
    }),
    { numRuns: 300 },
  )
})
