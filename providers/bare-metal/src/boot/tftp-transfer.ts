import { encodeData, encodeError, encodeOptions, parseAnswer, tftpError } from './tftp-packet.js'

/** What a transfer wants to happen next. */
export interface TransferStep {
  readonly send: readonly Buffer[]
  /** How it ended, where it did. */
  readonly ended?: 'done' | 'aborted' | 'timeout'
  /** What the client said when it gave up. */
  readonly message?: string
}

/** Larger ones do not fit into one frame of Ethernet, and fragments are what firmware handles worst. */
const maxBlockBytes = 1468
const minBlockBytes = 8
const maxWindow = 16
const maxRepeats = 6

/** One file on its way to one client: the protocol without sockets and clocks. */
export class TftpTransfer {
  readonly #data: Buffer
  readonly #blockBytes: number
  readonly #window: number
  readonly #agreed: ReadonlyMap<string, string>
  /** The last block of all, from 1. It is shorter than a block, and may be empty. */
  readonly #last: number
  /** The block up to which all has arrived; −1: the options are not agreed yet. */
  #acked: number
  #repeats = 0
  #ended = false

  constructor(data: Buffer, options: ReadonlyMap<string, string>) {
    const agreed = negotiate(options, data.length)
    this.#data = data
    this.#blockBytes = Number(agreed.get('blksize') ?? 512)
    this.#window = Number(agreed.get('windowsize') ?? 1)
    this.#agreed = agreed
    this.#last = Math.floor(data.length / this.#blockBytes) + 1
    this.#acked = agreed.size > 0 ? -1 : 0
  }

  start(): TransferStep {
    return { send: this.#pending() }
  }

  /** Nothing came for a while. */
  timeout(): TransferStep {
    if (this.#ended) return { send: [] }
    this.#repeats += 1
    if (this.#repeats <= maxRepeats) return { send: this.#pending() }
    this.#ended = true
    return { send: [encodeError(tftpError.undefined, 'no answer came')], ended: 'timeout' }
  }

  receive(bytes: Buffer): TransferStep {
    if (this.#ended) return { send: [] }
    const answer = parseAnswer(bytes)
    if (answer === undefined) return { send: [] }
    if (answer.answer === 'error') {
      this.#ended = true
      return { send: [], ended: 'aborted', message: answer.message }
    }
    const block = this.#blockOf(answer.block)
    // An older ack says nothing new; answering it again would double every datagram from then on.
    if (block === undefined) return { send: [] }
    this.#acked = block
    this.#repeats = 0
    if (this.#acked < this.#last) return { send: this.#pending() }
    this.#ended = true
    return { send: [], ended: 'done' }
  }

  /** Which block a wrapped number means. @returns undefined where it is none of those under way. */
  #blockOf(wrapped: number): number | undefined {
    if (this.#acked < 0) return wrapped === 0 ? 0 : undefined
    const from = this.#acked + 1
    const to = Math.min(this.#acked + this.#window, this.#last)
    for (let block = from; block <= to; block += 1) if (block % 65_536 === wrapped) return block
    return undefined
  }

  #pending(): Buffer[] {
    if (this.#acked < 0) return [encodeOptions(this.#agreed)]
    const blocks: Buffer[] = []
    for (let block = this.#acked + 1; block <= Math.min(this.#acked + this.#window, this.#last); block += 1) {
      const start = (block - 1) * this.#blockBytes
      blocks.push(encodeData(block, this.#data.subarray(start, start + this.#blockBytes)))
    }
    return blocks
  }
}

/** Options that are not understood, or make no sense, are left out: the client goes on without them (RFC 2347). */
function negotiate(options: ReadonlyMap<string, string>, sizeBytes: number): ReadonlyMap<string, string> {
  const agreed = new Map<string, string>()
  const block = wholeNumber(options.get('blksize'), 65_464)
  if (block !== undefined && block >= minBlockBytes) agreed.set('blksize', String(Math.min(block, maxBlockBytes)))
  if (wholeNumber(options.get('tsize'), Number.MAX_SAFE_INTEGER) !== undefined) agreed.set('tsize', String(sizeBytes))
  const window = wholeNumber(options.get('windowsize'), 65_535)
  if (window !== undefined && window >= 1) agreed.set('windowsize', String(Math.min(window, maxWindow)))
  return agreed
}

function wholeNumber(text: string | undefined, max: number): number | undefined {
  if (text === undefined || !/^\d{1,16}$/.test(text) || Number(text) > max) return undefined
  return Number(text)
}
