import { createHmac, timingSafeEqual } from 'node:crypto'

const version = 'v1'

/**
 * The secret of an agent's session: the boot's id, sealed with a key of the state folder. So it outlives the process, and nothing of it has to be kept.
 */
export function sealSession(key: Buffer, bootId: string): string {
  return `${version}.${bootId}.${macOf(key, bootId)}`
}

/** The boot that a session's secret is of; undefined where it was not sealed with this key. */
export function openSession(key: Buffer, secret: string): string | undefined {
  const [given, bootId, mac, ...rest] = secret.split('.')
  if (given !== version || bootId === undefined || mac === undefined || rest.length > 0) return undefined
  const expected = Buffer.from(macOf(key, bootId))
  const actual = Buffer.from(mac)
  return expected.length === actual.length && timingSafeEqual(expected, actual) ? bootId : undefined
}

function macOf(key: Buffer, bootId: string): string {
  return createHmac('sha256', key).update(`${version}.${bootId}`).digest('base64url')
}
