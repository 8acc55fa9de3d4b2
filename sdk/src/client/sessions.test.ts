import { once } from 'node:events'
import { createServer, type ClientHttp2Stream, type ServerHttp2Session } from 'node:http2'
import type { AddressInfo } from 'node:net'
import t from 'tap'
import { Sessions } from './sessions.js'

void t.test(
  'a hub that closes an idle connection, as it does when it shuts down, does not end its caller',
  async (t) => {
    const server = createServer((request, response) => void request.resume().on('end', () => response.end('answer')))
    const open = new Set<ServerHttp2Session>()
    server.on('session', (session) => open.add(session))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const sessions = new Sessions(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    t.teardown(() => {
      sessions.abort()
      server.close()
    })
    const thrown: unknown[] = []
    const onThrown = (error: unknown) => thrown.push(error)
    process.on('uncaughtException', onThrown)
    t.teardown(() => process.off('uncaughtException', onThrown))
    const answer = async (stream: ClientHttp2Stream) => {
      const ended = new Promise((resolve) => stream.once('close', resolve))
      stream.end()
      const said = (await stream.setEncoding('utf8').toArray()).join('')
      await ended
      return said
    }

    let stream = await sessions.request('POST', '/', {}, {})
    for (let time = 0; time < 20; time++) {
      const { session } = stream
      if (session === undefined) throw new Error('the stream has no session')
      t.equal(await answer(stream), 'answer')
      const closed = new Promise((resolve) => session.once('close', resolve))
      // The next call comes just when the connection ends.
      const next = once(session, 'goaway').then(() => sessions.request('POST', '/', {}, {}))
      for (const one of open) if (!one.closed) one.goaway()
      stream = await next
      await closed
    }
    t.equal(await answer(stream), 'answer')
    t.strictSame(thrown, [])
  },
)
