/** An IPMI message as it goes over the network; IPMI 2.0, section 13.8. */
export interface IpmiMessage {
  /** Even for requests, one more for their answers. */
  readonly netFn: number
  readonly command: number
  /** Six bits, by which an answer finds its request. */
  readonly sequence: number
  /** Requests: the parameters. Answers: the completion code comes first. */
  readonly data: Buffer
}

const bmcAddress = 0x20
/** The remote console's software id. */
const consoleAddress = 0x81

export function encodeRequest(message: IpmiMessage): Buffer {
  return encode(bmcAddress, consoleAddress, message)
}

/** As a BMC answers. */
export function encodeResponse(message: IpmiMessage): Buffer {
  return encode(consoleAddress, bmcAddress, message)
}

/** @returns undefined where it is not addressed to a BMC, is cut off, or a checksum is wrong. */
export function parseRequest(bytes: Buffer): IpmiMessage | undefined {
  return parse(bmcAddress, bytes)
}

/** @returns undefined where it is not addressed to us, is cut off, has no completion code, or a checksum is wrong. */
export function parseResponse(bytes: Buffer): IpmiMessage | undefined {
  const message = parse(consoleAddress, bytes)
  return message !== undefined && (message.netFn & 1) === 1 && message.data.length > 0 ? message : undefined
}

function encode(to: number, from: number, { netFn, command, sequence, data }: IpmiMessage): Buffer {
  const head = [to, netFn << 2]
  const tail = [from, sequence << 2, command, ...data]
  return Buffer.from([...head, checksum(head), ...tail, checksum(tail)])
}

function parse(to: number, bytes: Buffer): IpmiMessage | undefined {
  if (bytes.length < 7 || bytes[0] !== to) return undefined
  const [head, tail] = [bytes.subarray(0, 2), bytes.subarray(3, -1)]
  if (checksum(head) !== bytes[2] || checksum(tail) !== bytes[bytes.length - 1]) return undefined
  return {
    netFn: bytes.readUInt8(1) >> 2,
    sequence: bytes.readUInt8(4) >> 2,
    command: bytes.readUInt8(5),
    data: bytes.subarray(6, -1),
  }
}

/** What makes the sum of all bytes zero. */
function checksum(bytes: Iterable<number>): number {
  let sum = 0
  for (const byte of bytes) sum += byte
  return -sum & 0xff
}
