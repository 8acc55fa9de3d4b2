import { create } from '@bufbuild/protobuf'
import type { ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import { agreementName, parseAgreementName, parseResourceName } from '../domain/names.js'
import { inTransaction, type Tx } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import {
  deleteAgreement,
  findAgreement,
  findPriceList,
  insertAgreement,
  listAgreements,
  lockAgreement,
  updateAgreement,
  type AgreementContent,
  type ShownAgreement,
} from '../store/pricing.js'
import { findOrganization } from '../store/tenancy.js'
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
  scopesOfCall,
  tryOut,
  type ApiDeps,
} from './context.js'
import { fromTime } from './convert.js'
import { organizationNotFound } from './not-found.js'
import { agreementNotFound, fromEntries, priceListNotFound, toAgreement } from './price-resources.js'

const mutable = ['display_name', 'price_list', 'discount_basis_points', 'entries', 'start_time', 'end_time'] as const

function event(row: ShownAgreement, reason: EventDraft['reason'], message: string): EventDraft {
  return {
    subject: agreementName(row.organization_name, row.name),
    reason,
    message,
    severity: 'INFO',
    organizationId: row.organization_id,
  }
}

/** @throws HubError INVALID_FIELD, PRICE_LIST_NOT_FOUND. */
async function contentOf(tx: Tx, given: hub.BillingAgreement): Promise<AgreementContent> {
  const [startsAt, endsAt] = [fromTime(given.startTime), fromTime(given.endTime)]
  if (startsAt !== undefined && endsAt !== undefined && startsAt >= endsAt)
    throw invalidField('billing_agreement.end_time', 'must be after start_time')
  const field = 'billing_agreement.price_list'
  const list =
    given.priceList === ''
      ? undefined
      : await findPriceList(tx, parseResourceName('price_list', given.priceList, field))
  if (given.priceList !== '' && list === undefined) throw priceListNotFound(given.priceList, field)
  return {
    display_name: given.displayName,
    price_list_id: list?.id ?? null,
    discount_basis_points: given.discountBasisPoints,
    entries: fromEntries(given.entries, 'billing_agreement.entries'),
    starts_at: startsAt ?? null,
    ends_at: endsAt ?? null,
  }
}

/** The agreement with those fields of another that a mask names. */
function merged(
  current: hub.BillingAgreement,
  given: hub.BillingAgreement,
  paths: ReadonlySet<(typeof mutable)[number]>,
): hub.BillingAgreement {
  const of = (path: (typeof mutable)[number]) => (paths.has(path) ? given : current)
  const fields = create(hub.BillingAgreementSchema, {
    displayName: of('display_name').displayName,
    priceList: of('price_list').priceList,
    discountBasisPoints: of('discount_basis_points').discountBasisPoints,
    entries: of('entries').entries,
  })
  const [{ startTime }, { endTime }] = [of('start_time'), of('end_time')]
  if (startTime !== undefined) fields.startTime = startTime
  if (endTime !== undefined) fields.endTime = endTime
  return fields
}

async function found(tx: Tx, organization: string, id: string): Promise<ShownAgreement> {
  const row = await findAgreement(tx, organization, id)
  if (row === undefined) throw new Error(`billing agreement ${organization}/${id} was stored, and is not there`)
  return row
}

export function billingAgreementService(deps: ApiDeps): ServiceImpl<typeof hub.BillingAgreementService> {
  return {
    async createBillingAgreement(request, context) {
      const organization = parseResourceName('organization', request.parent, 'parent')
      const work = async (tx: Tx) => {
        const organizationId = (await findOrganization(tx, organization))?.id
        if (organizationId === undefined) throw organizationNotFound(organization)
        if ((await findAgreement(tx, organization, request.billingAgreementId)) !== undefined)
          throw nameTaken('billing_agreement_id', request.billingAgreementId)
        const given = request.billingAgreement ?? create(hub.BillingAgreementSchema)
        await insertAgreement(tx, organizationId, request.billingAgreementId, await contentOf(tx, given))
        const row = await found(tx, organization, request.billingAgreementId)
        await appendEvents(tx, causeOf(context), [event(row, 'BillingAgreementCreated', 'Made')])
        return create(hub.CreateBillingAgreementResponseSchema, { billingAgreement: toAgreement(row) })
      }
      if (request.validateOnly) return tryOut(databaseOf(deps, context), work)
      return createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreateBillingAgreementRequestSchema, message: request },
        response: hub.CreateBillingAgreementResponseSchema,
        wake: [],
        work,
      })
    },

    async getBillingAgreement(request, context) {
      const { organization, id } = parseAgreementName(request.name)
      const row = await findAgreement(databaseOf(deps, context), organization, id)
      if (row === undefined) throw agreementNotFound(request.name)
      return { billingAgreement: toAgreement(row) }
    },

    async listBillingAgreements(request, context) {
      const organization = parseResourceName('organization', request.parent, 'parent')
      const list = JSON.stringify(['billingAgreements', organization])
      const after = decodePageToken(deps, request.pageToken, list)
      const filter = { organization: organization === '-' ? undefined : organization, within: scopesOfCall(context) }
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) =>
          listAgreements(tx, filter, after === undefined ? undefined : [String(after[0]), String(after[1])], limit),
        keyOf: (row) => [row.organization_name, row.name],
      })
      return { billingAgreements: page.rows.map(toAgreement), nextPageToken: page.nextPageToken }
    },

    async updateBillingAgreement(request, context) {
      const given = request.billingAgreement ?? create(hub.BillingAgreementSchema)
      const { organization, id } = parseAgreementName(given.name, 'billing_agreement.name')
      const paths = maskedPaths(request.updateMask?.paths, mutable)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockAgreement(tx, organization, id)
        if (locked === undefined) throw agreementNotFound(given.name, 'billing_agreement.name')
        checkEtag(given.etag, locked, given.name)
        const content = await contentOf(tx, merged(toAgreement(locked), given, paths))
        if (request.validateOnly) return locked
        await updateAgreement(tx, locked, content)
        const updated = await found(tx, organization, id)
        if (updated.version !== locked.version)
          await appendEvents(tx, causeOf(context), [
            event(updated, 'BillingAgreementUpdated', 'Changed; it concerns future orders'),
          ])
        return updated
      })
      deps.wake.signal({ kind: 'change' })
      return { billingAgreement: toAgreement(row) }
    },

    async deleteBillingAgreement(request, context) {
      const { organization, id } = parseAgreementName(request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockAgreement(tx, organization, id)
        if (locked === undefined) {
          if (request.allowMissing) return
          throw agreementNotFound(request.name)
        }
        checkEtag(request.etag, locked, request.name)
        await deleteAgreement(tx, locked)
        await appendEvents(tx, causeOf(context), [event(locked, 'BillingAgreementDeleted', 'Deleted')])
      })
      deps.wake.signal({ kind: 'change' })
      return {}
    },
  }
}
