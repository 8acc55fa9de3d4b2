import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { parseAnswer, parseRequest } from './tftp-packet.js'
import { TftpServer } from './tftp-server.js'
import { TftpTransfer } from './tftp-transfer.js'

function readRequest(file: string, options: Readonly<Record<string, string>> = {}, mode = 'octet'): Buffer {
  const pairs = Object.entries(options)
    .map(([name, value]) => `${name}\0${value}\0`)
    .join('')
  return Buffer.concat([Buffer.from([0, 1]), Buffer.from(`${file}\0${mode}\0${pairs}`, 'latin1')])
}

function ack(block: number): Buffer {
  return Buffer.from([0, 4, block >> 8, block & 255])
}

/** Receives a whole transfer without a network. @param drop says which datagrams are lost, in the order in which they are sent. */
function receiveAll(
  data: Buffer,
  options: ReadonlyMap<string, string>,
  drop: (n: number) => boolean,
): Buffer | undefined {
  const transfer = new TftpTransfer(data, options)
  const got: Buffer[] = []
  let expected = options.size > 0 ? 0 : 1
  let blockBytes = 512
  let sent = 0
  let step = transfer.start()
  for (let round = 0; round < 4_000; round += 1) {
    let answer: Buffer | undefined
    for (const bytes of step.send) {
      sent += 1
      if (drop(sent)) continue
      const code = bytes.readUInt16BE(0)
      if (code === 6) {
        const parts = bytes.subarray(2).toString('latin1').split('\0')
        const at = parts.indexOf('blksize')
        if (at >= 0) blockBytes = Number(parts[at + 1])
        expected = 1
        answer = ack(0)
      } else if (code === 3 && bytes.readUInt16BE(2) === expected % 65_536) {
        got.push(bytes.subarray(4))
        answer = ack(expected % 65_536)
        expected += 1
        if (bytes.length - 4 < blockBytes) {
          transfer.receive(answer)
          return Buffer.concat(got)
        }
      }
    }
    sent += 1
    step = answer === undefined || drop(sent) ? transfer.timeout() : transfer.receive(answer)
    if (step.ended === 'timeout') return undefined
    if (step.send.length === 0) step = transfer.timeout()
  }
  return undefined
}

void t.test('files arrive whole, whatever was agreed and whatever was lost', (t) => {
  const options = fc
    .record(
      {
        blksize: fc.integer({ min: 8, max: 2000 }),
        windowsize: fc.integer({ min: 1, max: 20 }),
        tsize: fc.constant(0),
      },
      { requiredKeys: [] },
    )
    .map((record) => new Map(Object.entries(record).map(([name, value]) => [name, String(value)])))
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 6_000 }),
      options,
      fc.integer({ min: 5, max: 40 }),
      (bytes, agreed, every) => {
        const data = Buffer.from(bytes)
        const received = receiveAll(data, agreed, (n) => n % every === 0)
        return received?.equals(data) === true
      },
    ),
    { numRuns: 300 },
  )
  t.end()
})

void t.test('numbers of blocks begin again after 65 535', (t) => {
  const data = Buffer.alloc(8 * 70_000 + 3, 7)
  const transfer = new TftpTransfer(data, new Map([['blksize', '8']]))
  transfer.start()
  let step = transfer.receive(ack(0))
  let bytes = 0
  for (let block = 1; step.ended === undefined; block += 1) {
    bytes += (step.send[0]?.length ?? 4) - 4
    step = transfer.receive(ack(block % 65_536))
    if (block > 80_000) break
  }
  t.equal(step.ended, 'done')
  t.equal(bytes, data.length)
  t.end()
})

void t.test('a client that says nothing is left alone after a while', (t) => {
  const transfer = new TftpTransfer(Buffer.alloc(10), new Map())
  transfer.start()
  let steps = 0
  while (transfer.timeout().ended === undefined) steps += 1
  t.equal(steps, 6)
  t.same(transfer.timeout().send, [], 'and nothing comes after the end')
  t.end()
})

