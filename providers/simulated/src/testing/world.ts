import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { pino } from 'pino'
import type { z } from 'zod'
import type { Caller } from '../api-gate.js'
import { Cloud, type ServerOrder } from '../cloud.js'
import { cloudRules, type CloudState } from '../cloud-state.js'
import { cloudConfigSchema, rackConfigSchema } from '../config.js'
import { Rack, type HostOrder } from '../rack.js'
import { rackRules, type RackState } from '../rack-state.js'
import { World } from '../world.js'

export const silentLog = pino({ level: 'silent' })

/** A folder that is gone when the test is over. */
export function tempDir(t: { teardown: (fn: () => void) => void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'slipway-simulated-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** Waits until a condition gives something. @throws after ten seconds. */
export async function until<Result>(
  what: string,
  condition: () => Result | undefined | false | Promise<Result | undefined | false>,
): Promise<Result> {
  const deadlineMs = performance.now() + 10_000
  for (;;) {
    const result = await condition()
    if (result !== undefined && result !== false) return result
    if (performance.now() > deadlineMs) throw new Error(`waited in vain for ${what}`)
    await delay(5)
  }
}

/** A clock that stands still until it is told to move on. It is far ahead, so that the real one plays no part. */
export class StillClock {
  nowMs = 4_000_000_000_000
  readonly read = (): number => this.nowMs
}

const promptLatency = { create: 0, delete: 0, power: 0, get: 0, list: 0 }

/** A configuration under which calls take no time. */
export function cloudConfig(overrides: z.input<typeof cloudConfigSchema> = {}) {
  return cloudConfigSchema.parse({
    latency: promptLatency,
    answerTimeoutMs: 0,
    createDuration: 1_000,
    deleteDuration: 1_000,
    powerDuration: 1_000,
    bootDuration: 1_000,
    ...overrides,
  })
}

export function rackConfig(overrides: z.input<typeof rackConfigSchema> = {}) {
  return rackConfigSchema.parse({
    latency: 0,
    answerTimeoutMs: 0,
    inspectDuration: 0,
    installDuration: 1_000,
    wipeDuration: 1_000,
    powerDuration: 1_000,
    bootDuration: 1_000,
    ...overrides,
  })
}

const noToken: Caller = { apiToken: undefined }

/** A cloud in a folder, on a clock that the test moves. */
export function openCloud(dir: string, overrides: z.input<typeof cloudConfigSchema> = {}, caller = noToken) {
  const clock = new StillClock()
  const world = new World<CloudState>(dir, cloudRules, { clock: clock.read })
  const config = cloudConfig(overrides)
  return { clock, world, config, cloud: new Cloud(world, config, caller) }
}

export function openRack(dir: string, overrides: z.input<typeof rackConfigSchema> = {}, caller = noToken) {
  const clock = new StillClock()
  const world = new World<RackState>(dir, rackRules, { clock: clock.read })
  const config = rackConfig(overrides)
  return { clock, world, config, rack: new Rack(world, config, caller) }
}

export function serverOrder(name: string, overrides: Partial<ServerOrder> = {}): ServerOrder {
  return {
    name,
    ownershipKey: `hub/${name}`,
    type: 'sim-small',
    location: 'sim-east',
    image: 'debian-13',
    labels: {},
    ...overrides,
  }
}

export function hostOrder(name: string, overrides: Partial<HostOrder> = {}): HostOrder {
  return { binding: `hub/${name}`, host: `workspaces/default/hosts/${name}`, image: 'debian-13', ...overrides }
}

/** A hub that takes phone calls, and answers as it is told. */
export async function phoneHub(t: { teardown: (fn: () => void) => void }) {
  const calls: { readonly authorization: string | undefined; readonly body: unknown }[] = []
  const hub = { calls, status: 200, url: '' }
  const server = createServer((request, response) => {
    void bodyOf(request).then((body) => {
      calls.push({ authorization: request.headers.authorization, body })
      response.writeHead(hub.status, { 'content-type': 'application/json' }).end('{}')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  hub.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/phone-home`
  return hub
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return JSON.parse(Buffer.concat(chunks).toString())
}
