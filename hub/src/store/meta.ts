import type { Db } from './database.js'

export interface HubMeta {
  /** Does not change while the database lives; the first half of every ownership key. */
  readonly hubId: string
  /** Changes when revisions of before stop meaning anything. */
  readonly epoch: string
}

/** Who this database belongs to. */
export async function readMeta(db: Db): Promise<HubMeta> {
  const row = await db.selectFrom('hub_meta').select(['hub_id', 'epoch']).executeTakeFirstOrThrow()
  return { hubId: row.hub_id, epoch: row.epoch }
}
