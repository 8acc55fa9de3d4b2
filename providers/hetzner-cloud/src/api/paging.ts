import type { Meta } from './types.js'

/** What the API gives at most on one page. */
export const pageSize = 50

export interface PageQuery {
  readonly page: number
  readonly per_page: number
}

interface Page<Item> {
  readonly meta: Meta
  readonly items: readonly Item[]
}

/**
 * Reads a listing whole. Where something is deleted while pages are read, all that comes after it moves towards the first page. Read forwards, a page
 * would so lose what moved past the reader, and what is not seen counts as gone. So the pages are read from the last to the first, in the order of ids
 * (`read` must ask for it): what moves comes to a page that is still to be read. What is created meanwhile comes behind the last page, and may be missed.
 *
 * @returns each thing that exists from the first call to the last, once.
 */
export async function* listAll<Item extends { readonly id: number }>(
  read: (query: PageQuery) => Promise<Page<Item>>,
): AsyncIterable<Item> {
  const seen = new Set<number>()
  const first = await read({ page: 1, per_page: pageSize })
  for await (const items of restOf(first, read)) {
    for (const item of items) {
      if (seen.has(item.id)) continue
      seen.add(item.id)
      yield item
    }
  }
}

async function* restOf<Item>(
  first: Page<Item>,
  read: (query: PageQuery) => Promise<Page<Item>>,
): AsyncIterable<readonly Item[]> {
  const { last_page: last, next_page: next } = first.meta.pagination
  if (next === null) {
    yield first.items
    return
  }
  for (let page = last ?? (await lastPage(next, read)); page >= 1; page -= 1) {
    yield (await read({ page, per_page: pageSize })).items
  }
}

/** Where the API does not say which page is the last, it is walked to. */
async function lastPage<Item>(from: number, read: (query: PageQuery) => Promise<Page<Item>>): Promise<number> {
  for (let page = from; ;) {
    const { next_page: next } = (await read({ page, per_page: pageSize })).meta.pagination
    if (next === null || next <= page) return page
    page = next
  }
}
