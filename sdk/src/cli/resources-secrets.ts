import { create } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { age, idOf, paged, type ResourceType } from './resource-type.js'

export const secrets: ResourceType<hub.Secret> = {
  kind: 'Secret',
  singular: 'secret',
  plural: 'secrets',
  aliases: [],
  schema: hub.SecretSchema,
  columns: [
    { heading: 'NAME', value: (secret) => idOf(secret.name) },
    { heading: 'ORGANIZATION', value: (secret) => secret.name.split('/')[1] ?? '' },
    { heading: 'VERSION', value: (secret) => String(secret.currentVersion) },
    { heading: 'USED BY', value: (secret) => secret.uses.map((use) => idOf(use.resource)).join(',') },
    { heading: 'PENDING', value: (secret) => secret.uses.find((use) => use.pendingReason !== '')?.pendingReason ?? '' },
    { heading: 'DESCRIPTION', wide: true, value: (secret) => secret.description },
    { heading: 'AGE', value: (secret, now) => age(secret.createTime, now) },
  ],
  fullName: secretFullName,
  get: async (client, name) => (await client.secrets.getSecret({ name })).secret ?? create(hub.SecretSchema),
  pages: (client, options) =>
    paged(async (pageToken) => {
      const filter = { labelSelector: options.selector }
      const page = await client.secrets.listSecrets({ parent: 'organizations/-', pageSize: 500, pageToken, filter })
      return { rows: page.secrets, nextPageToken: page.nextPageToken }
    }),
  state: () => '',
  terminal: [],
  ready: [''],
}

/** `cloud` is of the organization `default`; `acme/cloud` is of acme. */
function secretFullName(id: string): string {
  const [first = '', second, ...rest] = id.split('/')
  if (second === undefined) return `organizations/default/secrets/${first}`
  return rest.length === 0 ? `organizations/${first}/secrets/${second}` : id
}
