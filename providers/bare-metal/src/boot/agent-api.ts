import type { IncomingMessage, ServerResponse } from 'node:http'
import type { z } from 'zod'
import {
  agentPaths,
  agentRoot,
  agentVersion,
  confirmRequestSchema,
  heartbeatSchema,
  inventorySchema,
  maxBodyBytes,
  orderIdSchema,
  resultSchema,
  sessionRequestSchema,
  type Heartbeat,
  type Inventory,
  type SessionAnswer,
} from '../agent/protocol.js'
import type { AgentDesk } from './agent-desk.js'
import type { Boot, Boots } from './boots.js'
import { HttpRefusal, readJson, sendJson } from './http-answer.js'
import { openSession, sealSession } from './sessions.js'

export interface AgentApiOptions {
  readonly boots: Boots
  readonly desk: AgentDesk
  /** Seals sessions. */
  readonly key: Buffer
  readonly heartbeatMs: number
  readonly nowMs: () => number
  /** Returns when what the boots say is on disk. */
  readonly save: () => Promise<void>
  /** A machine says what it is made of. @returns under which name it goes from now on. @throws HttpRefusal where it is not who it should be. */
  readonly onInventory: (boot: Boot, inventory: Inventory) => Promise<string>
  readonly onHeartbeat: (machineId: string, beat: Heartbeat) => void
}

/** The name under which the agent of a machine that is not known yet waits. */
export function unknownName(boot: Boot): string {
  return boot.machineId ?? `unknown ${boot.mac}`
}

const leastBeginMs = 100
const mostBeginMs = 60_000
const orderPattern = new RegExp(`^${agentRoot}/order/([^/]+)/(confirm|result)$`)

/** The provider's half of the agent's contract. */
export class AgentApi {
  readonly #options: AgentApiOptions

  constructor(options: AgentApiOptions) {
    this.#options = options
  }

  /** Whether a path is below the agent's root. */
  static owns(path: string): boolean {
    return path.startsWith(`${agentRoot}/`)
  }

  /** The boot that a request's secret is of. @throws HttpRefusal 401. */
  authenticate(request: IncomingMessage): Boot {
    const [scheme, secret = ''] = (request.headers.authorization ?? '').split(' ')
    const bootId = scheme?.toLowerCase() === 'bearer' ? openSession(this.#options.key, secret) : undefined
    const boot = bootId === undefined ? undefined : this.#options.boots.session(bootId)
    if (boot === undefined)
      throw new HttpRefusal(401, 'there is no such session', bootId === undefined ? 'forged-session' : undefined)
    return boot
  }

  async handle(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method } = request
    if (path === agentPaths.session && method === 'POST') return this.#session(request, response)
    const boot = this.authenticate(request)
    const nowMs = this.#options.nowMs()
    this.#options.boots.seen(boot.bootId, nowMs)
    if (path === agentPaths.inventory && method === 'POST') return this.#inventory(boot, request, response)
    if (path === agentPaths.heartbeat && method === 'POST') return this.#heartbeat(boot, request, response)
    if (path === agentPaths.order && method === 'GET') return this.#order(boot, response)
    const [, id, verb] = orderPattern.exec(path) ?? []
    const orderId = orderIdSchema.safeParse(id)
    if (!orderId.success || method !== 'POST') throw new HttpRefusal(404, 'there is nothing here')
    if (verb === 'confirm') return this.#confirm(boot, orderId.data, request, response)
    return this.#result(boot, orderId.data, request, response)
  }

  async #session(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { boots, key, heartbeatMs, save, desk } = this.#options
    const said = await readAs(sessionRequestSchema, request)
    if (said.version !== agentVersion)
      throw new HttpRefusal(426, `this is version ${agentVersion} of the contract, and not ${said.version}`)
    const nowMs = this.#options.nowMs()
    const redeemed = boots.redeem(said.token, { bootMac: said.bootMac, uuid: said.uuid }, nowMs)
    if (redeemed.outcome === 'refused')
      throw new HttpRefusal(403, 'the token is refused', redeemed.rogue ?? 'refused-token')
    // On disk before it is answered: a token that was used stays used.
    await save()
    desk.arrive(unknownName(redeemed.boot), redeemed.boot.bootId, nowMs)
    const answer: SessionAnswer = {
      version: agentVersion,
      session: sealSession(key, redeemed.boot.bootId),
      heartbeatMs,
    }
    sendJson(response, 200, answer)
  }

  async #inventory(boot: Boot, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const inventory = await readAs(inventorySchema, request)
    const name = await this.#options.onInventory(boot, inventory)
    this.#options.desk.inventory(name, boot.bootId, inventory, this.#options.nowMs())
    noContent(response)
  }

  async #heartbeat(boot: Boot, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const beat = await readAs(heartbeatSchema, request)
    const name = unknownName(boot)
    const outcome = this.#options.desk.heartbeat(name, boot.bootId, beat, this.#options.nowMs())
    this.#options.onHeartbeat(name, beat)
    if (outcome === 'later') throw new HttpRefusal(503, 'whether the order stands cannot be told now')
    sendJson(response, 200, { stands: outcome === 'stands' })
  }

  #order(boot: Boot, response: ServerResponse): void {
    const order = this.#options.desk.order(unknownName(boot), boot.bootId, this.#options.nowMs())
    sendJson(response, 200, order)
  }

  async #confirm(boot: Boot, orderId: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const askedByMs = performance.now()
    const { authority } = await readAs(confirmRequestSchema, request)
    const standing = await this.#options.desk.confirm(unknownName(boot), orderId, authority).catch(() => undefined)
    // Who is not sure does not let anybody touch a disk.
    if (standing?.outcome !== 'stands' || standing.leftMs < leastBeginMs)
      throw new HttpRefusal(standing?.outcome === 'later' ? 503 : 409, 'the order does not stand')
    // The agent counts from when it asked, which was before: what the answer took is not to be taken off twice.
    const beginWithinMs = Math.floor(standing.leftMs + performance.now() - askedByMs)
    sendJson(response, 200, { beginWithinMs: Math.min(mostBeginMs, beginWithinMs) })
  }

  async #result(boot: Boot, orderId: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const result = await readAs(resultSchema, request)
    if (!this.#options.desk.ended(unknownName(boot), boot.bootId, orderId, result, this.#options.nowMs()))
      throw new HttpRefusal(503, 'nobody waits for this result now')
    noContent(response)
  }
}

async function readAs<Schema extends z.ZodType>(schema: Schema, request: IncomingMessage): Promise<z.infer<Schema>> {
  const parsed = schema.safeParse(await readJson(request, maxBodyBytes))
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new HttpRefusal(400, `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'not of this contract'}`)
}

function noContent(response: ServerResponse): void {
  response.writeHead(204, { 'cache-control': 'no-store' })
  response.end()
}
