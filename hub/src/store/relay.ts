import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import type { Logger } from 'pino'
import { failpoint } from '../observe/failpoint.js'
import type { Wake, WakeTopic } from './wake.js'

const channel = 'slipway_wake'
/** Signals of one moment go out together: a NOTIFY for each commit would serialise all commits. */
const gatherMs = 2
const reconnectMs = 1_000
const maxTopicsLength = 7_000

export interface Relay {
  stop(): Promise<void>
}

/** Carries wake-ups between replicas over one connection of its own. While that is down, the others find their work by looking. */
export function startRelay(connectionString: string, wake: Wake, replica: string, log: Logger): Relay {
  const pending = new Set<string>()
  let client: pg.Client | undefined
  let stopped = false
  let timer: NodeJS.Timeout | undefined
  let sending = false

  // One at a time: a connection runs one statement after the other, and what comes meanwhile goes out together after it.
  const send = async (): Promise<void> => {
    timer = undefined
    if (sending) return
    sending = true
    while (pending.size > 0) {
      const topics = takeBatch(pending)
      await notify(client, topics)
    }
    sending = false
  }
  const notify = async (listener: pg.Client | undefined, topics: readonly string[]): Promise<void> => {
    if (listener === undefined) return
    const payload = JSON.stringify({ from: replica, topics })
    try {
      await failpoint('hub.wake.before-notify')
      await listener.query('select pg_notify($1, $2)', [channel, payload])
    } catch (error) {
      log.debug({ err: error }, 'a wake-up was lost')
    }
  }
  wake.attachRelay((topic) => {
    pending.add(encode(topic))
    timer ??= setTimeout(() => void send(), gatherMs)
  })

  const connect = async (): Promise<void> => {
    const next = new pg.Client({ connectionString, keepAlive: true, application_name: 'slipway-hub relay' })
    const broken = new Promise<void>((resolve) => {
      next.on('error', () => resolve())
      next.on('end', () => resolve())
    })
    next.on('notification', (message) => receive(message.payload ?? '', wake, replica))
    await next.connect()
    await next.query(`listen ${channel}`)
    client = next
    // Whatever was signalled while nobody listened.
    wake.signalLocally({ kind: 'host' })
    wake.signalLocally({ kind: 'claim' })
    wake.signalLocally({ kind: 'access' })
    wake.signalLocally({ kind: 'change' })
    await broken
    client = undefined
  }
  const running = (async () => {
    while (!stopped) {
      try {
        await connect()
      } catch (error) {
        log.warn({ err: error }, 'cannot listen for wake-ups now')
      }
      if (!stopped) await sleep(reconnectMs * (0.5 + Math.random()), undefined, { ref: false })
    }
  })()
  return {
    stop: async () => {
      stopped = true
      clearTimeout(timer)
      await client?.end().catch(() => undefined)
      await Promise.race([running, sleep(100)])
    },
  }
}

/** Takes as many as fit into one payload, which PostgreSQL limits to 8000 bytes. */
function takeBatch(pending: Set<string>): string[] {
  const topics: string[] = []
  let length = 0
  for (const topic of pending) {
    length += topic.length + 3
    if (topics.length > 0 && length > maxTopicsLength) break
    topics.push(topic)
    pending.delete(topic)
  }
  return topics
}

function encode(topic: WakeTopic): string {
  if (topic.kind === 'console') return `console:${topic.sessionId}:${topic.streamId}:${topic.address}`
  return 'providerId' in topic ? `${topic.kind}:${topic.providerId}` : topic.kind
}

function receive(payload: string, wake: Wake, replica: string): void {
  let message: { from?: unknown; topics?: unknown }
  try {
    message = JSON.parse(payload) as typeof message
  } catch {
    return
  }
  if (message.from === replica || !Array.isArray(message.topics)) return
  for (const text of message.topics as unknown[]) {
    const [kind, providerId = '', streamId = '', ...address] = String(text).split(':')
    if (kind === 'host' || kind === 'change' || kind === 'claim' || kind === 'access') wake.signalLocally({ kind })
    else if (kind === 'work' || kind === 'provider') wake.signalLocally({ kind, providerId })
    else if (kind === 'console')
      wake.signalLocally({ kind, sessionId: providerId, streamId, address: address.join(':') })
  }
}
