import { create } from '@bufbuild/protobuf'
import { timestampDate, type Timestamp } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { age, collection, idOf, paged, type ResourceType } from './resource-type.js'
import { inOrganization } from './resources-quotas.js'

export const priceLists: ResourceType<hub.PriceList> = {
  kind: 'PriceList',
  singular: 'pricelist',
  plural: 'pricelists',
  aliases: [],
  schema: hub.PriceListSchema,
  columns: [
    { heading: 'NAME', value: (list) => idOf(list.name) },
    { heading: 'DEFAULT', value: (list) => (list.isDefault ? 'yes' : '') },
    { heading: 'ENTRIES', value: (list) => String(list.entries.length) },
    { heading: 'AGE', value: (list, now) => age(list.createTime, now) },
  ],
  fullName: collection('priceLists'),
  get: async (client, name) =>
    (await client.priceLists.getPriceList({ name })).priceList ?? create(hub.PriceListSchema),
  pages: (client) =>
    paged(async (pageToken) => {
      const page = await client.priceLists.listPriceLists({ pageSize: 500, pageToken })
      return { rows: page.priceLists, nextPageToken: page.nextPageToken }
    }),
  state: () => '',
  terminal: [],
  ready: [''],
}

const day = (time: Timestamp | undefined) => (time === undefined ? '' : timestampDate(time).toISOString().slice(0, 10))

export const billingAgreements: ResourceType<hub.BillingAgreement> = {
  kind: 'BillingAgreement',
  singular: 'billingagreement',
  plural: 'billingagreements',
  aliases: ['agreement', 'agreements'],
  schema: hub.BillingAgreementSchema,
  columns: [
    { heading: 'NAME', value: (agreement) => idOf(agreement.name) },
    { heading: 'ORGANIZATION', value: (agreement) => agreement.name.split('/')[1] ?? '' },
    {
      heading: 'PRICE LIST',
      value: (agreement) => (agreement.priceList === '' ? 'default' : idOf(agreement.priceList)),
    },
    { heading: 'DISCOUNT', value: (agreement) => `${agreement.discountBasisPoints / 100}%` },
    { heading: 'ENTRIES', value: (agreement) => String(agreement.entries.length) },
    { heading: 'FROM', value: (agreement) => day(agreement.startTime) },
    { heading: 'UNTIL', value: (agreement) => day(agreement.endTime) },
    { heading: 'AGE', wide: true, value: (agreement, now) => age(agreement.createTime, now) },
  ],
  fullName: inOrganization('billingAgreements'),
  get: async (client, name) =>
    (await client.billingAgreements.getBillingAgreement({ name })).billingAgreement ??
    create(hub.BillingAgreementSchema),
  pages: (client) =>
    paged(async (pageToken) => {
      const request = { parent: 'organizations/-', pageSize: 500, pageToken }
      const page = await client.billingAgreements.listBillingAgreements(request)
      return { rows: page.billingAgreements, nextPageToken: page.nextPageToken }
    }),
  state: () => '',
  terminal: [],
  ready: [''],
}
