const pattern = /^[0-9a-f]{2}([:-]?)[0-9a-f]{2}(?:\1[0-9a-f]{2}){4}$/i

/** A MAC address in the one form that is compared: lower case, with colons. @returns undefined where the text is none. */
export function parseMac(text: string): string | undefined {
  if (!pattern.test(text)) return undefined
  const digits = text.toLowerCase().replaceAll(/[:-]/g, '')
  return digits.match(/../g)?.join(':')
}

/** The MAC address of six bytes. @throws RangeError for any other number of them. */
export function macOfBytes(bytes: Uint8Array): string {
  if (bytes.length !== 6) throw new RangeError(`a MAC address has six bytes, not ${bytes.length}`)
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':')
}

/** Whether it can be the address of one machine: not a group's, and not all zeroes. */
export function isUnicastMac(mac: string): boolean {
  const first = Number.parseInt(mac.slice(0, 2), 16)
  return (first & 1) === 0 && mac !== '00:00:00:00:00:00'
}
