import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'

/** Below those that systems give to connections that go out: one of these would take the port of a server while it is started again. */
const [lowest, highest] = [12_000, 32_000]
const maxTries = 100

/** A port on the loopback that nobody listens to, and that stays free while whoever has it is away. */
export async function freePort(): Promise<number> {
  for (let tries = 1; ; tries++) {
    const port = randomInt(lowest, highest)
    const server = createServer().listen(port, '127.0.0.1')
    try {
      await once(server, 'listening')
    } catch (error) {
      if (tries === maxTries) throw error
      continue
    }
    server.close()
    await once(server, 'close')
    return port
  }
}
