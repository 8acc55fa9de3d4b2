import { create } from '@bufbuild/protobuf'
import type { ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import {
  countListUse,
  deletePriceList,
  findDefaultList,
  findPriceList,
  insertPriceList,
  listPriceLists,
  lockPriceList,
  updatePriceList,
  type PriceListContent,
} from '../store/pricing.js'
import type { PriceListRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  maskedPaths,
  nameTaken,
  pageSize,
  readPage,
  tryOut,
  type ApiDeps,
} from './context.js'
import { fromEntries, priceListNotFound, toPriceList } from './price-resources.js'

const mutable = ['display_name', 'is_default', 'entries'] as const

function event(row: PriceListRow, reason: EventDraft['reason'], message: string): EventDraft {
  return { subject: resourceName('price_list', row.name), reason, message, severity: 'INFO' }
}

function contentOf(given: hub.PriceList): PriceListContent {
  return {
    display_name: given.displayName,
    is_default: given.isDefault,
    entries: fromEntries(given.entries, 'price_list.entries'),
  }
}

/** @throws HubError INVALID_FIELD where another list is the default one. */
async function checkDefault(tx: Tx, content: PriceListContent, id: string): Promise<void> {
  const other = content.is_default ? await findDefaultList(tx, id) : undefined
  if (other !== undefined)
    throw invalidField('price_list.is_default', `priceLists/${other.name} is the default one; take that off it first`)
}

export function priceListService(deps: ApiDeps): ServiceImpl<typeof hub.PriceListService> {
  return {
    async createPriceList(request, context) {
      const content = contentOf(request.priceList ?? create(hub.PriceListSchema))
      const work = async (tx: Tx) => {
        if ((await findPriceList(tx, request.priceListId)) !== undefined)
          throw nameTaken('price_list_id', request.priceListId)
        await checkDefault(tx, content, '00000000-0000-0000-0000-000000000000')
        const row = await insertPriceList(tx, request.priceListId, content)
        await appendEvents(tx, causeOf(context), [event(row, 'PriceListCreated', 'Made')])
        return create(hub.CreatePriceListResponseSchema, { priceList: toPriceList(row) })
      }
      if (request.validateOnly) return tryOut(databaseOf(deps, context), work)
      return createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreatePriceListRequestSchema, message: request },
        response: hub.CreatePriceListResponseSchema,
        wake: [],
        work,
      })
    },

    async getPriceList(request, context) {
      const row = await findPriceList(databaseOf(deps, context), parseResourceName('price_list', request.name))
      if (row === undefined) throw priceListNotFound(request.name)
      return { priceList: toPriceList(row) }
    },

    async listPriceLists(request, context) {
      const list = 'priceLists'
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listPriceLists(tx, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.name],
      })
      return { priceLists: page.rows.map(toPriceList), nextPageToken: page.nextPageToken }
    },

    async updatePriceList(request, context) {
      const given = request.priceList ?? create(hub.PriceListSchema)
      const name = parseResourceName('price_list', given.name, 'price_list.name')
      const paths = maskedPaths(request.updateMask?.paths, mutable)
      const content = contentOf(given)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockPriceList(tx, name)
        if (locked === undefined) throw priceListNotFound(given.name, 'price_list.name')
        checkEtag(given.etag, locked, given.name)
        const wanted = {
          display_name: paths.has('display_name') ? content.display_name : locked.display_name,
          is_default: paths.has('is_default') ? content.is_default : locked.is_default,
          entries: paths.has('entries') ? content.entries : locked.entries,
        }
        await checkDefault(tx, wanted, locked.id)
        if (request.validateOnly) return locked
        const updated = await updatePriceList(tx, locked.id, wanted)
        if (updated.version !== locked.version)
          await appendEvents(tx, causeOf(context), [
            event(updated, 'PriceListUpdated', 'Changed; it concerns future orders'),
          ])
        return updated
      })
      deps.wake.signal({ kind: 'change' })
      return { priceList: toPriceList(row) }
    },

    async deletePriceList(request, context) {
      const name = parseResourceName('price_list', request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockPriceList(tx, name)
        if (locked === undefined) {
          if (request.allowMissing) return
          throw priceListNotFound(request.name)
        }
        checkEtag(request.etag, locked, request.name)
        const agreements = await countListUse(tx, locked.id)
        if (agreements > 0)
          throw new HubError(
            'PRICE_LIST_IN_USE',
            `${agreements} billing agreements are based on ${request.name}; base them on another list first`,
            {
              metadata: { billing_agreements: String(agreements) },
            },
          )
        await deletePriceList(tx, locked.id)
        await appendEvents(tx, causeOf(context), [event(locked, 'PriceListDeleted', 'Deleted')])
      })
      deps.wake.signal({ kind: 'change' })
      return {}
    },
  }
}
