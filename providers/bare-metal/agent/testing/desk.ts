import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { z } from 'zod'
import {
  agentPaths,
  agentRoot,
  agentVersion,
  confirmRequestSchema,
  heartbeatSchema,
  inventorySchema,
  maxBodyBytes,
  orderSchema,
  resultSchema,
  sessionRequestSchema,
  type Authority,
  type Heartbeat,
  type Inventory,
  type Order,
  type OrderResult,
} from '../../src/agent/protocol.js'

type Question = 'session' | 'inventory' | 'order' | 'confirm' | 'heartbeat' | 'result' | 'file'

type Reply = (question: Question, status: number, answer?: object) => void

/**
 * The provider's side of the agent's contract, for one machine of a test: it holds the agent to the schemas, hands out what the test orders, and can be told to refuse, to lie,
 * or to be silent.
 */
export class Desk {
  readonly token = randomBytes(16).toString('hex')
  readonly inventories: Inventory[] = []
  readonly heartbeats: Heartbeat[] = []
  readonly results: { readonly id: string; readonly result: OrderResult }[] = []
  readonly confirmations: { readonly id: string; readonly authority: Authority }[] = []
  /** What the agent sent that is not of the contract. */
  readonly violations: string[] = []
  /** All that was asked, in order, with the answer's status. */
  readonly asked: string[] = []
  readonly files = new Map<string, Buffer>()
  /** The next orders; the last one is given again until its result is here. Empty: wait. */
  readonly orders: Order[] = []
  /** Changes the answer to a question: a status instead of it, or `silence`. */
  judge: (question: Question, body: unknown) => number | 'silence' | undefined = () => undefined
  console = ''
  /** The answer to a question whether an order stands. */
  beginWithinMs = 10_000
  /** Where it can be reached, once it was started. */
  url = ''
  #session = ''
  readonly #server: Server = createServer((request, response) => {
    this.#answer(request, response).catch((error: unknown) => {
      this.violations.push(String(error))
      response.destroy()
    })
  })

  async start(address = '127.0.0.1', port = 0): Promise<number> {
    this.#server.listen(port, address)
    await once(this.#server, 'listening')
    const bound = (this.#server.address() as AddressInfo).port
    this.url = `http://${address}:${bound}`
    return bound
  }

  async stop(): Promise<void> {
    this.#server.close()
    this.#server.closeAllConnections()
    await once(this.#server, 'close').catch(() => undefined)
  }

  /** Hangs up on everybody. */
  drop(): void {
    this.#server.closeAllConnections()
  }

  /** The result of an order, once it is here. */
  resultOf(id: string): OrderResult | undefined {
    return this.results.find((entry) => entry.id === id)?.result
  }

  /** Serves a file below the boot endpoint. @returns its path and digest. */
  addFile(name: string, content: Buffer): { readonly path: string; readonly sha256: string } {
    this.files.set(`/files/${name}`, content)
    return { path: `/files/${name}`, sha256: createHash('sha256').update(content).digest('hex') }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? ''
    const body = await readBody(request)
    const reply = (question: Question, status: number, answer?: object | Buffer) => {
      const judged = this.judge(question, body)
      this.asked.push(`${question} ${judged ?? status}`)
      if (judged === 'silence') return
      const given = judged === undefined ? answer : { error: { message: 'the test wants it so' } }
      const bytes = given instanceof Buffer ? given : Buffer.from(given === undefined ? '' : JSON.stringify(given))
      response.writeHead(judged ?? status, { 'content-length': bytes.length })
      response.end(request.method === 'HEAD' ? undefined : bytes)
    }
    if (path === agentPaths.session) {
      const hello = this.#check(sessionRequestSchema, body)
      if (hello?.token !== this.token || this.#session !== '')
        return reply('session', 403, { error: { message: 'the token is unknown or used' } })
      this.#session = randomBytes(24).toString('hex')
      return reply('session', 200, { version: agentVersion, session: this.#session, heartbeatMs: 1000 })
    }
    if (request.headers.authorization !== `Bearer ${this.#session}`)
      return reply('order', 401, { error: { message: 'no such session' } })
    const file = this.files.get(path)
    if (file !== undefined) return reply('file', 200, file)
    this.#answerAgent(path, body, reply)
  }

  #answerAgent(path: string, body: unknown, reply: Reply): void {
    const [, id = '', what] = /^\/order\/([^/]+)\/(confirm|result)$/.exec(path.slice(agentRoot.length)) ?? []
    if (path === agentPaths.inventory) {
      const inventory = this.#check(inventorySchema, body)
      if (inventory === undefined) return reply('inventory', 400, {})
      this.inventories.push(inventory)
      return reply('inventory', 204)
    }
    if (path === agentPaths.order) {
      const order = this.orders.find((each) => !('id' in each) || this.resultOf(each.id) === undefined)
      if (order !== undefined && !('id' in order)) this.orders.splice(this.orders.indexOf(order), 1)
      return reply('order', 200, orderSchema.parse(order ?? { kind: 'wait', askAgainMs: 300 }))
    }
    if (path === agentPaths.heartbeat) {
      const beat = this.#check(heartbeatSchema, body)
      if (beat === undefined) return reply('heartbeat', 400, {})
      this.heartbeats.push(beat)
      if (beat.log !== undefined) this.console = this.console.slice(0, beat.log.offset) + beat.log.text
      return reply('heartbeat', 200, { stands: this.judge('confirm', body) !== 409 })
    }
    if (what !== undefined) return this.#answerAbout(id, what, body, reply)
    reply('file', 404, {})
  }

  #answerAbout(id: string, what: string, body: unknown, reply: Reply): void {
    if (what === 'confirm') {
      const asked = this.#check(confirmRequestSchema, body)
      if (asked !== undefined) this.confirmations.push({ id, ...asked })
      return reply('confirm', 200, { beginWithinMs: this.beginWithinMs })
    }
    const result = this.#check(resultSchema, body)
    if (result === undefined) return reply('result', 400, {})
    if (this.judge('result', body) === undefined) this.results.push({ id, result })
    reply('result', 204)
  }

  #check<Schema extends z.ZodType>(schema: Schema, body: unknown): z.output<Schema> | undefined {
    const parsed = schema.safeParse(body)
    if (parsed.success) return parsed.data
    this.violations.push(`${parsed.error.message} in ${JSON.stringify(body)}`)
    return undefined
  }
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let length = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length
    if (length > maxBodyBytes) throw new Error('an agent sent more than is allowed')
    chunks.push(chunk)
  }
  if (length === 0) return undefined
  try {
    return JSON.parse(Buffer.concat(chunks).toString())
  } catch {
    return Buffer.concat(chunks).toString()
  }
}
