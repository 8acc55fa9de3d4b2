import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { callKey, keptHeaders, plainPath, type TapeEntry, type TapeWriter } from './tape.js'
import type { Purse } from './purse.js'

const root = '/v1'
const upstreamTimeoutMs = 60_000

/** Something that stands where the API is. */
export interface StandIn {
  /** The provider's `endpoint`. */
  readonly endpoint: string
  close(): Promise<void>
}

export interface RecorderOptions {
  /** The real API's address. */
  readonly upstream: string
  /** Secret. It is put into the calls here, so that what is tested never has it. */
  readonly token: string
  readonly tape: TapeWriter
  readonly purse: Purse
}

/** Passes calls on to the API and writes them down, as long as the purse allows. */
export async function startRecorder({ upstream, token, tape, purse }: RecorderOptions): Promise<StandIn> {
  return serve(async (method, path, body) => {
    const request = parsed(body)
    const refused = purse.pay(method, path.split('?')[0] ?? '', request)
    if (refused !== undefined) return refusal(403, 'resource_limit_exceeded', refused)
    const response = await fetch(`${upstream.replace(/\/+$/, '')}${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      ...(body !== '' && { body }),
      signal: AbortSignal.timeout(upstreamTimeoutMs),
    })
    const text = await response.text()
    const headers = Object.fromEntries(
      keptHeaders.flatMap((name) => {
        const value = response.headers.get(name)
        return value === null ? [] : [[name, value]]
      }),
    )
    const answer = parsed(text)
    const entry = { method, path, status: response.status, headers, request, answer }
    tape.write(entry)
    return entry
  })
}

/** Answers as a tape has it: each call by the next answer that was given to the same call; the last one again for whoever asks more often, as waiting is not the same twice. */
export async function startReplayer(
  entries: readonly TapeEntry[],
): Promise<StandIn & { readonly unheard: () => number }> {
  const answers = new Map<string, TapeEntry[]>()
  for (const entry of entries) {
    const key = callKey(entry.method, entry.path, entry.request)
    answers.set(key, [...(answers.get(key) ?? []), entry])
  }
  const heard = new Set<TapeEntry>()
  const standIn = await serve(async (method, path, body) => {
    const left = answers.get(callKey(method, path, parsed(body)))
    const [next] = left ?? []
    if (left === undefined || next === undefined)
      return refusal(500, 'server_error', `the tape has no ${method} ${path}`)
    if (left.length > 1) left.shift()
    heard.add(next)
    return next
  })
  return { ...standIn, unheard: () => entries.filter((entry) => entry.method !== 'GET' && !heard.has(entry)).length }
}

type Reply = Pick<TapeEntry, 'status' | 'headers' | 'answer'>

async function serve(reply: (method: string, path: string, body: string) => Promise<Reply>): Promise<StandIn> {
  const http = createServer()
  http.on('request', (request, response) => {
    const answering = async (): Promise<void> => {
      const url = new URL(request.url ?? '/', 'http://stand-in')
      const { status, headers, answer } = await reply(
        request.method ?? 'GET',
        plainPath(url, root),
        await bodyOf(request),
      )
      response.writeHead(status, { ...headers, ...(answer !== undefined && { 'content-type': 'application/json' }) })
      response.end(answer === undefined ? undefined : JSON.stringify(answer))
    }
    // To the client it looks like an answer that was lost, which is what it is.
    answering().catch(() => response.destroy())
  })
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  return {
    endpoint: `http://127.0.0.1:${(http.address() as AddressInfo).port}${root}`,
    close: () => closed(http),
  }
}

function refusal(status: number, code: string, message: string): Reply {
  return { status, headers: {}, answer: { error: { code, message, details: null } } }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

function parsed(text: string): unknown {
  return text === '' ? undefined : (JSON.parse(text) as unknown)
}

async function closed(http: Server): Promise<void> {
  http.closeAllConnections()
  await new Promise((resolve) => http.close(resolve))
}
