import { create } from '@bufbuild/protobuf'
import { Client, credentials, Metadata, type ClientReadableStream } from '@grpc/grpc-js'
import * as hub from '@slipway/proto/hub/v1'
import { createSlipwayClient, type SlipwayClient } from '@slipway/sdk/client'
import { methodCodec } from '@slipway/sdk/testing'
import { startBare } from '../harness/bare.js'
import type { Bed } from '../harness/bed.js'
import type { Benchmark, Contender, Sample } from '../harness/benchmark.js'
import { until, type Child } from '../harness/child.js'
import { BenchHub } from '../harness/hub.js'
import { latencies } from '../harness/stats.js'

const codec = methodCodec(hub.HostService.method.watchHosts)
const watchersPerConnection = 200
const hostName = 'workspaces/default/hosts/watched'

/** Watchers over bare grpc-js, each of which says when it sees a change. */
class Watchers {
  readonly #clients: Client[] = []
  readonly #streams: ClientReadableStream<hub.WatchHostsResponse>[] = []
  #synced = 0
  #onSeen: (turn: string) => void = () => undefined

  static async open(url: string, token: string, count: number): Promise<Watchers> {
    const watchers = new Watchers()
    const metadata = new Metadata()
    metadata.set('authorization', `Bearer ${token}`)
    const request = create(hub.WatchHostsRequestSchema, { parent: 'workspaces/default' })
    for (let index = 0; index < count; index++) {
      if (index % watchersPerConnection === 0)
        watchers.#clients.push(
          new Client(url.replace('http://', ''), credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 }),
        )
      const stream = watchers.#clients
        .at(-1)
        ?.makeServerStreamRequest(codec.path, codec.serializeRequest, codec.deserializeResponse, request, metadata)
      if (stream === undefined) throw new Error('no connection')
      stream.on('data', (message: hub.WatchHostsResponse) => watchers.#see(message))
      stream.on('error', () => undefined)
      watchers.#streams.push(stream)
    }
    await until('all watchers to be in step', () => watchers.#synced === count)
    return watchers
  }

  /** Resolves with the time that each watcher took to see a change, once all have. */
  seen(turn: string): Promise<number[]> {
    const start = performance.now()
    const lags: number[] = []
    return new Promise((resolve) => {
      this.#onSeen = (seenTurn) => {
        if (seenTurn !== turn) return
        lags.push(performance.now() - start)
        if (lags.length === this.#streams.length) resolve(lags)
      }
    })
  }

  close(): void {
    for (const stream of this.#streams) stream.cancel()
    for (const client of this.#clients) client.close()
  }

  #see(message: hub.WatchHostsResponse): void {
    if (message.synced) this.#synced++
    for (const change of message.changes) this.#onSeen(change.host?.annotations['turn'] ?? '')
  }
}

function contender(
  bed: Bed,
  series: string,
  server: { readonly child: Child; readonly url: string; readonly token: string; readonly client: SlipwayClient },
  count: number,
): Contender {
  return {
    series,
    case: `${count} watchers`,
    async run(round): Promise<Sample> {
      const watchers = await Watchers.open(server.url, server.token, count)
      const changes = bed.size(count === 1_000 ? 100 : 300, 5)
      const lags: number[] = []
      const cpu = server.child.cpuMs()
      const start = performance.now()
      for (let change = 0; change < changes; change++) {
        const turn = `${round}-${count}-${change}`
        const seen = watchers.seen(turn)
        await server.client.hosts.updateHost({
          host: { name: hostName, annotations: { turn } },
          updateMask: { paths: ['annotations'] },
        })
        lags.push(...(await seen))
      }
      const elapsed = performance.now() - start
      const cpuMs = server.child.cpuMs() - cpu
      watchers.close()
      return {
        'deliveries/s': (lags.length / elapsed) * 1_000,
        'CPU µs': (cpuMs * 1_000) / lags.length,
        ...latencies('lag', lags),
      }
    },
  }
}

export const watch: Benchmark = {
  name: 'watch',
  title: 'Fan-out of changes',
  about:
    'One change of a host, sent again as soon as all watchers have seen the last one: how long after the call went out each watcher sees it, the CPU of the hub for each delivery, and deliveries per second. Beside it a bare connect-node server that hands each update to its watchers from memory and stores nothing.',
  goals: [
    {
      text: 'at most 1.5 × the CPU of a bare Connect stream',
      series: 'hub',
      case: '1000 watchers',
      metric: 'CPU µs',
      of: 'bare Connect',
      atMost: 1.5,
    },
  ],
  charts: [
    { metric: 'lag p50 ms', title: 'Lag of a change, p50, ms' },
    { metric: 'CPU µs', title: 'CPU for one delivery, µs' },
  ],
  async prepare(bed) {
    const slipway = await BenchHub.start(bed)
    await slipway.client.providers.createProvider({ providerId: 'bench', provider: { family: 'bench', kind: 2 } })
    await slipway.addClass('bench', 'bench')
    await slipway.client.hosts.createHost({
      parent: 'workspaces/default',
      hostId: 'watched',
      host: { machineClass: 'machineClasses/bench' },
    })
    const bare = await startBare(bed, 'watch')
    const servers = {
      hub: slipway,
      'bare Connect': { ...bare, token: 'none', client: createSlipwayClient({ baseUrl: bare.url, token: 'none' }) },
    }
    const counts = bed.effort.quick ? [10] : [10, 100, 1_000]
    return {
      contenders: counts.flatMap((count) =>
        Object.entries(servers).map(([series, server]) => contender(bed, series, server, count)),
      ),
      close: async () => undefined,
    }
  },
}
