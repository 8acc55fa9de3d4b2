import { BmcError } from '../errors.js'
import { linkOf, listOf, objectOf, textOf, type RedfishClient, type Resource } from './client.js'
import { getIfShown } from './facts.js'

/** A drive of the BMC's that a boot image can be put into. */
export interface Media {
  insert(imageUrl: string, signal: AbortSignal): Promise<void>
  eject(signal: AbortSignal): Promise<void>
}

/**
 * Finds the first virtual drive for CDs or DVDs, at the system (where newer BMCs have it) or at its manager.
 * @throws BmcError `unsupported` where there is none.
 */
export async function findMedia(client: RedfishClient, system: Resource, signal: AbortSignal): Promise<Media> {
  for (const owner of await owners(client, system, signal)) {
    const listPath = linkOf(owner['VirtualMedia'])
    const list = listPath === undefined ? undefined : await getIfShown(client, listPath, 'for virtual media', signal)
    for (const path of listOf(list?.['Members']).flatMap((member) => linkOf(member) ?? [])) {
      const drive = await getIfShown(client, path, 'about virtual media', signal)
      const types = listOf(drive?.['MediaTypes'])
      if (drive !== undefined && (types.includes('CD') || types.includes('DVD'))) return mediaAt(client, path)
    }
  }
  throw new BmcError('unsupported', 'the BMC has no virtual CD or DVD drive')
}

async function owners(client: RedfishClient, system: Resource, signal: AbortSignal): Promise<readonly Resource[]> {
  const path = linkOf(listOf(objectOf(system['Links'])?.['ManagedBy'])[0])
  const manager = path === undefined ? undefined : await getIfShown(client, path, 'about the manager', signal)
  return manager === undefined ? [system] : [system, manager]
}

function mediaAt(client: RedfishClient, path: string): Media {
  const look = async (signal: AbortSignal): Promise<Resource> =>
    (await client.get(path, 'about virtual media', signal)).resource

  const act = async (name: 'InsertMedia' | 'EjectMedia', body: unknown, patch: unknown, signal: AbortSignal) => {
    const what = name === 'InsertMedia' ? 'to insert a boot image' : 'to eject the boot image'
    const drive = await look(signal)
    const target = textOf(objectOf(objectOf(drive['Actions'])?.[`#VirtualMedia.${name}`])?.['target'])
    if (target !== undefined) await client.change({ method: 'POST', path: target, body, what }, signal)
    else await client.change({ method: 'PATCH', path, body: patch, what }, signal)
  }

  const eject = async (signal: AbortSignal): Promise<void> => {
    if (!holdsSomething(await look(signal))) return
    await act('EjectMedia', {}, { Image: null, Inserted: false }, signal)
    if (holdsSomething(await look(signal)))
      throw new BmcError('ignored', 'the BMC accepted to eject its virtual media, and still has it')
  }

  return {
    eject,
    insert: async (imageUrl, signal) => {
      const drive = await look(signal)
      if (drive['Image'] === imageUrl && drive['Inserted'] === true) return
      await eject(signal)
      await act('InsertMedia', { Image: imageUrl }, { Image: imageUrl, Inserted: true }, signal)
      if (!holdsSomething(await look(signal)))
        throw new BmcError('ignored', 'the BMC accepted to insert the boot image, and has none')
    },
  }
}

function holdsSomething(drive: Resource): boolean {
  return drive['Inserted'] === true
}
