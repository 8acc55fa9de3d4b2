import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { ProviderKind } from '@slipway/proto/provider/v1'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import { Gateway } from '../gateway/gateway.js'
import { keyOfSigningRequest, TestAuthority } from '../gateway/authority.js'
import { Transcript } from '../transcript.js'
import { expect, expectEqual } from '../until.js'
import { opening } from './opening.js'

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/** A gateway beside the bench's own, of another authority. */
async function impostor(bench: Bench): Promise<Gateway> {
  const authority = await TestAuthority.create('An impostor')
  return Gateway.start({ transcript: new Transcript(), waitMs: bench.waitMs, authority })
}

export const handshakeCases: readonly Case[] = [
  opening,
  {
    id: 'handshake/enrols-with-its-token',
    rule: 'Enroll carries the join token as it was given, and a signing request that is signed by its own key.',
    basic: true,
    async run(bench) {
      await bench.instance()
      expectEqual(bench.gateway.enrolments.length, 1, 'enrolments')
      const [enrolment] = bench.gateway.enrolments
      expectEqual(enrolment?.joinToken, bench.gateway.joinTokens[0], 'the join token')
    },
  },
  {
    id: 'handshake/uses-a-strong-key',
    rule: 'The key of the signing request is ECDSA P-256 or P-384, Ed25519, or RSA of 2048 bits or more.',
    async run(bench) {
      await bench.instance()
      const der = bench.gateway.enrolments[0]?.csrDer ?? new Uint8Array()
      const { name, namedCurve, modulusLength } = keyOfSigningRequest(der)
      const strong =
        name === 'Ed25519' ||
        namedCurve === 'P-256' ||
        namedCurve === 'P-384' ||
        (modulusLength !== undefined && modulusLength >= 2048)
      expect(strong, `the key is ${name} ${namedCurve ?? modulusLength ?? ''}`)
    },
  },
  {
    id: 'handshake/pins-the-authority',
    rule: 'A join token is never shown to a gateway whose authority is not the one that the token pins.',
    basic: true,
    async run(bench) {
      const other = await impostor(bench)
      try {
        const token = bench.gateway.joinToken()
        const instance = await bench.instance({ waitForReady: false, joinToken: token, gatewayPort: () => other.port })
        instance.process.mayEnd = true
        await Promise.race([instance.process.ended, delay(5_000)])
        expectEqual(other.enrolments.length, 0, 'enrolments at the impostor')
      } finally {
        other.close()
      }
    },
  },
  {
    id: 'handshake/trusts-only-its-hub',
    rule: 'An enrolled provider opens no session with a gateway of another authority.',
    async run(bench) {
      const other = await impostor(bench)
      try {
        let port = bench.gateway.port
        const instance = await bench.instance({ gatewayPort: () => port })
        port = other.port
        instance.wire.cut()
        await delay(4_000)
        expectEqual(other.attempts.length, 0, 'sessions opened with the impostor')
      } finally {
        other.close()
      }
    },
  },
  {
    id: 'handshake/says-hello-first-and-once',
    rule: 'Hello is the first message of a session, and is said only there; nothing else is said before the Welcome.',
    basic: true,
    async run(bench) {
      bench.gateway.welcome = async () => {
        await delay(2_000)
        return {}
      }
      const instance = await bench.instance()
      await (await instance.ready()).beats(2)
    },
  },
  {
    id: 'handshake/names-its-family-and-kind',
    rule: 'Hello names the family and the kind that the provider was added with.',
    basic: true,
    async run(bench) {
      expectEqual(bench.hello.family, bench.description.family, 'the family')
      expectEqual(ProviderKind[bench.hello.kind]?.toLowerCase(), bench.description.kind, 'the kind')
    },
  },
  {
    id: 'handshake/speaks-version-1',
    rule: 'Hello offers protocol version 1.',
    basic: true,
    async run(bench) {
      expect(bench.hello.protocolVersions.includes(1), `it offers only ${bench.hello.protocolVersions.join(', ')}`)
    },
  },
  {
    id: 'handshake/keeps-its-instance-id-over-streams',
    rule: 'The instance id is a UUID, and stays the same over reconnections of one process.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      expect(uuid.test(first.hello.instanceId), `"${first.hello.instanceId}" is no UUID`)
      instance.wire.cut()
      const second = await instance.ready(first)
      expectEqual(second.hello.instanceId, first.hello.instanceId, 'the instance id on the second stream')
    },
  },
  {
    id: 'handshake/has-an-instance-id-of-its-own-by-process',
    rule: 'Another process, and the same one after a restart, has another instance id.',
    async run(bench) {
      const one = await bench.instance()
      const two = await bench.instance()
      const first = await one.ready()
      const other = await two.ready()
      const restarted = await one.crash()
      const ids = [first, other, restarted].map(({ hello }) => hello.instanceId)
      expectEqual(new Set(ids).size, 3, 'different instance ids of three processes')
    },
  },
  {
    id: 'handshake/keeps-its-identity',
    rule: 'A process that is started again in its state folder, without a join token, comes back with its certificate.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      const second = await instance.crash()
      expectEqual(second.fingerprint, first.fingerprint, 'the certificate after the restart')
      expectEqual(bench.gateway.enrolments.length, 1, 'enrolments')
    },
  },
  {
    id: 'handshake/tries-again-to-enrol',
    rule: 'An enrolment that is answered with UNAVAILABLE is tried again.',
    async run(bench) {
      let refusals = 2
      bench.gateway.refuseEnrol = () => {
        refusals -= 1
        return refusals >= 0 ? { code: 'UNAVAILABLE', reason: 'DRAINING' } : undefined
      }
      await bench.instance()
      expectEqual(bench.gateway.enrolments.length, 3, 'enrolments')
    },
  },
  {
    id: 'handshake/does-not-insist-on-a-used-token',
    rule: 'A join token that was refused for good is not shown again and again.',
    async run(bench) {
      bench.gateway.refuseEnrol = () => ({ code: 'PERMISSION_DENIED', reason: 'JOIN_TOKEN_USED' })
      const instance = await bench.instance({ waitForReady: false })
      instance.process.mayEnd = true
      await bench.until('the enrolment to be tried', () => bench.gateway.enrolments.length > 0)
      await Promise.race([instance.process.ended, delay(4_000)])
      expect(bench.gateway.enrolments.length <= 3, `the token was shown ${bench.gateway.enrolments.length} times`)
      if (instance.process.ending !== undefined) expect(instance.process.ending !== 0, 'it ended as if all were well')
    },
  },
  {
    id: 'handshake/connects-again-after-a-pause',
    rule: 'A session that is refused with UNAVAILABLE is opened again, after pauses and not at once.',
    async run(bench) {
      let refused = 0
      bench.gateway.refuseHello = () => {
        refused += 1
        return refused <= 5 ? { code: 'UNAVAILABLE', reason: 'DRAINING' } : undefined
      }
      await bench.instance()
      const { attempts } = bench.gateway
      const tookMs = (attempts[5] ?? 0) - (attempts[0] ?? 0)
      expect(tookMs > 200, `six streams were opened within ${Math.round(tookMs)} ms`)
    },
  },
  {
    id: 'handshake/does-not-hammer-a-hub-that-refuses-it',
    rule: 'A provider whose family is refused ends, or comes back with longer and longer pauses.',
    async run(bench) {
      bench.gateway.refuseHello = () => ({ code: 'FAILED_PRECONDITION', reason: 'FAMILY_MISMATCH' })
      const instance = await bench.instance({ waitForReady: false })
      instance.process.mayEnd = true
      await bench.until('a session to be tried', () => bench.gateway.attempts.length > 0)
      await Promise.race([instance.process.ended, delay(5_000)])
      expect(bench.gateway.attempts.length <= 30, `${bench.gateway.attempts.length} streams were opened in 5 s`)
    },
  },
  {
    id: 'handshake/leaves-a-version-that-it-does-not-speak',
    rule: 'A Welcome with a protocol version that was not offered is no session: no work is taken.',
    async run(bench) {
      bench.gateway.welcome = () => ({ protocolVersion: 99 })
      const instance = await bench.instance({ waitForReady: false })
      instance.process.mayEnd = true
      const session = await instance.session(1)
      await bench.until('the session to be left', () => !session.open)
      expect(!session.all('ready').some(({ capacity }) => capacity > 0), 'it said Ready all the same')
    },
  },
  {
    id: 'handshake/waits-for-a-hub-that-is-down',
    rule: 'A provider that is started while no hub can be reached waits for it.',
    async run(bench) {
      const instance = await bench.instance()
      const before = await instance.ready()
      await instance.process.kill()
      instance.wire.close()
      instance.start()
      await delay(3_000)
      expect(instance.process.running, 'it ended while there was no hub')
      instance.wire.reopen()
      await instance.ready(before)
    },
  },
  {
    id: 'handshake/renews-its-certificate',
    rule: 'From half of its life on a certificate is renewed, for a fresh signing request, and the next session uses the new one.',
    options: { certificateLifeMs: 24_000 },
    async run(bench) {
      const instance = await bench.instance()
      const first = await instance.ready()
      await bench.until('the certificate to be renewed', () => bench.gateway.renewals.length > 0)
      const hash = (der: Uint8Array | undefined) =>
        createHash('sha256')
          .update(der ?? '')
          .digest('hex')
      expect(
        hash(bench.gateway.renewals[0]?.csrDer) !== hash(bench.gateway.enrolments[0]?.csrDer),
        'the signing request of the renewal is that of the enrolment',
      )
      expect(first.open, 'the session was closed for the renewal')
      await first.beats(1)
      let last = first
      // The answer may still be on its way when the first stream is cut.
      await bench.until('a session under the new certificate', async () => {
        instance.wire.cut()
        last = await instance.ready(last)
        return last.fingerprint !== first.fingerprint
      })
    },
  },
  {
    id: 'handshake/lives-on-with-renewed-certificates',
    rule: 'A provider outlives its first certificate.',
    options: { certificateLifeMs: 20_000 },
    async run(bench) {
      const instance = await bench.instance()
      await instance.ready()
      await delay(22_000)
      const before = instance.sessions.at(-1)
      instance.wire.cut()
      await instance.ready(before)
      expectEqual(bench.gateway.enrolments.length, 1, 'enrolments')
    },
  },
  {
    id: 'handshake/beats-in-time',
    rule: 'Heartbeats come at least as often as the hub asks for.',
    basic: true,
    options: { heartbeatMs: 2_000 },
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      await session.beats(6)
      const times = session.heard.filter(({ body }) => body.case === 'heartbeat').map(({ atMs }) => atMs)
      const gaps = times.slice(1).map((atMs, index) => atMs - (times[index] ?? 0))
      const late = gaps.filter((gapMs) => gapMs > 3_000).length
      // One late beat is the machine's; more are the provider's.
      expect(late <= 1, `heartbeats were ${gaps.map(Math.round).join(', ')} ms apart, with 2000 ms asked for`)
    },
  },
]
