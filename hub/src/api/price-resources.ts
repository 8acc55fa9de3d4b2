import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import { agreementName, parseResourceName, resourceName } from '../domain/names.js'
import type { PriceEntry } from '../domain/price/pricing.js'
import type { ShownAgreement } from '../store/pricing.js'
import type { PriceListRow } from '../store/tables.js'
import { fromPrice, toPrice, toTime } from './convert.js'

// Price lists and billing agreements between rows and protobuf.

export function priceListNotFound(name: string, field = 'name'): HubError {
  const description = `there is no price list ${name}; \`slipway get pricelists\` lists them`
  return new HubError('PRICE_LIST_NOT_FOUND', description, {
    metadata: { price_list: name },
    violations: [{ field, description }],
  })
}

export function agreementNotFound(name: string, field = 'name'): HubError {
  const description = `there is no billing agreement ${name}; \`slipway get billingagreements\` lists them`
  return new HubError('BILLING_AGREEMENT_NOT_FOUND', description, {
    metadata: { billing_agreement: name },
    violations: [{ field, description }],
  })
}

/** @throws HubError INVALID_FIELD. */
export function fromEntries(entries: readonly hub.PriceEntry[], field: string): PriceEntry[] {
  return entries.map((entry, index) => {
    const at = `${field}[${index}]`
    if (entry.price === undefined) throw invalidField(`${at}.price`, 'is missing; say what it costs')
    const price = fromPrice(entry.price)
    if (!/^[A-Z]{3}$/.test(price.currency))
      throw invalidField(`${at}.price.currency`, 'must be a code of ISO 4217, for example EUR')
    const amounts = [price.hourlyMicros, price.monthlyMicros, price.setupMicros]
    if (amounts.some((micros) => micros < 0 || !Number.isSafeInteger(micros)))
      throw invalidField(`${at}.price`, 'must not be below zero, nor over 2^53 millionths')
    const name = (given: string, of: 'machine_class' | 'provider') =>
      given === '' ? '' : parseResourceName(of, given, `${at}.${of}`)
    return {
      className: name(entry.machineClass, 'machine_class'),
      provider: name(entry.provider, 'provider'),
      typeId: entry.typeId,
      location: entry.location,
      family: entry.family,
      price,
    }
  })
}

function toEntries(entries: readonly PriceEntry[]): hub.PriceEntry[] {
  return entries.map(({ className, provider, typeId, location, family, price }) =>
    create(hub.PriceEntrySchema, {
      machineClass: className === '' ? '' : resourceName('machine_class', className),
      provider: provider === '' ? '' : resourceName('provider', provider),
      typeId,
      location,
      family,
      price: toPrice(price),
    }),
  )
}

export function toPriceList(row: PriceListRow): hub.PriceList {
  return create(hub.PriceListSchema, {
    name: resourceName('price_list', row.name),
    uid: row.id,
    displayName: row.display_name,
    isDefault: row.is_default,
    entries: toEntries(row.entries),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: String(row.version),
  })
}

export function toAgreement(row: ShownAgreement): hub.BillingAgreement {
  return create(hub.BillingAgreementSchema, {
    name: agreementName(row.organization_name, row.name),
    uid: row.id,
    displayName: row.display_name,
    priceList: row.price_list_name === null ? '' : resourceName('price_list', row.price_list_name),
    discountBasisPoints: row.discount_basis_points,
    entries: toEntries(row.entries),
    startTime: toTime(row.starts_at),
    endTime: toTime(row.ends_at),
    createTime: toTime(row.created_at),
    updateTime: toTime(row.updated_at),
    etag: String(row.version),
  })
}
