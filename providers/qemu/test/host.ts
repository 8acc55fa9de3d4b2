import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Bootstrap } from '@slipway/sdk'
import type { Test } from 'tap'
import { configSchema } from '../src/config.js'
import { Machines, type MachineOrder } from '../src/machines.js'
import { findProcesses, signalProcess } from '../src/process-table.js'
import { defaultPrograms, type Programs } from '../src/programs.js'
import { MachineStore } from '../src/store.js'
import { missingPackages } from '../testing/guest.js'

export const hubId = '11111111-1111-4111-8111-111111111111'
export const never: AbortSignal = new AbortController().signal

/** Booting machines takes its time where they are emulated. */
const timeoutMs = 240_000

/** Ends the whole test file where QEMU is missing: skipped, or failed in CI. @returns whether to go on. */
export function canRun(t: Test): boolean {
  t.setTimeout(timeoutMs)
  const missing = missingPackages()
  if (missing.length === 0) return true
  const what = `real machines are not tested: install the Debian packages ${missing.join(', ')}`
  if (process.env['CI'] === 'true') t.fail(what)
  else t.plan(0, what)
  return false
}

/** Waits until `check` gives something. @throws after `timeoutMs`, with what it waited for. */
export async function until<Result>(
  what: string,
  check: () => Promise<Result | undefined | false>,
  timeoutMs = 60_000,
): Promise<Result> {
  const deadlineMs = performance.now() + timeoutMs
  for (;;) {
    const result = await check()
    if (result !== undefined && result !== false) return result
    if (performance.now() > deadlineMs) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`)
    await sleep(25)
  }
}

/** A folder for machines. Whatever still runs in it is ended with the test. */
export async function machineFolder(t: Test): Promise<string> {
  const directory = await mkdtemp(join(await realpath(tmpdir()), 'slipway-qemu-'))
  t.teardown(async () => {
    for (const left of await findProcesses(directory)) await signalProcess(left, 'SIGKILL')
    await until('an end of what was left', async () => (await findProcesses(directory)).length === 0)
    await rm(directory, { recursive: true, force: true, maxRetries: 5 })
  })
  return directory
}

export interface HostOptions {
  readonly programs?: Programs
  readonly imageRoot?: string
}

/** The machines of a folder, as a provider that was just started has them. */
export async function openMachines(directory: string, settings: object, options: HostOptions = {}): Promise<Machines> {
  const store = await MachineStore.open(directory)
  const config = configSchema.parse({ accel: 'tcg', tcgCacheMib: 64, ...settings })
  const accelerator = { kind: 'tcg', reason: 'the same everywhere' } as const
  return new Machines({
    store,
    config,
    accelerator,
    programs: options.programs ?? defaultPrograms,
    imageRoot: options.imageRoot,
  })
}

export function order(number: number, changes: Partial<MachineOrder> = {}): MachineOrder {
  const uuid = `22222222-2222-4222-8222-${String(number).padStart(12, '0')}`
  const host = {
    host: `workspaces/default/hosts/web-${number}`,
    hostUid: uuid,
    workspace: 'default',
    machineClass: 'tiny',
    labels: {},
  }
  return {
    name: `sw-${number}`,
    ownershipKey: `${hubId}/${uuid}`,
    typeId: 'tiny',
    image: 'guest',
    hostname: `web-${number}`,
    host,
    ...changes,
  }
}

export function bootstrapOf(hostname: string, phoneHomeUrl = ''): Bootstrap {
  const path = phoneHomeUrl === '' ? '' : `${phoneHomeUrl}/secret-token`
  return {
    hostname,
    userData: '',
    phoneHomeUrl,
    phoneHomePathUrl: path,
    phoneHomeToken: path === '' ? '' : 'secret-token',
    sshPublicKeys: [],
  }
}

export interface PhoneCall {
  readonly method: string
  readonly path: string
  readonly body: string
}

/** Something for machines to phone home to. */
export async function listenForCalls(t: Test): Promise<{ url: string; calls: PhoneCall[] }> {
  const calls: PhoneCall[] = []
  const server = createServer((request: IncomingMessage, response) => {
    let body = ''
    request.setEncoding('utf8').on('data', (text: string) => (body += text))
    request.on('end', () => {
      calls.push({ method: request.method ?? '', path: request.url ?? '', body })
      response.end('{}')
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/phone-home`, calls }
}

/** Waits until a machine's console shows something, and gives all of it. */
export async function consoleShows(directory: string, name: string, pattern: RegExp): Promise<string> {
  const file = join(directory, name, 'console.log')
  let text = ''
  const seen = async (): Promise<boolean> => pattern.test((text = await readFile(file, 'utf8').catch(() => '')))
  await until(`${String(pattern)} on the console of ${name}`, seen).catch((error: unknown) => {
    throw new Error(`the console of ${name} shows: ${text}`, { cause: error })
  })
  return text
}
