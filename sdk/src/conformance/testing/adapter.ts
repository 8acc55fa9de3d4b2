import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Adapter, FaultName, World } from '../adapter.js'
import { FolderCloud, goodToken, otherToken, type FolderFaults, type FolderMachine } from './folder-cloud.js'

const faults: Partial<Record<FaultName, FolderFaults>> = {
  none: {},
  capacity: { full: true },
  'rate-limited': { throttled: true },
  'lost-answer': { losesAnswer: true },
  'slow-create': { createMs: 1_500 },
  'list-breaks': { listBreaks: true },
}

/** The kit's eyes and hands in a cloud that is a folder. */
export const folderAdapter: Adapter = {
  describe: () => ({
    family: 'folder',
    kind: 'dynamic',
    order: { typeId: 'small', providerData: { image: 'alpine' } },
    badOrders: [{ title: 'a type that does not exist', order: { typeId: 'huge' }, field: 'spec.type_id' }],
    badCredentials: { token: 'a-token-that-is-bad' },
    otherCredentials: { token: otherToken },
    badConfig: { dir: '' },
    faults: Object.keys(faults) as FaultName[],
    verbs: ['inject', 'plant', 'vanish'],
    isolated: true,
    failpoints: true,
    listIntervalMs: 1_000,
    createMs: 5_000,
    orders: 5,
  }),
  setUp: (world) => {
    mkdirSync(folderOf(world), { recursive: true })
    return { config: { dir: folderOf(world) }, credentials: { token: goodToken } }
  },
  list: (world) => {
    const cloud = cloudOf(world)
    const writes = cloud.calls('write')
    return { things: cloud.all().map(thingOf), writes, calls: writes + cloud.calls('read') }
  },
  inject: (world, fault) => {
    cloudOf(world).faults = faults[fault] ?? {}
    return {}
  },
  plant: (world, { name, ownershipKey, count = 1 }) => {
    const cloud = cloudOf(world)
    return Array.from({ length: count }, (_, index) => {
      const id = `planted-${name}-${index}`
      cloud.put({
        id,
        name,
        key: ownershipKey,
        power: 'on',
        reboots: 0,
        reinstalls: 0,
        mark: 0,
        rescue: false,
        sshPublicKeys: [],
        runsAtMs: 0,
      })
      return id
    })
  },
  vanish: (world, externalId) => cloudOf(world).drop(externalId),
}

function folderOf(world: World): string {
  return join(world.dir, 'cloud')
}

function cloudOf(world: World): FolderCloud {
  return new FolderCloud(folderOf(world))
}

function thingOf({ id, name, key, power, reboots, reinstalls, rescue, sshPublicKeys }: FolderMachine) {
  return { kind: 'server', externalId: id, name, ownershipKey: key, power, reboots, reinstalls, rescue, sshPublicKeys }
}
