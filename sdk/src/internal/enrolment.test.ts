import { execFile } from 'node:child_process'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { status } from '@grpc/grpc-js'
import { pino, type Logger } from 'pino'
import t from 'tap'
import { TestAuthority } from '../conformance/gateway/authority.js'
import { TestCloud } from '../testing/cloud.js'
import { readySession, startGateway, startProvider, tempDir } from '../testing/provider.js'
import { until } from '../testing/until.js'
import { failpoint, parseFailpoints } from './failpoint.js'
import { parseGateway } from './grpc.js'
import { loadIdentity, saveIdentity } from './identity.js'
import { parseJoinToken } from './join-token.js'
import { FinalError, rpcFailure } from './rpc-error.js'

/** A log that can be looked at. */
function listener(): { readonly lines: string[]; readonly log: Logger } {
  const lines: string[] = []
  return { lines, log: pino({}, { write: (line: string) => lines.push(line) }) }
}

void t.test('a join token is read, and never repeated in an error', async (t) => {
  const pin = 'ab'.repeat(32)
  t.equal(parseJoinToken(`  swj_0123456789abcdef012345_${'cd'.repeat(16)}_${pin}\n`).caPin, pin)
  for (const bad of [
    '',
    'swj_',
    `swj_01234567_${'cd'.repeat(16)}_abc`,
    `swx_01234567_${'cd'.repeat(16)}_${pin}`,
    'secret-secret',
  ]) {
    t.throws(() => parseJoinToken(bad), {
      name: 'FinalError',
      reason: 'JOIN_TOKEN_INVALID',
      message: /slipway provider token/,
    })
    try {
      parseJoinToken(bad)
    } catch (error) {
      if (bad.length > 4) t.notOk((error as Error).message.includes(bad))
    }
  }
})

void t.test('a gateway address is host and port', async (t) => {
  t.same(parseGateway('hub.example.org:8443'), { host: 'hub.example.org', port: 8443 })
  t.same(parseGateway('[2001:db8::1]:1'), { host: '2001:db8::1', port: 1 })
  for (const bad of ['hub', 'https://hub:1', 'hub:0', 'hub:65536', '2001:db8::1:1', ':1', 'a b:1']) {
    t.throws(() => parseGateway(bad), { reason: 'GATEWAY_INVALID', message: /host:port/ }, bad)
  }
})

void t.test('enrols once, keeps its identity to itself, and comes back with it', async (t) => {
  const gateway = await startGateway(t)
  const cloud = new TestCloud()
  const first = await startProvider(t, gateway, cloud.provider())
  await readySession(gateway)
  t.equal(gateway.enrolments.length, 1)
  t.match(gateway.enrolments[0]?.joinToken, /^swj_/)
  t.equal((await stat(first.stateDir)).mode & 0o777, 0o700)
  t.same(await readdir(first.stateDir), ['identity.json'], 'no temporary file is left')
  t.equal((await stat(join(first.stateDir, 'identity.json'))).mode & 0o777, 0o600)
  await first.stop()

  await startProvider(t, gateway, cloud.provider(), { stateDir: first.stateDir })
  const session = await readySession(gateway, 2)
  t.equal(gateway.enrolments.length, 1, 'the join token is not used again')
  t.equal(session.fingerprint, gateway.sessions[0]?.fingerprint)
  t.not(session.hello.instanceId, gateway.sessions[0]?.hello.instanceId, 'each process has an id of its own')
})

void t.test('refuses a hub that has not the pinned key, and sends it nothing', async (t) => {
  const gateway = await startGateway(t)
  const other = await TestAuthority.create()
  const running = await startProvider(t, gateway, new TestCloud().provider(), {
    joinToken: gateway.joinToken(other.pin),
  })
  await t.rejects(running.ended, {
    name: 'FinalError',
    reason: 'HUB_NOT_TRUSTED',
    message: /not the hub that made the join token/,
  })
  t.equal(gateway.enrolments.length, 0)
  t.equal(await loadIdentity(running.stateDir), undefined)
})

void t.test('a stored identity trusts no other hub at the same address', async (t) => {
  const gateway = await startGateway(t)
  const running = await startProvider(t, gateway, new TestCloud().provider())
  await readySession(gateway)
  await running.stop()
  gateway.close()
  const impostor = await startGateway(t)
  const { lines, log } = listener()
  await startProvider(t, impostor, new TestCloud().provider(), { stateDir: running.stateDir, log })
  await until('several attempts', () => lines.filter((line) => line.includes('no session with the hub')).length >= 3)
  t.equal(impostor.sessions.length, 0)
})

void t.test('a refused join token ends it, with what to do', async (t) => {
  for (const [code, reason] of [
    [status.PERMISSION_DENIED, 'JOIN_TOKEN_USED'],
    [status.UNAUTHENTICATED, 'JOIN_TOKEN_EXPIRED'],
    [status.UNAUTHENTICATED, 'JOIN_TOKEN_INVALID'],
  ] as const) {
    const gateway = await startGateway(t)
    gateway.refuseEnrol = () => ({ code, reason })
    const running = await startProvider(t, gateway, new TestCloud().provider())
    await t.rejects(running.ended, { reason, message: /make a new one with `slipway provider token`/ })
  }
})

