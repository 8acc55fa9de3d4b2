import { networkInterfaces } from 'node:os'

/**
 * Where other replicas reach this one: as it was told, or where the gateway listens. One that listens everywhere is reached at its first
 * address that is not loopback's.
 *
 * @returns host:port.
 */
export function replicaAddress(told: string, listens: { readonly host: string; readonly port: number }): string {
  if (told !== '') return told
  const everywhere = listens.host === '0.0.0.0' || listens.host === '::'
  const host = everywhere ? (firstAddress() ?? '127.0.0.1') : listens.host
  return `${host.includes(':') ? `[${host}]` : host}:${listens.port}`
}

function firstAddress(): string | undefined {
  const found = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, scopeid }) => !internal && (scopeid ?? 0) === 0)
  return (found.find(({ family }) => family === 'IPv4') ?? found[0])?.address
}
