import { create } from '@bufbuild/protobuf'
import { durationFromMs } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import type { SlipwayClient } from '../../client/client.js'
import { SlipwayError } from '../../client/errors.js'
import { usageError } from '../failure.js'
import { parseSpan } from '../format.js'
import { resourceType } from '../resources.js'
import type { Session } from '../session.js'
import { parseGoal, parseTimeout, waitFor } from '../waiting.js'
import { confirm } from './confirm.js'

// What people decide about orphans.

const maxMerges = 10

export interface RemoveFlags {
  readonly yes?: boolean
  readonly wait?: boolean
  readonly timeout: string
}

/** `orphan remove NAME`. */
export async function removeOrphan(session: Session, name: string, flags: RemoveFlags): Promise<void> {
  const type = resourceType('orphan')
  const timeoutMs = parseTimeout(flags.timeout)
  const client = await session.client()
  const { orphan } = await client.orphans.getOrphan({ name: type.fullName(name, '') })
  if (orphan === undefined) return
  const called = orphan.externalName === '' ? '' : ` (${orphan.externalName})`
  const what = `Remove ${orphan.kind} ${orphan.externalId}${called} of ${orphan.provider}, with all its data`
  await confirm(session, what, flags.yes ?? false)
  // The etag stands for what was shown: where it is something else by now, nobody has agreed to that.
  const removing = await client.orphans.removeOrphan({
    name: orphan.name,
    etag: orphan.etag,
    confirmExternalId: orphan.externalId,
  })
  if (flags.wait === true)
    await waitFor(session, {
      type,
      name: orphan.name,
      goals: [parseGoal('deleted')],
      deadline: performance.now() + timeoutMs,
      timeoutMs,
    })
  if (removing.orphan !== undefined) session.printOne(type, removing.orphan)
}

/** `orphan keep NAME --reason TEXT`; with an empty reason `orphan unkeep NAME`. */
export async function keepOrphan(session: Session, name: string, reason: string): Promise<void> {
  const type = resourceType('orphan')
  const { orphan } = await (await session.client()).orphans.keepOrphan({ name: type.fullName(name, ''), reason })
  if (orphan !== undefined) session.printOne(type, orphan)
}

export interface PolicyFlags {
  readonly mode?: string
  readonly minAge?: string
  readonly maxPerPass?: string
  readonly maxPercent?: string
}

const modes: Readonly<Record<string, hub.OrphanMode>> = {
  report: hub.OrphanMode.REPORT,
  remove: hub.OrphanMode.REMOVE,
}

/** `provider orphans NAME`: what is not given stays as it is. */
export async function setOrphanPolicy(session: Session, name: string, flags: PolicyFlags): Promise<void> {
  const mode = flags.mode === undefined ? undefined : modes[flags.mode]
  if (flags.mode !== undefined && mode === undefined)
    throw usageError(`--mode must be report or remove, and not «${flags.mode}»`)
  const minAgeMs = flags.minAge === undefined ? undefined : parseSpan(flags.minAge)
  if (flags.minAge !== undefined && minAgeMs === undefined)
    throw usageError(`--min-age ${flags.minAge} is no time; write it like 30m or 2h`)
  const maxPerPass = count(flags.maxPerPass, '--max-per-pass', 1_000)
  const maxPercent = count(flags.maxPercent, '--max-percent', 100)
  const given = {
    ...(mode !== undefined && { mode }),
    ...(minAgeMs !== undefined && { minAge: durationFromMs(minAgeMs) }),
    ...(maxPerPass !== undefined && { maxPerPass }),
    ...(maxPercent !== undefined && { maxPercent }),
  }
  const provider = await mergePolicy(await session.client(), resourceType('provider').fullName(name, ''), given)
  if (provider !== undefined) session.printOne(resourceType('provider'), provider)
}

/** Lays what is given over the policy as it is. A provider changes with all that its instances say: then it is read again. */
async function mergePolicy(
  client: SlipwayClient,
  name: string,
  given: Partial<Pick<hub.OrphanPolicy, 'mode' | 'minAge' | 'maxPerPass' | 'maxPercent'>>,
): Promise<hub.Provider | undefined> {
  for (let attempt = 1; ; attempt++) {
    const { provider: before } = await client.providers.getProvider({ name })
    const orphanPolicy = Object.assign(before?.orphanPolicy ?? create(hub.OrphanPolicySchema), given)
    const provider = { name, orphanPolicy, etag: before?.etag ?? '' }
    try {
      return (await client.providers.updateProvider({ provider, updateMask: { paths: ['orphan_policy'] } })).provider
    } catch (error) {
      if (!(error instanceof SlipwayError && error.reason === 'ETAG_MISMATCH') || attempt === maxMerges) throw error
    }
  }
}

/** A whole number from 1. @throws CliError. */
function count(text: string | undefined, flag: string, max: number): number | undefined {
  if (text === undefined) return undefined
  const value = Number(text)
  if (Number.isInteger(value) && value >= 1 && value <= max) return value
  throw usageError(`${flag} must be a whole number from 1 to ${max}, and not «${text}»`)
}
