import { create } from '@bufbuild/protobuf'
import type { ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { parseResourceName, resourceName } from '../domain/names.js'
import {
  catalogEntry,
  type CatalogEntry,
  type CatalogFilter,
  type CatalogLocation,
} from '../domain/placement/catalog.js'
import { listCatalogClasses, loadCatalogPlaces } from '../store/catalog.js'
import { inSnapshot } from '../store/database.js'
import { findWorkspaces } from '../store/hosts.js'
import { classSpecOf } from '../store/machine-classes.js'
import { readOpenPools } from '../store/pools.js'
import { pricingOf, readPricing } from '../store/pricing.js'
import { poolsFor } from './claiming.js'
import { databaseOf, decodePageToken, encodePageToken, pageSize, type ApiDeps } from './context.js'
import { toPrice, toShape, toTime } from './convert.js'
import { workspaceNotFound } from './not-found.js'

/** Of whatever family, wherever. */
const anyOrder = { families: undefined, regions: [] }

/** Classes are judged with all of their places: fewer of them make a page than of others. */
const maxPage = 200

/** What a workspace can order: its classes, at its own prices. */
export function catalogService(deps: ApiDeps): ServiceImpl<typeof hub.CatalogService> {
  return {
    async listCatalog(request, context) {
      const workspaceName = parseResourceName('workspace', request.parent, 'parent')
      const filter = filterOf(request.filter)
      const list = JSON.stringify(['catalog', workspaceName, filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const size = Math.min(pageSize(request.pageSize), maxPage)
      const [workspace] = await findWorkspaces(databaseOf(deps, context), [workspaceName])
      if (workspace === undefined) throw workspaceNotFound(workspaceName)
      // Providers and what they offer are the hub's own: a tenant is shown what follows from them.
      return inSnapshot(deps.db, async (tx) => {
        const [found, pricing, open] = await Promise.all([
          listCatalogClasses(tx, String(after?.[0] ?? ''), size + 1),
          readPricing(tx, [workspace.organizationId]),
          readOpenPools(tx, [workspace.name]),
        ])
        const classes = found.slice(0, size)
        const orderer = {
          ...{ organizationId: workspace.organizationId, workspaceId: workspace.id },
          // An order would claim of these what it needs.
          openPoolIds: poolsFor(open.get(workspace.name), anyOrder).flatMap(({ id, free }) => (free ? [id] : [])),
        }
        const places = await loadCatalogPlaces(tx, orderer, classes)
        const own = pricingOf(pricing, workspace.organizationId)
        const last = classes.at(-1)
        return {
          entries: classes.flatMap((row) => {
            const entry = catalogEntry(row.name, classSpecOf(row), places.get(row.name) ?? [], own, filter)
            return entry === undefined ? [] : [toEntry(row.name, row.display_name, entry)]
          }),
          nextPageToken: found.length > size && last !== undefined ? encodePageToken(deps, [last.name], list) : '',
        }
      })
    },
  }
}

function filterOf(filter: hub.CatalogFilter | undefined): CatalogFilter {
  return {
    families: filter?.families ?? [],
    locations: filter?.locations ?? [],
    minVcpus: filter?.minVcpus ?? 0,
    minMemoryMib: Number(filter?.minMemoryMib ?? 0n),
    architecture: filter?.architecture ?? '',
    maxHourlyMicros: Number(filter?.maxHourlyMicros ?? 0n),
    available: filter?.available ?? false,
  }
}

function toEntry(name: string, displayName: string, entry: CatalogEntry): hub.CatalogEntry {
  return create(hub.CatalogEntrySchema, {
    machineClass: resourceName('machine_class', name),
    displayName,
    shape: toShape(entry.shape),
    price: toPrice(entry.price),
    available: entry.available,
    locations: entry.locations.map(toLocation),
  })
}

function toLocation({ location, family, price, available, remaining, asOf }: CatalogLocation): hub.CatalogLocation {
  return create(hub.CatalogLocationSchema, {
    ...{ location, family, available },
    price: toPrice(price),
    ...(remaining !== null && { remaining: Math.max(0, remaining) }),
    asOfTime: toTime(asOf),
  })
}
