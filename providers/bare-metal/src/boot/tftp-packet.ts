/** TFTP: RFC 1350, with options by RFC 2347 (negotiation), 2348 (blksize), 2349 (tsize) and 7440 (windowsize). Reading only. */
export type TftpRequest =
  | {
      readonly request: 'read'
      readonly file: string
      readonly options: ReadonlyMap<string, string>
    }
  | { readonly request: 'refused'; readonly code: TftpErrorCode; readonly message: string }

/** RFC 1350, section 5, and 8 of RFC 2347. */
export const tftpError = {
  undefined: 0,
  notFound: 1,
  accessViolation: 2,
  illegalOperation: 4,
  optionsRefused: 8,
} as const

export type TftpErrorCode = (typeof tftpError)[keyof typeof tftpError]

const maxRequestBytes = 512
const maxOptions = 8

/** Reads the first datagram of a transfer. @returns undefined for what deserves no answer. */
export function parseRequest(bytes: Buffer): TftpRequest | undefined {
  if (bytes.length < 4 || bytes.length > maxRequestBytes) return undefined
  const operation = bytes.readUInt16BE(0)
  if (operation === 2) return refused(tftpError.accessViolation, 'nothing can be written here')
  if (operation !== 1) return undefined
  if (bytes[bytes.length - 1] !== 0) return refused(tftpError.illegalOperation, 'the request has no end')
  const parts = bytes.subarray(2, -1).toString('latin1').split('\0')
  const [file, mode, ...rest] = parts
  if (file === undefined || mode === undefined || file === '')
    return refused(tftpError.illegalOperation, 'there is no file name')
  if (!/^[\x21-\x7e]+$/.test(file)) return refused(tftpError.accessViolation, 'this is no file name')
  if (mode.toLowerCase() !== 'octet') return refused(tftpError.illegalOperation, 'files are sent as octets alone')
  return parsePairs(file, rest)
}

function parsePairs(file: string, rest: readonly string[]): TftpRequest {
  if (rest.length % 2 !== 0 || rest.length > maxOptions * 2)
    return refused(tftpError.optionsRefused, 'the options are not pairs')
  const options = new Map<string, string>()
  for (let at = 0; at < rest.length; at += 2) {
    const name = (rest[at] ?? '').toLowerCase()
    if (name === '' || options.has(name)) return refused(tftpError.optionsRefused, 'an option comes twice')
    options.set(name, rest[at + 1] ?? '')
  }
  return { request: 'read', file, options }
}

function refused(code: TftpErrorCode, message: string): TftpRequest {
  return { request: 'refused', code, message }
}

export type TftpAnswer =
  { readonly answer: 'ack'; readonly block: number } | { readonly answer: 'error'; readonly message: string }

/** Reads what a client says during a transfer. @returns undefined for what is nothing of that kind. */
export function parseAnswer(bytes: Buffer): TftpAnswer | undefined {
  if (bytes.length < 4) return undefined
  const operation = bytes.readUInt16BE(0)
  if (operation === 4) return bytes.length === 4 ? { answer: 'ack', block: bytes.readUInt16BE(2) } : undefined
  if (operation !== 5) return undefined
  return {
    answer: 'error',
    message: bytes
      .subarray(4)
      .toString('latin1')
      .replaceAll(/[^\x20-\x7e]/g, '')
      .slice(0, 128),
  }
}

export function encodeError(code: TftpErrorCode, message: string): Buffer {
  return Buffer.concat([Buffer.from([0, 5, 0, code]), Buffer.from(`${message}\0`, 'latin1')])
}

export function encodeData(block: number, data: Buffer): Buffer {
  const header = Buffer.alloc(4)
  header.writeUInt16BE(3, 0)
  header.writeUInt16BE(block % 65_536, 2)
  return Buffer.concat([header, data])
}

export function encodeOptions(options: ReadonlyMap<string, string>): Buffer {
  const text = [...options].map(([name, value]) => `${name}\0${value}\0`).join('')
  return Buffer.concat([Buffer.from([0, 6]), Buffer.from(text, 'latin1')])
}
