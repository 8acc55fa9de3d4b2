import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2'
import { Http2SessionManager } from '@connectrpc/connect-node'

const guarded = new WeakSet<ClientHttp2Session>()

/**
 * Connections to a hub. A hub that shuts down says so on idle ones (GOAWAY), and the library then ends them with an error that nobody may listen to any more when it comes: it
 * would end the process of whoever calls. https://github.com/connectrpc/connect-es/issues/1768
 */
export class Sessions extends Http2SessionManager {
  override async request(...args: Parameters<Http2SessionManager['request']>): Promise<ClientHttp2Stream> {
    const stream = await super.request(...args)
    const { session } = stream
    if (session !== undefined && !guarded.has(session as ClientHttp2Session)) {
      guarded.add(session as ClientHttp2Session)
      // Whoever has a call under way there is told by its stream.
      session.on('error', () => undefined)
    }
    return stream
  }
}
