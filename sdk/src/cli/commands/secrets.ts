import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { create, type JsonObject } from '@bufbuild/protobuf'
import * as hub from '@slipway/proto/hub/v1'
import { parse } from 'yaml'
import { usageError } from '../failure.js'
import { resourceType } from '../resources.js'
import type { Session } from '../session.js'
import { readSecret } from './login.js'

// Secrets go in by files and standard input, and never by the command line, where every process can read them. Nothing brings them out again.

export interface SecretFlags {
  readonly dataFile?: string
  readonly keyFile?: readonly string[]
  readonly description?: string
}

/** What a secret is to hold: an object in a file, and keys whose values are whole files. @throws CliError. */
async function dataOf(session: Session, flags: SecretFlags): Promise<JsonObject> {
  const data: JsonObject = {}
  if (flags.dataFile !== undefined) {
    const value = parse(await readSecret(session, flags.dataFile, 'the data')) as unknown
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw usageError('--data-file must hold an object, as JSON or YAML')
    Object.assign(data, value)
  }
  for (const text of flags.keyFile ?? []) {
    const at = text.indexOf('=')
    if (at < 1) throw usageError(`--key-file ${text} must be KEY=FILE`)
    data[text.slice(0, at)] = readFileSync(text.slice(at + 1), 'utf8').replace(/\n$/, '')
  }
  if (Object.keys(data).length === 0) throw usageError('give --data-file or --key-file')
  return data
}

/** `secret create NAME`. */
export async function createSecret(session: Session, name: string, flags: SecretFlags): Promise<void> {
  const type = resourceType('secret')
  const full = type.fullName(name, session.workspace)
  const response = await (
    await session.client()
  ).secrets.createSecret({
    parent: full.split('/').slice(0, 2).join('/'),
    secretId: full.slice(full.lastIndexOf('/') + 1),
    secret: create(hub.SecretSchema, {
      description: flags.description ?? '',
      data: await dataOf(session, flags),
    }),
    requestId: randomUUID(),
  })
  if (response.secret !== undefined) session.printOne(type, response.secret)
}

/** `secret rotate NAME`: a new version, on its way to what uses it. */
export async function rotateSecret(session: Session, name: string, flags: SecretFlags): Promise<void> {
  const type = resourceType('secret')
  const full = type.fullName(name, session.workspace)
  const data = await dataOf(session, flags)
  const { secret } = await (
    await session.client()
  ).secrets.updateSecret({ secret: { name: full, data }, updateMask: { paths: ['data'] } })
  if (secret === undefined) return
  session.printOne(type, secret)
  const pending = secret.uses.filter((use) => use.pendingReason !== '')
  if (!session.structured && pending.length > 0)
    session.note(
      'The version before is kept until all instances report that this one works: slipway get secret ' + name,
    )
}
