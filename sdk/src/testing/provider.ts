import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import type { DynamicDefinition, Provider, RunOptions } from '../provider/types.js'
import { TestCloud } from './cloud.js'
import { TestGateway, type TestGatewayOptions, type TestSession } from './gateway.js'
import type { TestItem } from './item.js'
import { until } from './until.js'

/** What a test cleans up with: a tap test. */
export interface Cleanup {
  teardown(work: () => unknown): void
}

/** A provider that runs in this process. */
export interface Running {
  readonly stateDir: string
  /** Fulfilled when it has stopped; rejected with the final error. */
  readonly ended: Promise<void>
  stop(): Promise<void>
}

export async function tempDir(test: Cleanup): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'slipway-sdk-'))
  test.teardown(() => rm(path, { recursive: true, force: true }))
  return path
}

export async function startGateway(test: Cleanup, options: TestGatewayOptions = {}): Promise<TestGateway> {
  const gateway = await TestGateway.start(options)
  test.teardown(() => gateway.close())
  return gateway
}

/** Starts a provider, enrolled by a fresh join token. SLIPWAY_TEST_LOG=debug shows what it logs. */
export async function startProvider(
  test: Cleanup,
  gateway: TestGateway,
  provider: Provider,
  options: Partial<RunOptions> = {},
): Promise<Running> {
  const stateDir = options.stateDir ?? (await tempDir(test))
  const controller = new AbortController()
  const ended = provider.run({
    gateway: gateway.address,
    joinToken: gateway.joinToken(),
    log: pino({ level: process.env['SLIPWAY_TEST_LOG'] ?? 'silent' }),
    ...options,
    stateDir,
    signal: controller.signal,
  })
  ended.catch(() => undefined)
  const stop = (): Promise<void> => {
    controller.abort()
    return ended
  }
  test.teardown(() => stop().catch(() => undefined))
  return { stateDir, ended, stop }
}

export interface Setup {
  readonly cloud: TestCloud
  readonly gateway: TestGateway
  readonly running: Running
  readonly session: TestSession
  readonly item: TestItem
}

/** A provider with a session, ready for work, and an item that is not claimed yet. */
export async function setUp(
  test: Cleanup,
  instead: (cloud: TestCloud) => Partial<DynamicDefinition<unknown, unknown, unknown>> = () => ({}),
  options: TestGatewayOptions = {},
): Promise<Setup> {
  const cloud = new TestCloud()
  const gateway = await startGateway(test, options)
  const running = await startProvider(test, gateway, cloud.provider(instead(cloud)))
  const session = await readySession(gateway)
  return { cloud, gateway, running, session, item: gateway.item() }
}

/** The session of this number, once it takes work. */
export async function readySession(gateway: TestGateway, count = 1): Promise<TestSession> {
  const session = await gateway.session(count)
  await session.expect('ready', ({ capacity }) => capacity > 0)
  return session
}

export async function settled(item: TestItem): Promise<void> {
  await until(`generation ${item.desired.generation} to be settled`, () => item.settledAt === item.desired.generation)
}

export async function released(item: TestItem): Promise<void> {
  await until('the item to be released', () => item.outcome !== undefined)
}
