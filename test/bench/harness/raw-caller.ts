import { connect, constants, type ClientHttp2Session } from 'node:http2'
import { toBinary, type DescMessage, type MessageShape } from '@bufbuild/protobuf'

/**
 * Makes unary calls of the client API by the Connect protocol (https://connectrpc.com/docs/protocol) and leaves the answers as they came: a caller that decodes has
 * garbage to collect of its own, in the midst of what it measures.
 */
export class RawCaller {
  readonly #session: ClientHttp2Session
  readonly #token: string

  constructor(url: string, token: string) {
    this.#session = connect(url)
    this.#session.on('error', () => undefined)
    this.#token = token
  }

  /** @returns the length of the answer in bytes. @throws where it is no success. */
  call<Input extends DescMessage>(path: string, schema: Input, input: MessageShape<Input>): Promise<number> {
    const body = toBinary(schema, input)
    return new Promise((resolve, reject) => {
      const stream = this.#session.request({
        [constants.HTTP2_HEADER_METHOD]: 'POST',
        [constants.HTTP2_HEADER_PATH]: path,
        'content-type': 'application/proto',
        'connect-protocol-version': '1',
        authorization: `Bearer ${this.#token}`,
      })
      let status = 0
      let length = 0
      stream.on('response', (headers) => (status = Number(headers[constants.HTTP2_HEADER_STATUS])))
      stream.on('data', (chunk: Buffer) => (length += chunk.length))
      stream.on('error', reject)
      stream.on('end', () => {
        if (status === 200) resolve(length)
        else reject(new Error(`${path}: HTTP ${status}`))
      })
      stream.end(body)
    })
  }

  close(): void {
    this.#session.destroy()
  }
}
