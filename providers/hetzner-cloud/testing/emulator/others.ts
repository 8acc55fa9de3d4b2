import { idOf, noContent, ok, type Call, type Handlers } from './calls.js'
import { among, listed } from './listing.js'
import { invalid, notFound, Refusal } from './refusal.js'
import type { Action } from './views.js'

/** Actions, images, and what the vendor has to offer. */
export const otherHandlers: Handlers = {
  'GET /actions': ({ project, query }) => {
    const ids = query.getAll('id').map(Number)
    if (ids.length > 50) throw invalid('id', 'too many')
    return ok({ actions: ids.flatMap((id) => project.actions.get(id) ?? []) })
  },
  'GET /actions/{id}': (call) => ok({ action: actionOf(call) }),
  'GET /servers/actions': (call) => ok(listed('actions', actionsOf(call), withoutSort(call.query))),
  'GET /servers/actions/{id}': (call) => ok({ action: actionOf(call) }),
  'GET /servers/{id}/actions': (call) =>
    ok(listed('actions', newestFirst(call, actionsOf(call, idOf(call))), withoutSort(call.query))),
  'GET /servers/{id}/actions/{action_id}': (call) => ok({ action: actionOf(call, 'action_id') }),

  'GET /images': ({ project, query }) => {
    const [types, architectures] = [among(query, 'type'), among(query, 'architecture')]
    const wantsOld = query.get('include_deprecated') === 'true'
    const shown = project.shown('image', project.images.values()).filter((image) => {
      if (image.deprecated !== null && !wantsOld) return false
      return (types?.has(image.type) ?? true) && (architectures?.has(image.architecture) ?? true)
    })
    return ok(listed('images', shown, query))
  },
  'GET /images/{id}': (call) => ok({ image: call.project.get(call.project.images, idOf(call), 'image') }),
  'DELETE /images/{id}': (call) => {
    const image = call.project.get(call.project.images, idOf(call), 'image')
    if (image.type === 'system') throw new Refusal(403, 'forbidden', 'a system image cannot be deleted')
    call.project.remove('image', call.project.images, image.id)
    return noContent
  },

  'GET /server_types': ({ project, query }) => ok(listed('server_types', project.serverTypes, query)),
  'GET /server_types/{id}': (call) => ok({ server_type: byId(call.project.serverTypes, idOf(call), 'server type') }),
  'GET /locations': ({ project, query }) => ok(listed('locations', project.locations, query)),
  'GET /locations/{id}': (call) => ok({ location: byId(call.project.locations, idOf(call), 'location') }),
  'GET /pricing': ({ project }) => ok({ pricing: project.pricing }),
  'GET /isos': ({ project, query }) => ok(listed('isos', project.isos, query)),
}

function actionOf(call: Call, name = 'id'): Action {
  return call.project.get(call.project.actions, idOf(call, name), 'action')
}

function actionsOf({ project, query }: Call, serverId?: number): Action[] {
  const statuses = among(query, 'status')
  return [...project.actions.values()].filter(
    ({ resources, status }) =>
      resources.some(({ type, id }) => type === 'server' && (serverId === undefined || id === serverId)) &&
      (statuses?.has(status) ?? true),
  )
}

function newestFirst({ query }: Call, actions: Action[]): Action[] {
  return query.getAll('sort').includes('id:desc') ? actions.reverse() : actions
}

/** Actions are sorted by what other things do not have; here they come in the order in which they began, or the other way round. */
function withoutSort(query: URLSearchParams): URLSearchParams {
  const rest = new URLSearchParams(query)
  rest.delete('sort')
  return rest
}

function byId<View extends { readonly id: number }>(views: readonly View[], id: number, what: string): View {
  const found = views.find((view) => view.id === id)
  if (found === undefined) throw notFound(what)
  return found
}