void t.test('requests', (t) => {
  t.match(parseRequest(readRequest('undionly.kpxe', { BLKSIZE: '1468', tsize: '0' })), {
    request: 'read',
    file: 'undionly.kpxe',
    options: new Map([
      ['blksize', '1468'],
      ['tsize', '0'],
    ]),
  })
  t.match(parseRequest(Buffer.from('\0\x02x\0octet\0', 'latin1')), { request: 'refused', message: /written/ })
  t.match(parseRequest(readRequest('x', {}, 'netascii')), { request: 'refused' })
  t.match(parseRequest(readRequest('a b')), { request: 'refused' })
  t.match(parseRequest(Buffer.from('\0\x01x\0octet\0blksize\0', 'latin1')), { request: 'refused' })
  t.match(parseRequest(Buffer.from('\0\x01x\0octet\0blksize\x008\0blksize\x009\0', 'latin1')), { request: 'refused' })
  t.equal(parseRequest(Buffer.from('\0\x05\0\0', 'latin1')), undefined)
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      const request = parseRequest(Buffer.from(bytes))
      parseAnswer(Buffer.from(bytes))
      return request === undefined || request.request === 'refused' || !/[\0-\x20\x7f-\xff]/.test(request.file)
    }),
    { numRuns: 10_000 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (tail) => {
      const request = parseRequest(Buffer.concat([Buffer.from([0, 1]), Buffer.from(tail)]))
      return request === undefined || 'request' in request
    }),
    { numRuns: 10_000 },
  )
  t.end()
})

interface Served {
  readonly server: TftpServer
  readonly client: Socket
  readonly rogues: string[]
  readonly ask: (bytes: Buffer) => Promise<Buffer>
}

async function serve(t: Test, files: Readonly<Record<string, Buffer>>): Promise<Served> {
  const rogues: string[] = []
  const server = await TftpServer.listen({
    host: '127.0.0.1',
    port: 0,
    files: new Map(Object.entries(files)),
    onRogue: (kind, _address, message) => rogues.push(`${kind} ${message}`),
    onSent: () => undefined,
    onError: (error) => t.fail(String(error)),
    retryMs: 100,
  })
  const client = createSocket('udp4')
  client.bind(0, '127.0.0.1')
  await once(client, 'listening')
  t.teardown(async () => {
    client.close()
    await server.close()
  })
  const ask = async (bytes: Buffer): Promise<Buffer> => {
    client.send(bytes, server.port, '127.0.0.1')
    const [answer] = (await once(client, 'message')) as [Buffer]
    return answer
  }
  return { server, client, rogues, ask }
}

void t.test('a file goes over the wire, and what sends it ends', async (t) => {
  const data = Buffer.alloc(3_000, 'slipway')
  const { server, client } = await serve(t, { 'undionly.kpxe': data })
  client.send(readRequest('/undionly.kpxe', { blksize: '1024', tsize: '0' }), server.port, '127.0.0.1')
  const got: Buffer[] = []
  for (;;) {
    const [bytes, from] = (await once(client, 'message')) as [Buffer, { port: number }]
    t.not(from.port, server.port, 'a port of its own')
    if (bytes.readUInt16BE(0) === 6) {
      t.match(bytes.toString('latin1'), /blksize\0(1024)\0tsize\0(3000)\0/)
      client.send(ack(0), from.port, '127.0.0.1')
      continue
    }
    if (got.length < bytes.readUInt16BE(2)) got.push(bytes.subarray(4))
    client.send(ack(bytes.readUInt16BE(2)), from.port, '127.0.0.1')
    if (bytes.length < 1028) break
  }
  t.ok(Buffer.concat(got).equals(data))
  while (server.active > 0) await new Promise((resolve) => setTimeout(resolve, 5))
})

void t.test('there is no way to anything else', async (t) => {
  const { ask, rogues, server } = await serve(t, { 'undionly.kpxe': Buffer.from('x') })
  const tricks = [
    '../etc/passwd',
    '/../../etc/passwd',
    '..\\..\\boot.ini',
    '//etc/passwd',
    'undionly.kpxe/../x',
    '%2e%2e/x',
    '/etc/passwd',
    './undionly.kpxe',
    'C:\\x',
  ]
  for (let n = 0; n < 1_000; n += 1) {
    const answer = await ask(readRequest(tricks[n % tricks.length] ?? ''))
    if (answer.readUInt16BE(0) !== 5) t.fail(`an answer to ${tricks[n % tricks.length]}`)
  }
  t.equal(rogues.length, 1_000)
  t.equal((await ask(readRequest('toString'))).readUInt16BE(2), 1, 'not found')
  t.equal((await ask(Buffer.from('\0\x02undionly.kpxe\0octet\0', 'latin1'))).readUInt16BE(2), 2, 'nothing is written')
  t.equal(server.active, 0)
})
