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
 * How cloud-init lays a part over those before it: where both say something the one before holds, but lists, such as that of keys, are joined. Without a word on it the later part
 * would take the place of the keys that the order's own has.
 */
const mergeHow = 'dict(no_replace,recurse_list)+list(append)+str()'

/**
 * The user data of a server. It holds the phone-home token: it is secret.
 *
 * The hostname, the keys that may log in and where to phone home go into a cloud-config. Where the order has user data of its own, that comes first in a MIME message with both:
 * in what both say the order's word holds, and its keys stay beside these. User data that is not for cloud-init, such as Ignition's, cannot be joined with anything, and stays as
 * it is: it has to phone home by itself, and takes no keys, see `userDataProblem`.
 */
export function userDataOf(bootstrap: Bootstrap): string {
  const { userData } = bootstrap
  if (userData === '') return cloudConfig(bootstrap, '')
  if (!isForCloudInit(userData)) return userData
  return multipart([userData, cloudConfig(bootstrap, `merge_how: ${JSON.stringify(mergeHow)}\n`)])
}

function isForCloudInit(userData: string): boolean {
  return cloudInitMarks.some((mark) => userData.startsWith(mark))
}

/** What is wrong with the user data of an order; undefined: nothing. */
export function userDataProblem(bootstrap: Bootstrap): string | undefined {
  const { userData, sshPublicKeys } = bootstrap
  if (sshPublicKeys.length > 0 && userData !== '' && !isForCloudInit(userData))
    return 'is not for cloud-init, and the keys of ssh_public_keys cannot be put into it: put them there yourself, and order without ssh_public_keys'
  const bytes = Buffer.byteLength(userDataOf(bootstrap))
  if (bytes <= maxUserDataBytes) return undefined
  return `with what phones home and the keys it comes to ${bytes} bytes, and the vendor takes ${maxUserDataBytes}: have it fetch the rest`
}

function cloudConfig({ hostname, phoneHomePathUrl, sshPublicKeys }: Bootstrap, head: string): string {
  const name = hostname === '' ? '' : `hostname: ${JSON.stringify(hostname)}\n`
  const phoneHome =
    phoneHomePathUrl === ''
      ? ''
      : `phone_home:\n  url: ${JSON.stringify(phoneHomePathUrl)}\n  post: [instance_id, hostname, fqdn]\n  tries: ${phoneHomeTries}\n`
  const keys =
    sshPublicKeys.length === 0
      ? ''
      : `ssh_authorized_keys:\n${sshPublicKeys.map((key) => `  - ${JSON.stringify(key)}\n`).join('')}`
  return `#cloud-config\n${head + name + keys + phoneHome || '{}\n'}`
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
