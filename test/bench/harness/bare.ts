import { randomBytes } from 'node:crypto'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  certificatePem,
  gatewayServerName,
  makeSigningRequest,
  parseGateway,
  TestAuthority,
  type GatewayAddress,
  type Identity,
} from '@slipway/sdk/testing'
import type { BareSettings } from '../prototype/serving.js'
import { freePort } from '../../tools/free-port.js'
import type { Bed } from './bed.js'
import { until, type Child } from './child.js'

const prototype = join(dirname(fileURLToPath(import.meta.url)), '../prototype')

/** A bare server as a process of its own, with mutual TLS of its own. */
export interface BareServer {
  readonly child: Child
  readonly gateway: GatewayAddress
  readonly identity: Identity
  readonly url: string
  restart(): Promise<void>
}

/** @param program which of the prototypes. */
export async function startBare(
  bed: Bed,
  program: 'gateway' | 'hub' | 'watch',
  databaseUrl?: string,
): Promise<BareServer> {
  const authority = await TestAuthority.create()
  const { keyPem, certificatePem: serverPem } = await authority.serverCertificate(gatewayServerName)
  const [gatewayPort, apiPort] = [await freePort(), await freePort()]
  const settings: BareSettings = {
    gatewayPort,
    apiPort,
    caPem: authority.certificatePem,
    keyPem,
    certificatePem: serverPem,
    ...(databaseUrl !== undefined && { databaseUrl }),
  }
  const child = bed.spawn(`bare-${program}-${randomBytes(3).toString('hex')}`, [join(prototype, `${program}.js`)], {
    SLIPWAY_BARE: JSON.stringify(settings),
  })
  let ups = 0
  child.onMessage(() => ups++)
  const ready = (count: number) =>
    until(child.name, () => {
      if (!child.running) throw new Error(`${child.name} ended: ${child.output()}`)
      return ups >= count
    })
  await ready(1)
  return {
    child,
    gateway: parseGateway(`127.0.0.1:${gatewayPort}`),
    identity: await makeIdentity(authority),
    url: `http://127.0.0.1:${apiPort}`,
    restart: async () => {
      const before = ups
      child.start()
      await ready(before + 1)
    },
  }
}

async function makeIdentity(authority: TestAuthority): Promise<Identity> {
  const { keyPem, csrDer } = makeSigningRequest()
  const { der, notBefore, notAfter } = await authority.clientCertificate(csrDer, 3_600_000)
  return {
    provider: 'providers/bare',
    keyPem,
    certificatePem: certificatePem(der),
    caPems: [authority.certificatePem],
    notBeforeMs: notBefore.getTime(),
    notAfterMs: notAfter.getTime(),
  }
}
