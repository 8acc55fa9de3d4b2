import { create } from '@bufbuild/protobuf'
import type { HandlerContext, ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { canonicalEntry, canonicalHead, ChainCheck, type ChainFault } from '../domain/audit/chain.js'
import { HubError, invalidField } from '../domain/error/errors.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import {
  countBeside,
  findHead,
  hubChain,
  linkHash,
  listHeads,
  listSealed,
  listUnsealed,
  readLinks,
  type AuditListFilter,
  type StoredEntry,
} from '../store/audit.js'
import { findOrganization } from '../store/tenancy.js'
import { databaseOf, decodePageToken, encodePageToken, pageSize, type ApiDeps } from './context.js'
import { fromTime, nameOf, toTime } from './convert.js'
import { organizationNotFound } from './not-found.js'

const maxFaults = 100
const verifyPage = 1_000

const resultNumbers = { OK: hub.AuditResult.OK, DENIED: hub.AuditResult.DENIED } as const
const faultNumbers: Readonly<Record<ChainFault['kind'], hub.AuditFaultKind>> = {
  CHANGED: hub.AuditFaultKind.CHANGED,
  ENTRY_MISSING: hub.AuditFaultKind.ENTRY_MISSING,
  GAP: hub.AuditFaultKind.GAP,
  TRUNCATED: hub.AuditFaultKind.TRUNCATED,
  HEAD_MISMATCH: hub.AuditFaultKind.HEAD_MISMATCH,
  INSERTED: hub.AuditFaultKind.INSERTED,
}

function filterOf(filter: hub.AuditFilter | undefined): AuditListFilter {
  return {
    principal: filter?.principal ?? '',
    resource: filter?.resource ?? '',
    method: filter?.method ?? '',
    result: nameOf(resultNumbers, filter?.result ?? 0),
    since: fromTime(filter?.since),
  }
}

function toEntry(entry: StoredEntry, organization: string): hub.AuditEntry {
  const sealed = entry.hash !== null
  return create(hub.AuditEntrySchema, {
    id: entry.id,
    time: toTime(entry.at),
    organization,
    principal: entry.principal,
    token: entry.tokenId === '' ? '' : resourceName('token', entry.tokenId),
    sourceAddress: entry.source,
    method: entry.method,
    resource: entry.resource,
    result: resultNumbers[entry.result],
    requestId: entry.requestId,
    sequence: BigInt(entry.sequence),
    hash: entry.hash?.toString('hex') ?? '',
    canonical: sealed ? canonicalEntry(entry.sequence, entry) : '',
  })
}

/** A page token's first part: where the page before ended, among what is sealed or what is not yet. */
type Place = { readonly sealed: number } | { readonly unsealed: readonly [string, string] }

function placeOf(deps: ApiDeps, token: string, list: string): Place | undefined {
  const parts = decodePageToken(deps, token, list)
  if (parts === undefined) return undefined
  return Number(parts[0]) === 0 ? { unsealed: [String(parts[1]), String(parts[2])] } : { sealed: Number(parts[0]) }
}

