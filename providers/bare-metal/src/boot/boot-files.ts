import { readFile } from 'node:fs/promises'
import { ProviderError } from '@slipway/sdk'
import type { BootFile } from './boot-api.js'

export function isUrl(name: string): boolean {
  return /^https?:\/\//.test(name)
}

/** A boot file of the configuration: an address, or a file of this host. @param file where a file of that name lies. */
export function bootFile(name: string, file: (name: string) => string): BootFile {
  return isUrl(name) ? { url: name } : { path: file(name) }
}

/** @throws ProviderError of code INVALID_SPEC. */
export async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw new ProviderError('INVALID_SPEC', `${path} cannot be read: ${(error as Error).message}`, { retryable: true })
  }
}
