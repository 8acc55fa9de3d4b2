import { createServer } from 'node:http2'
import { create } from '@bufbuild/protobuf'
import { connectNodeAdapter } from '@connectrpc/connect-node'
import * as hub from '@slipway/proto/hub/v1'
import { readSettings, up } from './serving.js'

// A bare fan-out: whoever watches gets every update that is sent, from memory. What connect-node alone costs.

interface Watcher {
  readonly queue: hub.Host[]
  wake: () => void
}

const watchers = new Set<Watcher>()

const handler = connectNodeAdapter({
  acceptCompression: [],
  routes: (router) =>
    router.service(hub.HostService, {
      updateHost(request) {
        const host = request.host ?? create(hub.HostSchema)
        for (const watcher of watchers) {
          watcher.queue.push(host)
          watcher.wake()
        }
        return { host }
      },
      async *watchHosts(_request, context) {
        const watcher: Watcher = { queue: [], wake: () => undefined }
        watchers.add(watcher)
        context.signal.addEventListener('abort', () => watcher.wake())
        try {
          yield { synced: true }
          while (!context.signal.aborted) {
            const hosts = watcher.queue.splice(0)
            if (hosts.length > 0) yield { changes: hosts.map((host) => ({ type: hub.ChangeType.UPDATED, host })) }
            else await new Promise<void>((resolve) => (watcher.wake = resolve))
          }
        } finally {
          watchers.delete(watcher)
        }
      },
    }),
})
createServer({ settings: { maxConcurrentStreams: 10_000 } }, handler).listen(
  readSettings().apiPort ?? 0,
  '127.0.0.1',
  up,
)
