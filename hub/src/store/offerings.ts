import { sql } from 'kysely'
import type { Price, Shape } from '../domain/facts.js'
import type { Tx } from './database.js'

export interface OfferingSaid {
  readonly typeId: string
  readonly location: string
  readonly shape: Shape
  readonly price: Price | null
  readonly available: boolean
  readonly remaining: number | null
}

/** Replaces what a provider offers by what it says now. What is held back for want of capacity stays held. */
export async function replaceOfferings(tx: Tx, providerId: string, said: readonly OfferingSaid[]): Promise<void> {
  const offerings = [...new Map(said.map((offering) => [`${offering.typeId} ${offering.location}`, offering])).values()]
  await sql`
    delete from offerings
    where provider_id = ${providerId}
      and (type_id, location) not in (
        select type_id, location from unnest(
          ${offerings.map((offering) => offering.typeId)}::text[], ${offerings.map((offering) => offering.location)}::text[]
        ) as kept (type_id, location)
      )
  `.execute(tx)
  if (offerings.length > 0) {
    await tx
      .insertInto('offerings')
      .values(
        offerings.map((offering) => ({
          provider_id: providerId,
          type_id: offering.typeId,
          location: offering.location,
          shape: JSON.stringify(offering.shape),
          price: offering.price === null ? null : JSON.stringify(offering.price),
          available: offering.available,
          remaining: offering.remaining,
        })),
      )
      .onConflict((conflict) =>
        conflict.columns(['provider_id', 'type_id', 'location']).doUpdateSet((update) => ({
          shape: update.ref('excluded.shape'),
          price: update.ref('excluded.price'),
          available: update.ref('excluded.available'),
          remaining: update.ref('excluded.remaining'),
          seen_at: sql<Date>`clock_timestamp()`,
        })),
      )
      .execute()
  }
  await tx
    .updateTable('providers')
    .set({ offerings_at: sql<Date>`clock_timestamp()` })
    .where('id', '=', providerId)
    .execute()
}
