import { readFileSync, writeFileSync } from 'node:fs'
import { fromJson, toJson } from '@bufbuild/protobuf'
import { timestampDate, timestampFromDate } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { CliError, exitCodes } from '../failure.js'
import { idOf } from '../resource-type.js'
import { shortPrincipal } from '../resources-tenancy.js'
import type { Session } from '../session.js'
import { parseTimeout } from '../waiting.js'

// The audit log: what is in it, that nobody has changed it, and its way to where nobody here can.

export interface AuditFlags {
  readonly organization?: string
}

interface ListFlags extends AuditFlags {
  readonly principal?: string
  readonly resource?: string
  readonly method?: string
  readonly denied?: boolean
  readonly since?: string
  readonly limit?: string
}

const defaultLimit = 100
const page = 1_000

const parentOf = ({ organization }: AuditFlags) => (organization === undefined ? '' : `organizations/${organization}`)

/** `audit list`: newest first. */
export async function listAudit(session: Session, flags: ListFlags): Promise<void> {
  const client = await session.client()
  const { entries } = await client.audit.listAuditEntries({
    parent: parentOf(flags),
    pageSize: flags.limit === undefined ? defaultLimit : Number(flags.limit),
    filter: {
      principal: flags.principal ?? '',
      resource: flags.resource ?? '',
      method: flags.method ?? '',
      result: flags.denied === true ? hub.AuditResult.DENIED : hub.AuditResult.UNSPECIFIED,
      ...(flags.since !== undefined && { since: timestampFromDate(new Date(Date.now() - parseTimeout(flags.since))) }),
    },
  })
  const lines = entries.map((entry) =>
    [
      entry.time === undefined ? '' : timestampDate(entry.time).toISOString(),
      entry.sequence === 0n ? 'unsealed' : String(entry.sequence).padStart(8),
      hub.AuditResult[entry.result].toLowerCase().padEnd(6),
      idOf(entry.method),
      entry.resource,
      `by ${shortPrincipal(entry.principal)}`,
      entry.sourceAddress === '' ? '' : `from ${entry.sourceAddress}`,
    ]
      .join('  ')
      .trimEnd(),
  )
  session.printValue(
    entries.map((entry) => toJson(hub.AuditEntrySchema, entry)),
    lines.map((line) => `${line}\n`).join(''),
  )
}

/** `audit verify`: reckons a chain anew. Ends with 1 where it fails. @throws CliError. */
export async function verifyAudit(session: Session, flags: AuditFlags & { readonly head?: string }): Promise<void> {
  const client = await session.client()
  const head =
    flags.head === undefined
      ? undefined
      : fromJson(hub.AuditHeadSchema, JSON.parse(readFileSync(flags.head, 'utf8')) as never)
  const found = await client.audit.verifyAudit(
    { parent: parentOf(flags), ...(head !== undefined && { head }) },
    { timeoutMs: 600_000 },
  )
  const faults = found.faults.map(
    (fault) => `${hub.AuditFaultKind[fault.kind]} at ${fault.sequence}: ${fault.message}\n`,
  )
  session.printValue(
    toJson(hub.VerifyAuditResponseSchema, found),
    `${faults.join('')}${found.verified} entries are as they were sealed; ${found.unsealed} wait to be\n`,
  )
  if (found.faults.length > 0)
    throw new CliError(exitCodes.failure, `the audit log was tampered with: ${found.faults.length} faults`)
}

/** `audit export`: sealed entries, oldest first, a line of JSON each; and with `--head` the signed end of the chain into a file. */
export async function exportAudit(session: Session, flags: AuditFlags & { readonly head?: string }): Promise<void> {
  const client = await session.client()
  const parent = parentOf(flags)
  // The head first: what is exported leads to it, and beyond.
  if (flags.head !== undefined) {
    const { head } = await client.audit.getAuditHead({ parent })
    if (head === undefined) throw new CliError(exitCodes.failure, 'nothing is sealed yet; try again in a moment')
    writeFileSync(flags.head, `${JSON.stringify(toJson(hub.AuditHeadSchema, head), undefined, 2)}\n`)
    session.note(
      `The end of the chain at ${head.sequence} is in ${flags.head}. Keep it where nobody here can change it.`,
    )
  }
  for (let pageToken = ''; ;) {
    const answer = await client.audit.listAuditEntries({ parent, pageSize: page, pageToken, ascending: true })
    for (const entry of answer.entries) session.print(`${JSON.stringify(toJson(hub.AuditEntrySchema, entry))}\n`)
    pageToken = answer.nextPageToken
    if (pageToken === '') return
  }
}
