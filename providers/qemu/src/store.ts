import * as nodeFiles from 'node:fs/promises'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { ProviderError } from '@slipway/sdk'
import { z } from 'zod'
import { errnoOf, fromSystemError, isMissing } from './errors.js'

const recordSchema = z.strictObject({
  version: z.literal(1),
  name: z.string(),
  ownershipKey: z.string(),
  uuid: z.string(),
  typeId: z.string(),
  vcpus: z.number(),
  memoryMib: z.number(),
  diskGib: z.number(),
  image: z.string(),
  mac: z.string(),
  sshPort: z.number().optional(),
  /** Whom it is for, to be read by people. */
  host: z.string(),
  workspace: z.string(),
  machineClass: z.string(),
  /** `creating` until it was seen to run for the first time. */
  phase: z.enum(['creating', 'ready']),
  createdAt: z.string(),
})

/** What is written of a machine before anything of it is made. No secrets. */
export type MachineRecord = z.infer<typeof recordSchema>

export interface StoredMachine {
  readonly record: MachineRecord
  /** Where its files are now. */
  readonly folder: string
  /** Where its files were made; its QEMU was started with these paths. */
  readonly homeFolder: string
  /** It is on its way out: what is left of it is removed. */
  readonly deleting: boolean
}

/** The calls that the store makes. */
export type FileOperations = Pick<
  typeof nodeFiles,
  'chmod' | 'mkdir' | 'open' | 'readFile' | 'readdir' | 'realpath' | 'rename' | 'rm' | 'rmdir' | 'stat'
>

const recordFileName = 'machine.json'
const deletingSuffix = '.deleting'
const newPrefix = '.new-'

/** A folder that was begun this long ago belongs to nobody any more. */
const abandonedAfterMs = 3_600_000

const namePattern = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

/**
 * The machines of one host, a folder each, with the record of what it is. Several providers may use one store at once: a machine comes
 * to be, and begins to go, by one rename each, which the kernel lets only one of them make.
 *
 * A machine's folder is named as the machine. When it is deleted it is first renamed, so that nothing can start in it any more, and
 * what is left of it stays listed until all of it is gone.
 */
export class MachineStore {
  readonly directory: string
  readonly #files: FileOperations

  private constructor(directory: string, files: FileOperations) {
    this.directory = directory
    this.#files = files
  }

  /** Opens the store, makes its folder where there is none, and clears away what killed processes left half done. */
  static async open(directory: string, files: FileOperations = nodeFiles): Promise<MachineStore> {
    try {
      await files.mkdir(directory, { recursive: true, mode: 0o700 })
      await files.chmod(directory, 0o700)
      const store = new MachineStore(await files.realpath(directory), files)
      await store.#sweep()
      return store
    } catch (error) {
      throw fromSystemError(error, `the machine folder ${directory}`)
    }
  }

  /** Every machine that there is, those on their way out too. @throws ProviderError where one cannot be read: it is never left out. */
  async list(): Promise<readonly StoredMachine[]> {
    const names = new Set<string>()
    for (const entry of await this.#files.readdir(this.directory)) {
      const name = entry.endsWith(deletingSuffix) ? entry.slice(0, -deletingSuffix.length) : entry
      if (namePattern.test(name)) names.add(name)
    }
    const machines = await Promise.all([...names].sort().map((name) => this.find(name)))
    return machines.filter((machine) => machine !== undefined)
  }

