import { create } from '@bufbuild/protobuf'
import type { ServiceImpl } from '@connectrpc/connect'
import * as hub from '@slipway/proto/hub/v1'
import { HubError, invalidField } from '../domain/error/errors.js'
import type { EventDraft } from '../domain/facts.js'
import type { ClassSpec } from '../domain/host/host.js'
import { parseResourceName, resourceName } from '../domain/names.js'
import { matchesLabels, parseLabelSelector } from '../domain/selector.js'
import { inTransaction, type Db } from '../store/database.js'
import { appendEvents } from '../store/events.js'
import {
  autoClassPrefix,
  countClassUse,
  deleteClass,
  findClass,
  insertClass,
  listClasses,
  lockClass,
  updateClass,
  type ClassContent,
  type ClassListFilter,
} from '../store/machine-classes.js'
import { providersNamed } from '../store/providers.js'
import type { MachineClassRow } from '../store/tables.js'
import {
  causeOf,
  checkEtag,
  createOnce,
  databaseOf,
  decodePageToken,
  maskedPaths,
  pageSize,
  readPage,
  tryOut,
  type ApiDeps,
} from './context.js'
import { checkedLabels, fromBootstrap, fromClassOfferings, fromSelector, fromShape } from './convert.js'
import { checkAgainstSchema } from './provider-data.js'
import { toMachineClass } from './resources.js'
import { watchResources, type WatchParts } from './watch.js'

const mutable = [
  'display_name',
  'shape',
  'offerings',
  'machine_selector',
  'bootstrap',
  'labels',
  'annotations',
] as const

export function classNotFound(name: string, field = 'name'): HubError {
  return new HubError(
    'CLASS_NOT_FOUND',
    `there is no machine class ${name}; \`slipway get machineclasses\` lists them`,
    {
      metadata: { machine_class: name },
      violations: [
        { field, description: `there is no machine class ${name}; choose one of \`slipway get machineclasses\`` },
      ],
    },
  )
}

function filterOf(filter: hub.MachineClassFilter | undefined): ClassListFilter {
  parseLabelSelector(filter?.labelSelector ?? '')
  return { labelSelector: filter?.labelSelector ?? '', autoCreated: filter?.autoCreated }
}

/** @throws HubError INVALID_FIELD, INVALID_LABEL_SELECTOR. */
function contentOf(given: hub.MachineClass): ClassContent {
  const selector = fromSelector(given.machineSelector, 'machine_class.machine_selector')
  if (selector !== null) parseLabelSelector(selector.labelSelector)
  const spec: ClassSpec = {
    shape: fromShape(given.shape),
    offerings: fromClassOfferings(given.offerings, 'machine_class.offerings'),
    machineSelector: selector,
    bootstrap: fromBootstrap(given.bootstrap),
  }
  if (spec.offerings.length === 0 && selector === null && spec.shape.vcpus === 0 && spec.shape.memoryMib === 0) {
    throw invalidField(
      'machine_class',
      'give a shape, offerings or a machine_selector: as it is, it would take anything',
    )
  }
  return {
    displayName: given.displayName,
    spec,
    labels: checkedLabels(given.labels, 'machine_class.labels'),
    annotations: given.annotations,
  }
}

/** Checks what a class says in providers' own terms against the providers that it speaks of, as far as they have told. */
async function checkProviderData(db: Db, spec: ClassSpec): Promise<void> {
  const names = [...spec.offerings.map((offering) => offering.provider), spec.machineSelector?.provider ?? ''].filter(
    (name) => name !== '',
  )
  const families = spec.offerings.filter((offering) => offering.provider === '').map((offering) => offering.family)
  const providers = await providersNamed(db, names, families)
  const missing = names.find((name) => !providers.some((provider) => provider.name === name))
  if (missing !== undefined) {
    throw new HubError('PROVIDER_NOT_FOUND', `there is no provider ${missing}; add it first`, {
      metadata: { provider: missing },
    })
  }
  for (const provider of providers) {
    const known = provider.state !== 'PENDING'
    const about = { reason: 'PROVIDER_DATA_INVALID' as const, provider: provider.name, known }
    spec.offerings.forEach((offering, index) => {
      const concerned =
        offering.provider === '' ? offering.family === provider.family : offering.provider === provider.name
      // What a class leaves open an order may still give: only what is there can be judged now.
      if (concerned && Object.keys(offering.providerData).length > 0) {
        checkAgainstSchema(withoutRequired(provider.data_schema), offering.providerData, {
          ...about,
          field: `machine_class.offerings[${index}].provider_data`,
        })
      }
    })
  }
}

function withoutRequired(schemaText: string): string {
  if (schemaText === '') return ''
  const schema = JSON.parse(schemaText) as Record<string, unknown>
  delete schema['required']
  return JSON.stringify(schema)
}

/** @throws HubError CLASS_AUTO_CREATED. */
function refuseAutoCreated(row: MachineClassRow): void {
  if (!row.auto_created) return
  throw new HubError(
    'CLASS_AUTO_CREATED',
    `machine class ${row.name} was made by the hub for the shape of an order, and says nothing else; make a class of your own instead`,
    { metadata: { machine_class: row.name } },
  )
}

function event(row: MachineClassRow, reason: EventDraft['reason'], message: string): EventDraft {
  return { subject: resourceName('machine_class', row.name), reason, message, severity: 'INFO' }
}

