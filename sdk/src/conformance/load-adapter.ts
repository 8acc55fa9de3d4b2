import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Adapter, Description, Settings, Truth } from './adapter.js'

/** An adapter that cannot be used, with what to do about it. */
export class AdapterError extends Error {
  override readonly name = 'AdapterError'
}

const callTimeoutMs = 60_000

/** Loads an author's adapter: an ES module (`.js`, `.mjs`) with a default export, or any executable. @throws AdapterError */
export async function loadAdapter(path: string): Promise<Adapter> {
  const file = resolve(path)
  if (!/\.m?js$/.test(file)) return executableAdapter(file)
  const loaded = (await import(pathToFileURL(file).href).catch((error: unknown) => {
    throw new AdapterError(`the adapter ${path} cannot be loaded: ${String(error)}`, { cause: error })
  })) as { default?: unknown }
  const adapter = loaded.default as Partial<Adapter> | undefined
  if (typeof adapter !== 'object') throw new AdapterError(`${path} has no default export that is an adapter`)
  for (const verb of ['describe', 'setUp', 'list'] as const) {
    if (typeof adapter[verb] !== 'function') throw new AdapterError(`the adapter ${path} has no function ${verb}`)
  }
  return adapter as Adapter
}

/** An adapter that is a program, called once for each verb. */
export function executableAdapter(file: string): Adapter {
  const call = async (verb: string, parameters: object): Promise<unknown> => callProgram(file, verb, parameters)
  return {
    describe: async () => (await call('describe', {})) as Description,
    setUp: async (world) => (await call('set-up', { world })) as Settings,
    list: async (world) => (await call('list', { world })) as Truth,
    inject: async (world, fault) => (await call('inject', { world, fault })) ?? {},
    plant: async (world, planting) => (await call('plant', { world, planting })) as readonly string[],
    vanish: async (world, externalId) => void (await call('vanish', { world, externalId })),
    tearDown: async (world) => void (await call('tear-down', { world })),
  }
}

async function callProgram(file: string, verb: string, parameters: object): Promise<unknown> {
  const child = spawn(file, [verb], { stdio: ['pipe', 'pipe', 'pipe'] })
  let output = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  child.stdin.on('error', () => undefined)
  child.stdin.end(JSON.stringify(parameters))
  const timer = setTimeout(() => child.kill('SIGKILL'), callTimeoutMs)
  try {
    const [code] = (await once(child, 'close')) as [number | null]
    if (code !== 0)
      throw new AdapterError(`${file} ${verb} ended with ${code ?? 'a signal'}: ${errors.trim().slice(-500)}`)
    return output.trim() === '' ? undefined : (JSON.parse(output) as unknown)
  } catch (error) {
    if (error instanceof AdapterError) throw error
    throw new AdapterError(`${file} ${verb} failed: ${(error as Error).message}`, { cause: error })
  } finally {
    clearTimeout(timer)
  }
}
