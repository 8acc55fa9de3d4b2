import { randomUUID } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Adapter, Thing, World } from '@slipway/sdk/conformance'

// The ground truth of real machines is the kernel's: which processes run, and which files lie in the folder of the machines.

const root = join(dirname(fileURLToPath(import.meta.url)), '../../../..')
export const qemuProgram = join(root, 'providers/qemu/dist/src/main.js')

const killMs = 10_000
const recordFile = 'machine.json'
const deletingSuffix = '.deleting'

const qemuAdapter: Adapter = {
  describe: () => ({
    family: 'qemu',
    kind: 'dynamic',
    order: { typeId: 'tiny', providerData: { image: 'blank' } },
    badOrders: [
      { title: 'a type that does not exist', order: { typeId: 'none' }, field: 'spec.type_id' },
      { title: 'a type that is too large for the host', order: { typeId: 'huge' }, field: 'spec.type_id' },
      { title: 'a location', order: { typeId: 'tiny', location: 'here' }, field: 'spec.location' },
      {
        title: 'an image that does not exist',
        order: { typeId: 'tiny', providerData: { image: 'plan9' } },
        field: 'spec.provider_data.image',
      },
    ],
    badConfig: { images: {} },
    verbs: ['plant', 'vanish'],
    isolated: true,
    failpoints: true,
    createMs: 60_000,
    orders: 3,
    notes: ['ground truth: the processes and files of real machines, which have nothing to boot'],
  }),
  setUp: (world) => {
    const blank = join(world.dir, 'blank.raw')
    writeFileSync(blank, '')
    truncateSync(blank, 1024 ** 2)
    const config = {
      directory: machinesOf(world),
      accel: 'tcg',
      tcgCacheMib: 32,
      shutdownTimeoutMs: 0,
      network: { kind: 'user', isolated: true },
      images: { blank: { kind: 'disk', path: blank, format: 'raw' } },
      types: {
        tiny: { vcpus: 1, memoryMib: 32, diskGib: 1 },
        huge: { vcpus: 1, memoryMib: 4_000_000, diskGib: 1 },
      },
      limits: { machines: 400, memoryMib: 16_384, vcpus: 400, freeDiskMib: 0 },
    }
    return { config }
  },
  list: (world) => ({ things: thingsOf(machinesOf(world)) }),
  plant: (world, { name, ownershipKey, count = 1 }) =>
    Array.from({ length: count }, (_, index) =>
      plantOne(machinesOf(world), count === 1 ? name : `${name}-${index + 1}`, ownershipKey),
    ),
  vanish: async (world, externalId) => {
    const folder = join(machinesOf(world), externalId)
    await endAll(folder)
    rmSync(folder, { recursive: true, force: true })
  },
  tearDown: (world) => endAll(machinesOf(world)),
}

export default qemuAdapter

function machinesOf(world: World): string {
  return join(world.dir, 'machines')
}

/** What exists in a folder of machines: each that is written down, and each process of one that is not. */
function thingsOf(directory: string): Thing[] {
  if (!existsSync(directory)) return []
  const things = readdirSync(directory).flatMap((entry): Thing[] => {
    const text = readIfThere(join(directory, entry, recordFile))
    if (text === undefined || entry.startsWith('.new-')) return []
    const { name, ownershipKey } = JSON.parse(text) as { name: string; ownershipKey: string }
    const home = join(directory, name)
    const power = processesOf(home).length > 0 ? 'on' : 'off'
    return [{ kind: 'server', externalId: name, name, ownershipKey, power }]
  })
  const known = new Set(things.map(({ externalId }) => externalId))
  const lost = processesOf(directory).filter(({ machine }) => !known.has(machine))
  return [...things, ...lost.map(({ machine }) => ({ kind: 'process', externalId: machine, ownershipKey: '' }))]
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

/** QEMU processes whose files lie in a folder. */
function processesOf(folder: string): { readonly pid: number; readonly machine: string }[] {
  return readdirSync('/proc').flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return []
    const line = readIfThere(`/proc/${entry}/cmdline`) ?? ''
    if (!line.startsWith('qemu-system') && !/^[^\0]*\/qemu-system/.test(line)) return []
    const found = new RegExp(`${escape(folder)}(/|\\0|,|$)`).exec(line)
    if (found === null) return []
    const machine = /\/machines\/([^/.,\0]+)/.exec(line)?.[1] ?? ''
    return [{ pid: Number(entry), machine: machine.replace(deletingSuffix, '') }]
  })
}

function escape(text: string): string {
  return text.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&')
}

async function endAll(folder: string): Promise<void> {
  const deadlineMs = performance.now() + killMs
  for (let left = processesOf(folder); left.length > 0; left = processesOf(folder)) {
    if (performance.now() > deadlineMs) throw new Error(`machines in ${folder} cannot be ended`)
    for (const { pid } of left) kill(pid)
    await delay(20)
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has just ended.
  }
}

/** A machine that is written down and off. */
function plantOne(directory: string, name: string, ownershipKey: string): string {
  const record = {
    version: 1,
    name,
    ownershipKey,
    uuid: randomUUID(),
    typeId: 'tiny',
    vcpus: 1,
    memoryMib: 32,
    diskGib: 1,
    image: 'blank',
    mac: '52:54:00:00:00:01',
    host: '',
    workspace: '',
    machineClass: '',
    phase: 'ready',
    createdAt: new Date().toISOString(),
  }
  const draft = join(directory, `.new-${randomUUID()}`)
  mkdirSync(draft, { recursive: true, mode: 0o700 })
  writeFileSync(join(draft, recordFile), JSON.stringify(record), { mode: 0o600 })
  renameSync(draft, join(directory, name))
  return name
}