export function machineClassService(deps: ApiDeps, parts: WatchParts): ServiceImpl<typeof hub.MachineClassService> {
  return {
    async createMachineClass(request, context) {
      if (request.machineClassId.startsWith(autoClassPrefix))
        throw invalidField(
          'machine_class_id',
          `must not begin with ${autoClassPrefix}: the hub names those so that it makes for shapes`,
        )
      const content = contentOf(request.machineClass ?? create(hub.MachineClassSchema))
      await checkProviderData(deps.db, content.spec)
      const work = async (tx: Parameters<typeof insertClass>[0]) => {
        if ((await findClass(tx, request.machineClassId)) !== undefined) {
          throw new HubError(
            'NAME_TAKEN',
            `machine_class_id: ${request.machineClassId} is in use; choose another name`,
            {
              violations: [{ field: 'machine_class_id', description: 'is in use; choose another name' }],
            },
          )
        }
        const row = await insertClass(tx, request.machineClassId, content)
        await appendEvents(tx, causeOf(context), [event(row, 'ClassCreated', 'Created')])
        return create(hub.CreateMachineClassResponseSchema, { machineClass: toMachineClass(row) })
      }
      if (request.validateOnly) return tryOut(databaseOf(deps, context), work)
      return createOnce(deps, context, {
        requestId: request.requestId,
        request: { schema: hub.CreateMachineClassRequestSchema, message: request },
        response: hub.CreateMachineClassResponseSchema,
        wake: [{ kind: 'host' }],
        work,
      })
    },

    async getMachineClass(request, context) {
      const name = parseResourceName('machine_class', request.name)
      const row = await findClass(databaseOf(deps, context), name)
      if (row === undefined) throw classNotFound(name)
      return { machineClass: toMachineClass(row) }
    },

    async listMachineClasses(request, context) {
      const filter = filterOf(request.filter)
      const list = JSON.stringify(['machineClasses', filter])
      const after = decodePageToken(deps, request.pageToken, list)
      const page = await readPage(deps, context, {
        size: pageSize(request.pageSize),
        list,
        read: (tx, limit) => listClasses(tx, filter, String(after?.[0] ?? ''), limit),
        keyOf: (row) => [row.name],
      })
      return {
        machineClasses: page.rows.map(toMachineClass),
        nextPageToken: page.nextPageToken,
        revision: page.revision,
      }
    },

    async updateMachineClass(request, context) {
      const given = request.machineClass ?? create(hub.MachineClassSchema)
      const name = parseResourceName('machine_class', given.name, 'machine_class.name')
      const paths = maskedPaths(request.updateMask?.paths, mutable)
      const row = await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockClass(tx, name)
        if (locked === undefined) throw classNotFound(name, 'machine_class.name')
        refuseAutoCreated(locked)
        checkEtag(given.etag, locked, given.name)
        const current = toMachineClass(locked)
        const merged = create(hub.MachineClassSchema, {
          ...current,
          ...(paths.has('display_name') && { displayName: given.displayName }),
          ...(paths.has('shape') && given.shape !== undefined && { shape: given.shape }),
          ...(paths.has('offerings') && { offerings: given.offerings }),
          ...(paths.has('bootstrap') && given.bootstrap !== undefined && { bootstrap: given.bootstrap }),
          ...(paths.has('labels') && { labels: given.labels }),
          ...(paths.has('annotations') && { annotations: given.annotations }),
        })
        if (paths.has('machine_selector')) {
          if (given.machineSelector === undefined) delete merged.machineSelector
          else merged.machineSelector = given.machineSelector
        }
        const content = contentOf(merged)
        await checkProviderData(tx, content.spec)
        if (request.validateOnly) return locked
        const updated = await updateClass(tx, locked.id, content)
        if (updated.version !== locked.version)
          await appendEvents(tx, causeOf(context), [
            event(updated, 'ClassUpdated', 'Changed; it concerns future orders'),
          ])
        return updated
      })
      deps.wake.signal({ kind: 'change' })
      return { machineClass: toMachineClass(row) }
    },

    async deleteMachineClass(request, context) {
      const name = parseResourceName('machine_class', request.name)
      await inTransaction(databaseOf(deps, context), async (tx) => {
        const locked = await lockClass(tx, name)
        if (locked === undefined) {
          if (request.allowMissing) return
          throw classNotFound(name)
        }
        refuseAutoCreated(locked)
        checkEtag(request.etag, locked, request.name)
        const hosts = await countClassUse(tx, locked.id)
        if (hosts > 0)
          throw new HubError('CLASS_IN_USE', `${hosts} hosts use machine class ${name}; release them first`, {
            metadata: { hosts: String(hosts) },
          })
        await deleteClass(tx, locked.id)
        await appendEvents(tx, causeOf(context), [event(locked, 'ClassDeleted', 'Deleted')])
      })
      deps.wake.signal({ kind: 'change' })
      return {}
    },

    async *watchMachineClasses(request, context) {
      const name = request.name === '' ? '' : parseResourceName('machine_class', request.name)
      const filter = filterOf(request.filter)
      const selector = parseLabelSelector(filter.labelSelector)
      const matches = (row: MachineClassRow) =>
        (name === '' || row.name === name) &&
        (filter.autoCreated === undefined || row.auto_created === filter.autoCreated) &&
        matchesLabels(selector, row.labels)
      const watched = watchResources<MachineClassRow>(parts, context, {
        resource: 'machine_class',
        revision: request.revision,
        matches,
        existing: (tx, last, limit) => listClasses(tx, filter, last?.name ?? '', limit),
      })
      for await (const { changes, revision, synced } of watched) {
        yield {
          changes: changes
            .filter(({ row }) => matches(row))
            .map(({ type, row }) => ({ type, machineClass: toMachineClass(row) })),
          revision,
          synced,
        }
      }
    },
  }
}
