import { randomBytes } from 'node:crypto'
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'

/**
 * A small file of JSON that is either as it was or as it is to be, whatever crashes. Writes that come while one is under way are one write.
 */
export class StateFile<Content> {
  readonly path: string
  #next: (() => Content) | undefined
  #writing: Promise<void> | undefined

  constructor(path: string) {
    this.path = path
  }

  /** What was written last; undefined where there is nothing, or nothing that `parse` takes. */
  async read(parse: (value: unknown) => Content | undefined): Promise<Content | undefined> {
    let text: string
    try {
      text = await readFile(this.path, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    }
    try {
      return parse(JSON.parse(text))
    } catch {
      return undefined
    }
  }

  /** Writes what `content` gives when it comes to it, and returns when that, or something later, is on disk. */
  async write(content: () => Content): Promise<void> {
    this.#next = content
    // The write that is under way may have begun before this: then one more has to follow.
    await this.#writing?.catch(() => undefined)
    if (this.#next !== undefined) {
      this.#writing ??= this.#writeNext().finally(() => (this.#writing = undefined))
    }
    await this.#writing
  }

  async #writeNext(): Promise<void> {
    const content = this.#next
    this.#next = undefined
    if (content === undefined) return
    const folder = dirname(this.path)
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const draft = join(folder, `.${randomBytes(6).toString('hex')}.draft`)
    try {
      const file = await open(draft, 'wx', 0o600)
      try {
        await file.writeFile(JSON.stringify(content()))
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(draft, this.path)
      await sync(folder)
    } catch (error) {
      await rm(draft, { force: true })
      throw error
    }
  }
}

async function sync(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
