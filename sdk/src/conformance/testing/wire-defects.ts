import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import {
  HubMessageSchema,
  NackReason,
  ProviderMessageSchema,
  SessionRequestSchema,
  SessionResponseSchema,
  type HubMessage,
  type ProviderMessage,
  type SessionRequest,
  type SessionResponse,
} from '@slipway/proto/provider/v1'
import { dialSession, type ConnectOptions, type Dialed } from '../../internal/grpc.js'
import type { Defect } from './defects.js'

/** What becomes of a message on its way. */
type Bend<Message> = (message: Message) => readonly Message[]

interface Bent {
  readonly say: Bend<ProviderMessage>
  readonly hear: Bend<HubMessage>
}

/** Kept over all streams of the process. */
let reports = 0n

/** Opens a session on which the SDK's own words, and what it hears, are bent by a defect. */
export function dialBent(options: ConnectOptions, defect: Defect | undefined): Dialed {
  const dialed = dialSession(options)
  const { stream } = dialed
  const { say, hear } = bend(defect, (...messages) => {
    stream.emit('data', create(SessionResponseSchema, { messages }))
  })
  const write = stream.write.bind(stream) as (frame: SessionRequest, done: () => void) => boolean
  Object.assign(stream, {
    write: (frame: SessionRequest, done: () => void) =>
      write(create(SessionRequestSchema, { messages: frame.messages.flatMap(say) }), done),
  })
  const on = stream.on.bind(stream) as (event: string, listener: (...values: never[]) => void) => unknown
  Object.assign(stream, {
    on: (event: string, listener: (value: unknown) => void) =>
      event !== 'data'
        ? on(event, listener)
        : on(event, (frame: SessionResponse) => {
            const messages = frame.messages.flatMap(hear)
            if (messages.length > 0) listener(create(SessionResponseSchema, { messages }))
          }),
  })
  if (defect === 'ends-with-its-stream') stream.on('error', () => process.exit(3))
  return dialed
}

function bend(defect: Defect | undefined, tell: (...messages: HubMessage[]) => void): Bent {
  const say: Bend<ProviderMessage> = (message) => [message]
  const hear: Bend<HubMessage> = (message) => [message]
  switch (defect) {
    case 'is-another-on-each-stream':
    case 'hides-what-it-holds':
    case 'says-hello-twice':
      return { say: bendHello(defect), hear }
    case 'forgets-to-beat':
      return { say: dropHeartbeats(), hear }
    case 'counts-reports-over-all-streams':
    case 'keeps-its-first-fence':
      return { say: bendReports(defect), hear }
    case 'does-not-wait-for-acks':
    case 'says-nothing-again':
      return { say: ackAtOnce(tell), hear: drop('ack') }
    case 'never-lets-go':
      return { say: (message) => (message.body.case === 'release' ? [] : [message]), hear }
    case 'does-not-answer-configure':
    case 'says-yes-to-every-configuration':
      return { say: bendConfigured(defect), hear }
    case 'works-on-under-a-stale-fence':
      return { say, hear: ackWhatIsStale }
    case 'works-on-when-revoked':
      return { say, hear: (message) => (message.body.case === 'revoked' ? [] : ackWhatIsStale(message)) }
    case 'does-not-hear-of-new-wishes':
      return { say, hear: drop('desiredChanged') }
    case 'does-not-move-when-drained':
      return { say, hear: drop('drain') }
    case 'sends-consoles-beyond-their-credit':
      return { say, hear: giveCredit }
    case 'goes-on-with-a-closed-console':
      return { say, hear: drop('closeConsole') }
    case 'hides-a-gap':
      return { say: hideGaps, hear }
    case 'speaks-any-version':
      return { say, hear: takeAnyVersion }
    case 'dies-of-new-messages':
      return { say, hear: dieOfNews }
    default:
      return { say, hear }
  }
}

function bendHello(defect: Defect): Bend<ProviderMessage> {
  return (message) => {
    const { body } = message
    if (body.case !== 'hello') return [message]
    const again = defect === 'says-hello-twice' ? [message] : []
    if (defect === 'is-another-on-each-stream') body.value.instanceId = randomUUID()
    if (defect === 'hides-what-it-holds') body.value.holds = []
    return [message, ...again]
  }
}

function dropHeartbeats(): Bend<ProviderMessage> {
  let beats = 0
  return (message) => {
    if (message.body.case !== 'heartbeat') return [message]
    beats += 1
    return beats % 3 === 1 ? [message] : []
  }
}

function bendReports(defect: Defect): Bend<ProviderMessage> {
  return (message) => {
    const { body } = message
    if (body.case !== 'report') return [message]
    reports += 1n
    if (defect === 'counts-reports-over-all-streams') body.value.sequence = reports
    if (defect === 'keeps-its-first-fence') body.value.fence = 1n
    return [message]
  }
}

/** As if all that is said were stored at once: nothing is waited for, and nothing is said again. */
function ackAtOnce(tell: (...messages: HubMessage[]) => void): Bend<ProviderMessage> {
  return (message) => {
    const { body } = message
    if (body.case === 'report') {
      const { sequence } = body.value
      const ack = create(HubMessageSchema, { body: { case: 'ack', value: { sequence } } })
      // Marked, so that it is not taken for one of the hub's own.
      own.add(ack)
      setImmediate(() => tell(ack))
    }
    return [message]
  }
}

const own = new WeakSet<HubMessage>()

function drop(kind: HubMessage['body']['case']): Bend<HubMessage> {
  return (message) => (message.body.case === kind && !own.has(message) ? [] : [message])
}

function bendConfigured(defect: Defect): Bend<ProviderMessage> {
  return (message) => {
    const { body } = message
    if (body.case !== 'configured') return [message]
    if (defect === 'does-not-answer-configure') return []
    return [
      create(ProviderMessageSchema, { body: { case: 'configured', value: { version: body.value.version, ok: true } } }),
    ]
  }
}

function ackWhatIsStale(message: HubMessage): HubMessage[] {
  const { body } = message
  if (body.case !== 'nack' || body.value.reason !== NackReason.STALE_FENCE) return [message]
  const { sequence } = body.value
  return [create(HubMessageSchema, { body: { case: 'ack', value: { sequence } } })]
}

function giveCredit(message: HubMessage): HubMessage[] {
  if (message.body.case === 'openConsole') message.body.value.creditBytes = 1_000_000
  return [message]
}

function hideGaps(message: ProviderMessage): ProviderMessage[] {
  if (message.body.case === 'consoleData') message.body.value.gap = false
  return [message]
}

function takeAnyVersion(message: HubMessage): HubMessage[] {
  if (message.body.case === 'welcome') message.body.value.protocolVersion = 1
  return [message]
}

function dieOfNews(message: HubMessage): HubMessage[] {
  if (message.body.case === undefined) throw new Error('a message that makes no sense')
  return [message]
}