  /** A machine by name; undefined where there is none. */
  async find(name: string): Promise<StoredMachine | undefined> {
    if (!namePattern.test(name)) return undefined
    // In this order: a machine moves from the first folder to the second, and would be missed the other way round.
    return (await this.#read(name, false)) ?? (await this.#read(name, true))
  }

  async findByKey(ownershipKey: string): Promise<StoredMachine | undefined> {
    return (await this.list()).find((machine) => machine.record.ownershipKey === ownershipKey)
  }

  /**
   * Writes a machine down, as the intent to make it, and gives what is then there: the record of an earlier try under the same
   * ownership key stays as it is.
   *
   * @throws ProviderError of code CONFLICT where the name is another machine's, or the machine is being deleted.
   */
  async define(record: MachineRecord): Promise<StoredMachine> {
    if (!namePattern.test(record.name))
      throw new ProviderError('INVALID_SPEC', `"${record.name}" is no name for a machine: it must be a DNS label`)
    const existing = await this.find(record.name)
    if (existing !== undefined) return checkOwner(existing, record)
    const draft = join(this.directory, `${newPrefix}${randomBytes(8).toString('hex')}`)
    try {
      await this.#files.mkdir(draft, { mode: 0o700 })
      await this.#writeDurably(join(draft, recordFileName), JSON.stringify(record, undefined, 2))
      await this.#sync(draft)
      await this.#files.rename(draft, join(this.directory, record.name))
      await this.#sync(this.directory)
    } catch (error) {
      await this.#files.rm(draft, { recursive: true, force: true })
      if (!['ENOTEMPTY', 'EEXIST'].includes(errnoOf(error) ?? ''))
        throw fromSystemError(error, `writing down the machine ${record.name}`)
    }
    const defined = await this.find(record.name)
    if (defined === undefined)
      throw new ProviderError('CONFLICT', `the machine ${record.name} was deleted while it was being made`)
    return checkOwner(defined, record)
  }

  /** Records that a machine has run. */
  async markReady(machine: StoredMachine): Promise<void> {
    if (machine.record.phase === 'ready') return
    const file = join(machine.folder, recordFileName)
    const draft = `${file}.${randomBytes(8).toString('hex')}`
    try {
      await this.#writeDurably(draft, JSON.stringify({ ...machine.record, phase: 'ready' }, undefined, 2))
      await this.#files.rename(draft, file)
      await this.#sync(machine.folder)
    } catch (error) {
      if (isMissing(error)) throw goneMeanwhile(machine.record.name)
      throw fromSystemError(error, `the record of ${machine.record.name}`)
    }
  }

  /** Begins to delete: from here on nothing can be started in the machine's folder. */
  async beginDelete(machine: StoredMachine): Promise<StoredMachine> {
    if (machine.deleting) return machine
    const folder = this.#folder(machine.record.name, true)
    try {
      await this.#files.rename(machine.folder, folder)
      await this.#sync(this.directory)
    } catch (error) {
      // Somebody else has begun; going on from there is all the same.
      if (!isMissing(error)) throw fromSystemError(error, `deleting ${machine.record.name}`)
    }
    return { ...machine, folder, deleting: true }
  }

  /** Removes all that is left of a machine whose deletion has begun. Its record goes last, so that it is listed until then. */
  async remove(machine: StoredMachine): Promise<void> {
    if (!machine.deleting) throw new Error(`${machine.record.name} is removed before its deletion began`)
    try {
      for (const entry of await this.#files.readdir(machine.folder)) {
        if (entry !== recordFileName)
          await this.#files.rm(join(machine.folder, entry), { recursive: true, force: true })
      }
      await this.#files.rm(join(machine.folder, recordFileName), { force: true })
      // Something that was on its way into the folder when it was renamed may have arrived by now.
      await this.#files.rm(machine.folder, { recursive: true, force: true, maxRetries: 3 })
      await this.#sync(this.directory)
    } catch (error) {
      if (!isMissing(error)) throw fromSystemError(error, `removing ${machine.record.name}`)
    }
  }

  async #read(name: string, deleting: boolean): Promise<StoredMachine | undefined> {
    const folder = this.#folder(name, deleting)
    let text: string
    try {
      text = await this.#files.readFile(join(folder, recordFileName), 'utf8')
    } catch (error) {
      // A plain file is no machine, whatever it is called.
      if (isMissing(error) || errnoOf(error) === 'ENOTDIR') return undefined
      throw fromSystemError(error, `the record of ${name}`)
    }
    const record = parseRecord(text)
    if (record === undefined || record.name !== name) {
      throw new ProviderError(
        'INTERNAL',
        `${join(folder, recordFileName)} is damaged: it is no record of ${name}. Restore it, or end its QEMU and remove the folder`,
      )
    }
    return { record, folder, homeFolder: this.#folder(name, false), deleting }
  }

  #folder(name: string, deleting: boolean): string {
    return join(this.directory, deleting ? name + deletingSuffix : name)
  }

  /** Records are written before folders get their names, so that what is without one was never a machine, or is one no more. */
  async #sweep(): Promise<void> {
    for (const entry of await this.#files.readdir(this.directory)) {
      const folder = join(this.directory, entry)
      if (entry.endsWith(deletingSuffix)) {
        // Refuses, as it should, while anything is in it.
        await this.#files.rmdir(folder).catch(() => undefined)
      } else if (entry.startsWith(newPrefix)) {
        const age = await this.#files.stat(folder).then(
          (stat) => Date.now() - stat.mtimeMs,
          () => 0,
        )
        if (age > abandonedAfterMs) await this.#files.rm(folder, { recursive: true, force: true })
      }
    }
  }

  async #writeDurably(file: string, text: string): Promise<void> {
    const handle = await this.#files.open(file, 'wx', 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
  }

  async #sync(folder: string): Promise<void> {
    const handle = await this.#files.open(folder, 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  }
}

/** The failure of something that was done to a machine while it was being deleted. */
export function goneMeanwhile(name: string): ProviderError {
  return new ProviderError('CONFLICT', `the machine ${name} was deleted meanwhile`)
}

function checkOwner(existing: StoredMachine, wanted: MachineRecord): StoredMachine {
  const { name, ownershipKey } = existing.record
  if (ownershipKey !== wanted.ownershipKey) {
    throw new ProviderError('CONFLICT', `the name ${name} is taken by a machine of the ownership key ${ownershipKey}`)
  }
  if (existing.deleting) throw new ProviderError('CONFLICT', `the machine ${name} is being deleted`)
  return existing
}

function parseRecord(text: string): MachineRecord | undefined {
  try {
    return recordSchema.parse(JSON.parse(text))
  } catch {
    return undefined
  }
}
