import { randomUUID } from 'node:crypto'
import { create } from '@bufbuild/protobuf'
import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js'
import * as hub from '@slipway/proto/hub/v1'
import { ClaimedSchema, Operation, Presence, type HubMessage, type SessionRequest } from '@slipway/proto/provider/v1'
import pg from 'pg'
import { Batcher } from './batcher.js'
import {
  ack,
  bind,
  readSettings,
  serveSessions,
  serviceDefinition,
  up,
  welcome,
  write,
  type Stream,
} from './serving.js'

// A bare hub: orders and reports over grpc-js into one table, gathered by turns of the event loop, with wake-ups inside the process. It checks nothing, places
// nothing and tells nobody: what is left is the least that a durable lifecycle costs on the same parts.

const settings = readSettings()
const claimAtMost = 200
const pool = new pg.Pool({ connectionString: settings.databaseUrl ?? '', max: 10 })

await pool.query(`
  create table if not exists jobs (
    id uuid primary key, name text not null unique, spec jsonb not null, state text not null default 'PENDING',
    due_at timestamptz, session_id uuid, fence bigint not null default 0, external_id text,
    created_at timestamptz not null default now(), updated_at timestamptz not null default now()
  ) with (fillfactor = 70)`)
await pool.query(`create index if not exists jobs_due on jobs (due_at) where session_id is null and due_at is not null`)

interface Session {
  readonly id: string
  readonly stream: Stream
  capacity: number
}

const sessions: Session[] = []
let nextSession = 0

interface Order {
  readonly name: string
  readonly spec: string
}

const orders = new Batcher<Order, void>(async (batch) => {
  await pool.query({
    name: 'insert',
    text: `insert into jobs (id, name, spec, due_at) select id, name, spec, clock_timestamp()
           from unnest($1::uuid[], $2::text[], $3::jsonb[]) as o (id, name, spec)`,
    values: [batch.map(() => randomUUID()), batch.map(({ name }) => name), batch.map(({ spec }) => spec)],
  })
  dispatch()
  return batch.map(() => undefined)
}, 2)

interface Done {
  readonly id: string
  readonly fence: bigint
  readonly externalId: string
}

const reports = new Batcher<Done, void>(async (batch) => {
  await pool.query({
    name: 'finish',
    text: `update jobs set state = 'DONE', external_id = d.external_id, session_id = null, due_at = null, updated_at = clock_timestamp()
           from unnest($1::uuid[], $2::bigint[], $3::text[]) as d (id, fence, external_id)
           where jobs.id = d.id and jobs.fence = d.fence`,
    values: [
      batch.map(({ id }) => id),
      batch.map(({ fence }) => String(fence)),
      batch.map(({ externalId }) => externalId),
    ],
  })
  return batch.map(() => undefined)
}, 2)

let dispatching = false
let again = false

function dispatch(): void {
  again = true
  if (dispatching) return
  dispatching = true
  void (async () => {
    while (again) {
      again = false
      if ((await claim()) === claimAtMost) again = true
    }
    dispatching = false
  })()
}

async function claim(): Promise<number> {
  const owner = sessions[nextSession % sessions.length]
  if (owner === undefined) return 0
  const { rows } = await pool.query<{ id: string; name: string; fence: string }>({
    name: 'claim',
    text: `with due as (
             select id from jobs where session_id is null and due_at is not null and due_at <= clock_timestamp()
             order by due_at limit ${claimAtMost} for update skip locked
           )
           update jobs set session_id = $1, state = 'CLAIMED', fence = fence + 1, updated_at = clock_timestamp()
           from due where jobs.id = due.id returning jobs.id, jobs.name, jobs.fence`,
    values: [owner.id],
  })
  const frames = new Map<Session, HubMessage['body'][]>()
  for (const row of rows) {
    const session = sessions[nextSession++ % sessions.length] ?? owner
    const frame = frames.get(session) ?? []
    frames.set(session, frame)
    frame.push({
      case: 'claimed',
      value: create(ClaimedSchema, {
        item: { kind: 1, id: row.id },
        fence: BigInt(row.fence),
        desired: {
          generation: 1n,
          operation: Operation.PROVISION,
          operationGeneration: 1n,
          presence: Presence.PRESENT,
          spec: { name: row.name, host: { host: row.name } },
        },
      }),
    })
  }
  for (const [session, frame] of frames) write(session.stream, frame)
  return rows.length
}

await serveSessions(settings, (stream) => {
  const session: Session = { id: randomUUID(), stream, capacity: 0 }
  const receive = ({ body }: SessionRequest['messages'][number]): void => {
    if (body.case === 'hello') write(stream, [welcome()])
    else if (body.case === 'ready') {
      sessions.push(session)
      dispatch()
    } else if (body.case === 'report') {
      const { item, fence, observed, sequence } = body.value
      void reports
        .add({ id: item?.id ?? '', fence, externalId: observed?.externalId ?? '' })
        .then(() => write(stream, [ack(sequence)]))
    }
  }
  stream.on('data', (frame: SessionRequest) => frame.messages.forEach(receive))
  stream.on('error', () => undefined)
  stream.on('end', () => {
    const at = sessions.indexOf(session)
    if (at !== -1) sessions.splice(at, 1)
    stream.end()
  })
})

const api = new Server()
api.addService(serviceDefinition(hub.HostService), {
  createHost: (
    call: ServerUnaryCall<hub.CreateHostRequest, hub.CreateHostResponse>,
    callback: sendUnaryData<hub.CreateHostResponse>,
  ) => {
    const { parent, hostId, host } = call.request
    const name = `${parent}/hosts/${hostId}`
    orders.add({ name, spec: JSON.stringify({ machineClass: host?.machineClass }) }).then(
      () => callback(null, create(hub.CreateHostResponseSchema, { host: { name } })),
      (error: unknown) => callback({ code: 13, message: String(error) }),
    )
  },
})
await bind(api, settings.apiPort ?? 0, ServerCredentials.createInsecure())
up()
