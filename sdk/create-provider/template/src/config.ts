import { z } from 'zod'

/** What whoever adds the provider to a hub configures. The hub shows the descriptions, and checks against the schema. */
export const configSchema = z.strictObject({
  url: z.url().meta({ description: 'Where the API of the cloud is.' }),
  location: z.string().min(1).default('here').meta({ description: 'The location that this provider serves.' }),
  createTimeoutMs: z
    .int()
    .min(1_000)
    .default(300_000)
    .meta({ description: 'How long a server may take to run, in milliseconds.' }),
})

export type Config = z.infer<typeof configSchema>

/** All of it is treated as secret. */
export const credentialsSchema = z.strictObject({
  token: z.string().min(1).meta({ description: 'A token of the API that may read and write servers.' }),
})

export type Credentials = z.infer<typeof credentialsSchema>

/** What classes and orders may say in the terms of this cloud. */
export const dataSchema = z.strictObject({
  image: z.string().min(1).default('debian-13').meta({ description: 'The image to make the server of.' }),
})

export type Data = z.infer<typeof dataSchema>
