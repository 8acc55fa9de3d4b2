import { setTimeout as delay } from 'node:timers/promises'
import { answer, answerIfAny, type Api } from '../../src/api/client.js'
import { isApiError } from '../../src/api/errors.js'
import { listAll } from '../../src/api/paging.js'
import { anyOwner, ownershipKeyOf } from '../../src/labels.js'

/** Runs of these tests own what they make under keys that begin with this. No hub's id does. */
export const runPrefix = 'live-test-'

const waitMs = 2_000
const tries = 60

/** Deletes what runs of these tests have left in a project, and nothing else. @param run of this run alone. @returns what was deleted, as `server 42`. */
export async function sweep(api: Api, run = ''): Promise<readonly string[]> {
  const client = api.as('urgent')
  const swept: string[] = []
  const isOurs = ({ labels }: { readonly labels: Record<string, string> }) =>
    (ownershipKeyOf(labels) ?? '').startsWith(run === '' ? runPrefix : `${run}/`)
  const owned = { sort: ['id:asc' as const], label_selector: anyOwner }

  const servers = listAll(async (query) => {
    const page = await answer(client.GET('/servers', { params: { query: { ...query, ...owned } } }))
    return { items: page.servers, meta: page.meta }
  })
  for await (const server of servers) {
    if (!isOurs(server)) continue
    const params = { path: { id: server.id } }
    if (server.protection.delete) {
      const body = { delete: false, rebuild: false }
      await patiently(() => answerIfAny(client.POST('/servers/{id}/actions/change_protection', { params, body })))
    }
    await patiently(() => answerIfAny(client.DELETE('/servers/{id}', { params })))
    await gone(`server ${server.id}`, () => answerIfAny(client.GET('/servers/{id}', { params })))
    swept.push(`server ${server.id}`)
  }
  const volumes = listAll(async (query) => {
    const page = await answer(client.GET('/volumes', { params: { query: { ...query, ...owned } } }))
    return { items: page.volumes, meta: page.meta }
  })
  for await (const volume of volumes) {
    if (!isOurs(volume)) continue
    await patiently(() => answerIfAny(client.DELETE('/volumes/{id}', { params: { path: { id: volume.id } } })))
    swept.push(`volume ${volume.id}`)
  }
  return swept
}

/** A server that is still being made is locked, and a volume is attached until its server is gone. */
async function patiently(call: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await call()
      return
    } catch (thrown) {
      if (!isApiError(thrown, 'locked', 'conflict', 'invalid_input') || attempt === tries) throw thrown
      await delay(waitMs)
    }
  }
}

async function gone(what: string, look: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; attempt <= tries; attempt += 1) {
    if ((await look()) === undefined) return
    await delay(waitMs)
  }
  throw new Error(`${what} was deleted, and is still there: look after it`)
}
