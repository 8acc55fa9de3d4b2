import { randomUUID } from 'node:crypto'
import { chmod, mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { certificateFitsKey } from './csr.js'
import { FinalError } from './rpc-error.js'

/** Who a provider process is: all that it must keep between its starts. */
export interface Identity {
  /** The provider's resource name, `providers/{id}`. */
  readonly provider: string
  /** Secret. */
  readonly keyPem: string
  readonly certificatePem: string
  /** The hub's authorities, the current one first. */
  readonly caPems: readonly string[]
  readonly notBeforeMs: number
  readonly notAfterMs: number
}

const fileName = 'identity.json'

/** Reads the identity kept in a state folder; undefined where there is none yet. @throws FinalError where it is damaged. */
export async function loadIdentity(stateDir: string): Promise<Identity | undefined> {
  const path = join(stateDir, fileName)
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new FinalError('STATE_UNREADABLE', `${path} cannot be read: ${(error as Error).message}`, error)
  }
  try {
    const identity = JSON.parse(text) as Identity
    if (certificateFitsKey(identity.certificatePem, identity.keyPem) && identity.caPems.length > 0) return identity
  } catch {
    // Told below in one way: what the file holds must not get into a message.
  }
  throw new FinalError('STATE_DAMAGED', `${path} is damaged; move it away and start again with a new join token`)
}

/** Writes the identity so that a crash at any moment leaves the old one or the new one, readable by this user alone. */
export async function saveIdentity(stateDir: string, identity: Identity): Promise<void> {
  const temporary = join(stateDir, `.${fileName}.${randomUUID()}`)
  try {
    await mkdir(stateDir, { recursive: true, mode: 0o700 })
    await chmod(stateDir, 0o700)
    const file = await open(temporary, 'wx', 0o600)
    try {
      await file.writeFile(`${JSON.stringify(identity, undefined, 2)}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, join(stateDir, fileName))
    await syncFolder(stateDir)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw new FinalError(
      'STATE_UNWRITABLE',
      `the state folder ${stateDir} cannot be written: ${(error as Error).message}`,
      error,
    )
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
