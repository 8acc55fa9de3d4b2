import type { Bootstrap } from '@slipway/sdk'

/** What the vendor takes. */
export const maxUserDataBytes = 32 * 1024

/** How often cloud-init tries to phone home; it waits some seconds in between. */
const phoneHomeTries = 100

/** How user data begins that cloud-init can take as one part among others. */
const cloudInitMarks = [
  '#cloud-config',
  '#!',
  '#include',
  '#cloud-boothook',
  '#part-handler',
  '## template:',
  'Content-Type: multipart/',
]

/**
 * The user data of a server. It holds the phone-home token: it is secret.
 *
 * The hostname and where to phone home go into a cloud-config. Where the order has user data of its own, that comes first in a MIME message with both, so that in what both say
 * the order's word holds. User data that is not for cloud-init, such as Ignition's, cannot be joined with anything, and stays as it is: it has to phone home by itself.
 */
export function userDataOf(bootstrap: Bootstrap): string {
  const own = cloudConfig(bootstrap)
  const { userData } = bootstrap
  if (userData === '') return own
  if (!cloudInitMarks.some((mark) => userData.startsWith(mark))) return userData
  return multipart([userData, own])
}

/** What is wrong with the user data of an order; undefined: nothing. */
export function userDataProblem(bootstrap: Bootstrap): string | undefined {
  const bytes = Buffer.byteLength(userDataOf(bootstrap))
  if (bytes <= maxUserDataBytes) return undefined
  return `with what phones home it comes to ${bytes} bytes, and the vendor takes ${maxUserDataBytes}: have it fetch the rest`
}

function cloudConfig({ hostname, phoneHomePathUrl }: Bootstrap): string {
  const name = hostname === '' ? '' : `hostname: ${JSON.stringify(hostname)}\n`
  const phoneHome =
    phoneHomePathUrl === ''
      ? ''
      : `phone_home:\n  url: ${JSON.stringify(phoneHomePathUrl)}\n  post: [instance_id, hostname, fqdn]\n  tries: ${phoneHomeTries}\n`
  return `#cloud-config\n${name || phoneHome ? name + phoneHome : '{}\n'}`
}

function multipart(parts: readonly string[]): string {
  let boundary = 'slipway'
  while (parts.some((part) => part.includes(boundary))) boundary += '='
  const bodies = parts.map((part) => {
    // A message within the message has headers of its own.
    return `--${boundary}\n${part.startsWith('Content-Type:') ? part : plain(part)}\n`
  })
  return `Content-Type: multipart/mixed; boundary="${boundary}"\nMIME-Version: 1.0\n\n${bodies.join('')}--${boundary}--\n`
}

/** A part of which cloud-init finds out by itself what it is. */
function plain(text: string): string {
  const type = 'Content-Type: text/plain; charset="utf-8"\n'
  // Readers of messages agree on letters beyond ASCII only where they are encoded.
  const isAscii = /^[\t\n\r -~]*$/.test(text)
  if (isAscii) return `${type}\n${text}`
  const encoded =
    Buffer.from(text)
      .toString('base64')
      .match(/.{1,76}/g)
      ?.join('\n') ?? ''
  return `${type}Content-Transfer-Encoding: base64\n\n${encoded}`
}
