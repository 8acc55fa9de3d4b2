import { z } from 'zod'

const host = z
  .string()
  .min(1)
  .max(253)
  .regex(/^[A-Za-z0-9._:-]+$/, { error: 'give an IP address or a host name, without a port' })

const timeoutMs = z.int().min(50).max(120_000)

/** A BMC that speaks IPMI 2.0 over the network (RMCP+, UDP). */
export const ipmiSettingsSchema = z.strictObject({
  kind: z.literal('ipmi'),
  address: host.meta({ description: 'The BMC’s IP address or host name.' }),
  port: z.int().min(1).max(65_535).default(623),
  cipherSuite: z
    .union([z.literal(17), z.literal(3)])
    .default(17)
    .meta({ description: '17: SHA-256 and AES-128. 3: SHA-1 and AES-128, for BMCs that know nothing better.' }),
  privilege: z
    .enum(['operator', 'administrator'])
    .default('operator')
    .meta({ description: 'What the session asks for. Power and boot need no more than operator.' }),
  timeoutMs: timeoutMs.default(1_000).meta({ description: 'How long to wait for each answer.' }),
  tries: z.int().min(1).max(20).default(5).meta({ description: 'How often each request is sent before giving up.' }),
})

const fingerprint = z
  .string()
  .transform((text) => text.replaceAll(':', '').toLowerCase())
  .pipe(z.string().regex(/^[0-9a-f]{64}$/, { error: 'give the SHA-256 of the certificate: 64 hexadecimal digits' }))

const tlsSchema = z
  .strictObject({
    fingerprint: fingerprint
      .optional()
      .meta({ description: 'SHA-256 of the certificate; nothing else is then checked.' }),
    ca: z.string().max(65_536).optional().meta({ description: 'Certificates (PEM) of the authority that signed it.' }),
  })
  .refine(({ fingerprint: pin, ca }) => pin === undefined || ca === undefined, {
    error: 'give a fingerprint or an authority, and not both',
  })

/** A BMC that speaks Redfish. */
export const redfishSettingsSchema = z.strictObject({
  kind: z.literal('redfish'),
  endpoint: z
    .url({ protocol: /^https$/, error: 'give an https address' })
    .meta({ description: 'As https://10.0.0.5.' }),
  system: z
    .string()
    .min(1)
    .max(255)
    .optional()
    .meta({ description: 'The id of the ComputerSystem, where the BMC has several.' }),
  tls: tlsSchema.default({}).meta({ description: 'Default: the authorities that the host trusts.' }),
  timeoutMs: timeoutMs.default(15_000).meta({ description: 'How long each call may take.' }),
})

const alwaysNetwork = z.boolean().default(false).meta({
  description:
    'It tries the network before its disk at every start, so that nothing has to be chosen: what it is served decides.',
})

const callSchema = z.strictObject({
  method: z.enum(['GET', 'POST', 'PUT', 'PATCH', 'DELETE']).default('POST'),
  url: z.string().min(1).max(2_048),
  headers: z.record(z.string().min(1).max(128), z.string().max(4_096)).default({}),
  body: z.string().max(16_384).optional(),
})

/**
 * Power by HTTP calls of the site's own. In urls, headers and bodies `{{machine}}`, `{{action}}`, `{{device}}` and `{{mode}}` are replaced, in headers
 * and bodies `{{secret.<name>}}` too.
 */
export const webhookSettingsSchema = z.strictObject({
  kind: z.literal('webhook'),
  machine: z.string().min(1).max(253).meta({ description: 'What {{machine}} stands for.' }),
  read: callSchema
    .extend({
      method: z.enum(['GET', 'POST']).default('GET'),
      pointer: z
        .string()
        .regex(/^(\/[^/]*)*$/, { error: 'give a JSON pointer, as /power/state' })
        .default('/power')
        .meta({ description: 'Where in the JSON answer the state is (JSON pointer).' }),
      on: z
        .array(z.union([z.string(), z.boolean(), z.number()]))
        .min(1)
        .default(['on', true]),
      off: z
        .array(z.union([z.string(), z.boolean(), z.number()]))
        .min(1)
        .default(['off', false]),
    })
    .meta({ description: 'Says whether the machine is on. Every change is read back by it.' }),
  on: callSchema,
  off: callSchema,
  cycle: callSchema.optional(),
  reset: callSchema.optional(),
  softOff: callSchema.optional(),
  bootOnce: callSchema.optional(),
  alwaysNetwork,
  tls: tlsSchema.default({}),
  timeoutMs: timeoutMs.default(15_000),
})

/** A machine whose power a person switches. */
export const manualSettingsSchema = z.strictObject({
  kind: z.literal('manual'),
  instructions: z
    .string()
    .max(1_000)
    .default('')
    .meta({ description: 'Where it is and how to switch it, for whoever is asked to.' }),
  alwaysNetwork,
})

/** How one machine's power is reached. */
export const bmcSettingsSchema = z.discriminatedUnion('kind', [
  ipmiSettingsSchema,
  redfishSettingsSchema,
  webhookSettingsSchema,
  manualSettingsSchema,
])

export type IpmiSettings = z.infer<typeof ipmiSettingsSchema>
export type RedfishSettings = z.infer<typeof redfishSettingsSchema>
export type WebhookSettings = z.infer<typeof webhookSettingsSchema>
export type WebhookCall = z.infer<typeof callSchema>
export type ManualSettings = z.infer<typeof manualSettingsSchema>
export type TlsSettings = z.infer<typeof tlsSchema>
export type BmcSettings = z.infer<typeof bmcSettingsSchema>
export type BmcSettingsInput = z.input<typeof bmcSettingsSchema>

/** The login of one machine's BMC. All of it is secret. */
export const bmcSecretSchema = z.strictObject({
  username: z.string().max(255).default(''),
  password: z.string().max(255).default(''),
  /** IPMI's BMC key (K_G), in hexadecimal, for sites that set one. */
  bmcKey: z
    .string()
    .regex(/^([0-9a-fA-F]{2}){1,20}$/, { error: 'give up to 20 bytes in hexadecimal' })
    .optional(),
  /** What `{{secret.<name>}}` stands for in webhooks. */
  values: z.record(z.string().min(1).max(64), z.string().max(4_096)).optional(),
})

export type BmcSecret = z.infer<typeof bmcSecretSchema>
