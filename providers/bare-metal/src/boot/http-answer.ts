import type { IncomingMessage, ServerResponse } from 'node:http'

/** Why a request gets no more than this. The message says nothing that helps who has no business here. */
export class HttpRefusal extends Error {
  override readonly name = 'HttpRefusal'
  readonly status: number
  /** Sort of rogue behaviour, where it is one. */
  readonly rogue: string | undefined

  constructor(status: number, message: string, rogue?: string) {
    super(message)
    this.status = status
    this.rogue = rogue
  }
}

/** Reads a body of JSON. What is too much is read and dropped, so that whoever sends it hears why. @throws HttpRefusal 413 or 400. */
export async function readJson(request: IncomingMessage, maxBytes: number): Promise<unknown> {
  const bytes = await new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = []
    let total = 0
    request.on('data', (chunk: Buffer) => {
      total += chunk.length
      if (total > maxBytes) reject(new HttpRefusal(413, `a body has at most ${maxBytes} bytes`))
      else chunks.push(chunk)
    })
    request.on('end', () => resolve(Buffer.concat(chunks)))
    request.on('error', reject)
    request.on('close', () => reject(new HttpRefusal(400, 'the body was cut off')))
  })
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    throw new HttpRefusal(400, 'the body is no JSON')
  }
}

export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body)
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
  })
  response.end(text)
}

export function sendText(response: ServerResponse, text: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(200, {
    'content-type': type,
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
  })
  response.end(text)
}

export function sendRefusal(response: ServerResponse, status: number, message: string): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  // What is left of the body is not waited for.
  response.setHeader('connection', 'close')
  sendJson(response, status, { error: { message } })
}
