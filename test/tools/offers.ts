import { randomUUID } from 'node:crypto'
import type { Db } from '@slipway/hub/testing'

/** What a planted provider offers. */
export interface PlantedOffer {
  readonly typeId: string
  readonly location?: string
  readonly hourlyMicros?: number
  readonly monthlyMicros?: number
  readonly setupMicros?: number
  readonly currency?: string
  readonly remaining?: number
  readonly available?: boolean
}

const shape = { vcpus: 2, memoryMib: 4096, diskGib: 40, diskClass: '', architecture: 'amd64' }

/** Plants a connected dynamic provider with offerings, as an instance would have told of it. Nobody is behind its session: what is ordered of it waits to be claimed. @returns its id. */
export async function plantProvider(
  db: Db,
  name: string,
  family: string,
  offers: readonly PlantedOffer[],
): Promise<string> {
  const id = randomUUID()
  await db
    .insertInto('providers')
    .values({
      ...{ id, name, family, kind: 'DYNAMIC', state: 'CONNECTED', offerings_at: new Date() },
      capabilities: JSON.stringify(['OFFERINGS']),
    })
    .execute()
  await db
    .insertInto('sessions')
    .values({
      ...{ id: randomUUID(), provider_id: id, instance_id: randomUUID(), instance_name: name, replica: 'nowhere' },
      ...{ sdk: 'planted', provider_version: '0', certificate_serial: '0' },
      expires_at: new Date(Date.now() + 3_600_000),
    })
    .execute()
  for (const offer of offers) {
    const { hourlyMicros, monthlyMicros = 0, setupMicros = 0, currency = 'EUR' } = offer
    await db
      .insertInto('offerings')
      .values({
        ...{ provider_id: id, type_id: offer.typeId, location: offer.location ?? 'a', shape: JSON.stringify(shape) },
        price:
          hourlyMicros === undefined ? null : JSON.stringify({ currency, hourlyMicros, monthlyMicros, setupMicros }),
        ...{
          available: offer.available ?? true,
          remaining: offer.remaining ?? null,
          held_until: null,
          held_reason: null,
        },
      })
      .execute()
  }
  return id
}
