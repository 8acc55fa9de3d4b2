import { invalidField } from '../error/errors.js'

const maxNameLength = 253
const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

/**
 * Checks what a host is to call itself: labels of letters, digits and hyphens of at most 63 characters (RFC 1123 section 2.1), 253 together, in lower case; and nothing that
 * programs take for an address, or for themselves. Hostnames need not be unique: two hosts may follow each other under one name.
 *
 * @param field to complain about.
 * @throws HubError INVALID_FIELD.
 */
export function checkHostname(hostname: string, field: string): void {
  const problem = hostnameProblem(hostname)
  if (problem !== undefined) throw invalidField(field, problem)
}

function hostnameProblem(hostname: string): string | undefined {
  if (hostname.length > maxNameLength) return `has ${hostname.length} characters, and may have ${maxNameLength}`
  const labels = hostname.split('.')
  if (!labels.every((each) => label.test(each)))
    return 'must be labels of lower-case letters, digits and hyphens, 63 characters at most each, parted by dots; no label begins or ends with a hyphen'
  const last = labels.at(-1) ?? ''
  // What reads addresses takes all that ends in a number for one, hexadecimal ones too.
  if (/^(\d+|0x[0-9a-f]*)$/.test(last))
    return 'ends in a number, so that programs take it for an address; have its last label begin with a letter'
  return last === 'localhost' ? 'is what every machine calls itself (RFC 6761); choose another' : undefined
}
