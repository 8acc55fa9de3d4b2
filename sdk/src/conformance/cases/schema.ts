import { Capability } from '@slipway/proto/provider/v1'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import { expect, expectEqual } from '../until.js'

type SchemaName = 'configSchema' | 'credentialsSchema' | 'dataSchema'

const schemaNames: readonly SchemaName[] = ['configSchema', 'credentialsSchema', 'dataSchema']

/** What a schema of the provider finds wrong with a value; empty: nothing, or there is no schema. @throws Error where the schema is none. */
function problems(bench: Bench, name: SchemaName, value: unknown): string {
  const text = bench.hello[name]
  if (text === '') return ''
  const ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false })
  const validate = ajv.compile(JSON.parse(text) as object)
  return validate(value) ? '' : ajv.errorsText(validate.errors)
}

/** Schemas that say what a hub needs to know before it asks. */
export const schemaCases: readonly Case[] = [
  {
    id: 'schema/is-json-schema',
    rule: 'Each schema in Hello is JSON Schema, draft 2020-12, as JSON text, or empty.',
    basic: true,
    async run(bench) {
      for (const name of schemaNames) {
        const text = bench.hello[name]
        if (text === '') continue
        const schema = JSON.parse(text) as { readonly $schema?: string }
        expect(typeof schema === 'object', `${name} is no object`)
        const { $schema = 'https://json-schema.org/draft/2020-12/schema' } = schema
        expect($schema.includes('2020-12'), `${name} is of ${$schema}`)
        problems(bench, name, {})
      }
    },
  },
  {
    id: 'schema/knows-its-own-settings',
    rule: 'The configuration and credentials that the provider works with match its schemas.',
    basic: true,
    async run(bench) {
      expectEqual(problems(bench, 'configSchema', bench.settings.config ?? {}), '', 'what the schema has against them')
      const { credentials = {} } = bench.settings
      expectEqual(problems(bench, 'credentialsSchema', credentials), '', 'what the schema has against them')
    },
  },
  {
    id: 'schema/knows-its-own-orders',
    rule: 'The provider data of an order that works matches the data schema.',
    async run(bench) {
      const { providerData = {} } = bench.description.order
      expectEqual(problems(bench, 'dataSchema', providerData), '', 'what the schema has against it')
    },
  },
  {
    id: 'schema/takes-no-credentials-that-it-does-not-declare',
    rule: 'A provider that needs credentials says so in credentials_schema.',
    async run(bench) {
      const needs = Object.keys(bench.settings.credentials ?? {}).length > 0
      expect(!needs || bench.hello.credentialsSchema !== '', 'it is given credentials, and declares none')
    },
  },
  {
    id: 'schema/declares-each-capability-once',
    rule: 'Capabilities are told once each, and none is UNSPECIFIED.',
    async run(bench) {
      const { capabilities } = bench.hello
      expectEqual(new Set(capabilities).size, capabilities.length, 'different capabilities')
      expect(!capabilities.includes(Capability.UNSPECIFIED), 'UNSPECIFIED is among them')
    },
  },
  {
    id: 'schema/declares-how-long-it-may-be-in-doubt',
    rule: 'A dynamic provider says how long a create may be under way; no declared time is negative.',
    needs: { kind: 'dynamic' },
    async run(bench) {
      const { effectTimeout, listingLag } = bench.hello
      expect(effectTimeout !== undefined && effectTimeout.seconds >= 0n, 'effect_timeout is missing, or negative')
      expect(listingLag === undefined || listingLag.seconds >= 0n, 'listing_lag is negative')
    },
  },
  {
    id: 'schema/is-the-same-for-all-instances',
    rule: 'Two instances of one provider say the same of what they are and can.',
    async run(bench) {
      const first = await (await bench.instance()).ready()
      const second = await (await bench.instance()).ready()
      for (const name of ['family', 'kind', 'configSchema', 'credentialsSchema', 'dataSchema'] as const)
        expectEqual(second.hello[name], first.hello[name], name)
      const sorted = ({ hello }: typeof first) => [...hello.capabilities].sort().join()
      expectEqual(sorted(second), sorted(first), 'the capabilities')
    },
  },
]