export function auditService(deps: ApiDeps): ServiceImpl<typeof hub.AuditService> {
  /** The chain that a parent names, and how it is shown. @throws HubError ORGANIZATION_NOT_FOUND. */
  const chainOf = async (context: HandlerContext, parent: string) => {
    if (parent === '') return { chain: hubChain, organization: '' }
    const name = parseResourceName('organization', parent, 'parent')
    const row = await findOrganization(databaseOf(deps, context), name)
    if (row === undefined) throw organizationNotFound(name)
    return { chain: row.id, organization: parent }
  }
  return {
    async listAuditEntries(request, context) {
      const { chain, organization } = await chainOf(context, request.parent)
      const filter = filterOf(request.filter)
      const { ascending } = request
      const list = JSON.stringify(['audit', chain, filter, ascending])
      const after = placeOf(deps, request.pageToken, list)
      const size = pageSize(request.pageSize)
      const db = databaseOf(deps, context)
      const beginsUnsealed = !ascending && (after === undefined || 'unsealed' in after)
      const unsealed = beginsUnsealed
        ? await listUnsealed(
            db,
            chain,
            filter,
            after !== undefined && 'unsealed' in after ? after.unsealed : undefined,
            size + 1,
          )
        : []
      const order = { ascending, after: after !== undefined && 'sealed' in after ? after.sealed : undefined }
      const rest = size + 1 - unsealed.length
      const sealed = rest > 0 ? await listSealed(db, chain, filter, order, rest) : []
      const found = [...unsealed, ...sealed]
      const rows = found.slice(0, size)
      const last = rows.at(-1)
      const more = found.length > size && last !== undefined
      return {
        entries: rows.map((row) => toEntry(row, organization)),
        nextPageToken: more ? encodePageToken(deps, [last.sequence, last.xid, last.id], list) : '',
      }
    },

    async getAuditHead(request, context) {
      const { chain, organization } = await chainOf(context, request.parent)
      const head = await findHead(databaseOf(deps, context), chain)
      const [caCertificate] = deps.authority.caDer
      if (head === undefined) return { ...(caCertificate !== undefined && { caCertificate }) }
      const hash = head.hash instanceof Buffer ? head.hash.toString('hex') : Buffer.from(head.hash).toString('hex')
      const facts = {
        hubId: deps.hubId,
        chain: chain === hubChain ? '' : chain,
        sequence: head.sequence,
        hash,
        signedAt: head.signedAt.toISOString(),
      }
      const { signature, signedAt } = head
      return {
        head: {
          organization,
          hubId: deps.hubId,
          sequence: BigInt(head.sequence),
          hash,
          signTime: toTime(signedAt),
          signature,
          canonical: canonicalHead(facts),
        },
        ...(caCertificate !== undefined && { caCertificate }),
      }
    },

    async verifyAudit(request, context) {
      const { chain, organization } = await chainOf(context, request.parent)
      const db = databaseOf(deps, context)
      const given = request.head === undefined ? [] : [await trustedHead(deps, chain, request.head)]
      // What is there when it begins: the sealer may go on meanwhile, and is not waited for.
      const beside = await countBeside(db, chain)
      const check = new ChainCheck(linkHash, [...(await listHeads(db, chain)), ...given])
      for (let after = 0; ;) {
        const links = await readLinks(db, chain, after, verifyPage)
        for (const link of links) check.take(link)
        after = links.at(-1)?.sequence ?? after
        if (links.length < verifyPage) break
      }
      const inserted = beside.inserted.map(({ id, sequence }): ChainFault => ({
        sequence,
        kind: 'INSERTED',
        message: `entry ${id} stands beside the chain, after place ${sequence}`,
      }))
      const faults = [...check.end(), ...inserted].toSorted((one, other) => one.sequence - other.sequence)
      return {
        verified: BigInt(check.verified),
        unsealed: BigInt(beside.waiting),
        faults: faults.slice(0, maxFaults).map(({ sequence, kind, message }) => ({
          organization,
          sequence: BigInt(sequence),
          kind: faultNumbers[kind],
          message,
        })),
      }
    },
  }
}

/** A head that somebody kept. @throws HubError INVALID_FIELD where this hub never signed it. */
async function trustedHead(deps: ApiDeps, chain: string, head: hub.AuditHead) {
  const description = 'is not one that this hub signed for this chain'
  const canonical = canonicalHead({
    hubId: deps.hubId,
    chain: chain === hubChain ? '' : chain,
    sequence: Number(head.sequence),
    hash: head.hash,
    signedAt: fromTime(head.signTime)?.toISOString() ?? '',
  })
  if (head.canonical !== canonical || !/^[0-9a-f]{64}$/.test(head.hash)) throw invalidField('head', description)
  if (!(await deps.authority.hasSigned(canonical, head.signature)))
    throw new HubError('INVALID_FIELD', `head: ${description}`, { violations: [{ field: 'head', description }] })
  return { sequence: Number(head.sequence), hash: Buffer.from(head.hash, 'hex') }
}