void t.test('what passes is tried again: a hub that is not up yet, or is busy', async (t) => {
  const gateway = await startGateway(t)
  let refusals = 1
  gateway.refuseEnrol = () =>
    refusals-- > 0 ? { code: status.UNAVAILABLE, reason: 'DATABASE_UNAVAILABLE' } : undefined
  gateway.close()
  await startProvider(t, gateway, new TestCloud().provider())
  await gateway.listen()
  await readySession(gateway)
  t.equal(gateway.enrolments.length, 2)
})

void t.test('says what is missing or damaged in the state folder', async (t) => {
  const gateway = await startGateway(t)
  const stateDir = await tempDir(t)
  const without = { gateway: gateway.address, stateDir }
  const provider = new TestCloud().provider()
  await t.rejects(provider.run(without), { reason: 'JOIN_TOKEN_MISSING', message: /there is no identity/ })
  await writeFile(join(stateDir, 'identity.json'), '{"keyPem":"oops"')
  await t.rejects(provider.run(without), { name: 'FinalError', reason: 'STATE_DAMAGED' })
  await t.rejects(saveIdentity(join(stateDir, 'identity.json', 'below-a-file'), {} as never), {
    name: 'FinalError',
    reason: 'STATE_UNWRITABLE',
  })
  await t.rejects(provider.run({ ...without, capacity: -1 }), { name: 'FinalError', reason: 'CAPACITY_INVALID' })
})

void t.test('renews at half life, for a new key, and uses it at the next connection', async (t) => {
  const gateway = await startGateway(t, { certificateLifeMs: 2_000 })
  const running = await startProvider(t, gateway, new TestCloud().provider())
  const session = await readySession(gateway)
  const before = await loadIdentity(running.stateDir)
  const after = await until('a renewed certificate', () => gateway.renewals.length > 0).then(async () => {
    for (;;) {
      const identity = await loadIdentity(running.stateDir)
      if (identity?.certificatePem !== before?.certificatePem) return identity
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  })
  t.notOk(session.over, 'the session stays up')
  t.not(after?.keyPem, before?.keyPem)
  session.fail()
  const next = await readySession(gateway, 2)
  t.not(next.fingerprint, session.fingerprint)
})

void t.test('an expired certificate needs a new join token', async (t) => {
  const gateway = await startGateway(t, { certificateLifeMs: 2_000 })
  const running = await startProvider(t, gateway, new TestCloud().provider())
  await readySession(gateway)
  await running.stop()
  const identity = await loadIdentity(running.stateDir)
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, (identity?.notAfterMs ?? 0) - Date.now() + 5)))
  const provider = new TestCloud().provider()
  await t.rejects(provider.run({ gateway: gateway.address, stateDir: running.stateDir }), {
    reason: 'JOIN_TOKEN_MISSING',
    message: /expired at/,
  })
  await startProvider(t, gateway, provider, { stateDir: running.stateDir })
  await readySession(gateway, 2)
  t.equal(gateway.enrolments.length, 2)
})

void t.test('something that speaks no TLS is told as such', async (t) => {
  const server = createServer((socket) => socket.end('SSH-2.0-x\r\n'))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const gateway = await startGateway(t)
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const { lines, log } = listener()
  const running = await startProvider(t, gateway, new TestCloud().provider(), { gateway: address, log })
  await until('it to be told', () => lines.some((line) => line.includes('not enrolled yet')))
  await running.stop()
  t.notOk(lines.some((line) => line.includes('swj_')))
})

void t.test('failures without details are read too', async (t) => {
  t.same(rpcFailure(new Error('x')), { code: status.UNKNOWN, message: 'Error: x', reason: '' })
  t.equal(new FinalError('A', 'b').name, 'FinalError')
})

void t.test('failpoints strike where they are told, and nowhere without', async (t) => {
  t.throws(() => parseFailpoints('sdk.effekt.after=kill'), /sdk.effekt.after=kill/)
  t.throws(() => parseFailpoints('sdk.effect.after=explode'))
  t.match(
    [...parseFailpoints(' sdk.effect.after:3=sleep(20), sdk.delete.before=kill')],
    [
      ['sdk.effect.after', { kind: 'sleep', delayMs: 20, onHit: 3 }],
      ['sdk.delete.before', { kind: 'kill', onHit: 1 }],
    ],
  )
  await failpoint('sdk.effect.after')
  const script = `import { failpoint } from ${JSON.stringify(new URL('./failpoint.js', import.meta.url).href)}
    await failpoint('sdk.effect.after'); process.stdout.write('one'); await failpoint('sdk.effect.after'); process.stdout.write('two')`
  const env = { ...process.env, SLIPWAY_FAILPOINTS: 'sdk.effect.after:2=kill' }
  const died = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { env }).catch(
    (error: unknown) => error,
  )
  t.match(died, { signal: 'SIGKILL', stdout: 'one' })
})
