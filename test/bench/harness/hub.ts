import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createSlipwayClient, type SlipwayClient } from '@slipway/sdk/client'
import { enrol, parseGateway, parseJoinToken, type GatewayAddress, type Identity } from '@slipway/sdk/testing'
import { ProviderKind } from '@slipway/proto/provider/v1'
import { freePort } from '../../tools/free-port.js'
import type { Bed } from './bed.js'
import { root, until, type Child } from './child.js'

/** The family of all providers of the benchmarks. */
export const family = 'bench'

/** A whole hub as a process of its own, on a fresh database. */
export class BenchHub {
  readonly child: Child
  readonly databaseUrl: string
  readonly url: string
  readonly gateway: GatewayAddress
  readonly token: string
  readonly client: SlipwayClient

  private constructor(parts: {
    child: Child
    databaseUrl: string
    url: string
    gateway: GatewayAddress
    token: string
  }) {
    this.child = parts.child
    this.databaseUrl = parts.databaseUrl
    this.url = parts.url
    this.gateway = parts.gateway
    this.token = parts.token
    this.client = createSlipwayClient({ baseUrl: this.url, token: this.token })
  }

  /** @param env settings of the hub. */
  static async start(bed: Bed, env: NodeJS.ProcessEnv = {}): Promise<BenchHub> {
    const databaseUrl = await bed.freshDatabase()
    const [api, gateway] = [await freePort(), await freePort()]
    const id = randomBytes(3).toString('hex')
    const tokenFile = join(bed.folder, `token-${id}`)
    const argv = ['--listen', `127.0.0.1:${api}`, '--gateway-listen', `127.0.0.1:${gateway}`]
    const child = bed.spawn(
      `hub-${id}`,
      [
        join(root, 'hub/bin/slipway-hub.js'),
        ...['serve', '--migrate', ...argv, '--bootstrap-token-file', tokenFile, '--drain', '1s'],
      ],
      { DATABASE_URL: databaseUrl, SLIPWAY_KEY: randomBytes(32).toString('hex'), SLIPWAY_LOG_LEVEL: 'warn', ...env },
    )
    const url = `http://127.0.0.1:${api}`
    await ready(child, url)
    const token = readFileSync(tokenFile, 'utf8').trim()
    return new BenchHub({ child, databaseUrl, url, gateway: parseGateway(`127.0.0.1:${gateway}`), token })
  }

  async restart(): Promise<void> {
    this.child.start()
    await ready(this.child, this.url)
  }

  /** Adds a provider, and lets an instance of it in by a join token. */
  async addProvider(name: string): Promise<Identity> {
    await this.client.providers.createProvider({
      providerId: name,
      provider: { family, kind: ProviderKind.DYNAMIC },
    })
    const { joinToken } = await this.client.providers.createJoinToken({ provider: `providers/${name}` })
    return enrol(this.gateway, parseJoinToken(joinToken), name)
  }

  /** A class that one provider alone offers. */
  async addClass(name: string, provider: string): Promise<void> {
    await this.client.machineClasses.createMachineClass({
      machineClassId: name,
      machineClass: {
        shape: { vcpus: 2, memoryMib: 4096n, diskGib: 40n },
        offerings: [{ provider: `providers/${provider}`, typeId: 'small', locations: ['here'] }],
      },
    })
  }
}

async function ready(child: Child, url: string): Promise<void> {
  await until('the hub', async () => {
    if (!child.running) throw new Error(`the hub ended: ${child.output()}`)
    return (await fetch(`${url}/readyz`)).ok
  })
}
