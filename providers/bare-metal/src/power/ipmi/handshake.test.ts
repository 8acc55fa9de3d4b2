import fc from 'fast-check'
import t from 'tap'
import { BmcSessions } from '../../../testing/bmc/bmc-sessions.js'
import { cipherSuite, type CipherSuiteId } from './cipher-suite.js'
import { Handshake, type Outcome } from './handshake.js'

const user = { name: 'slipway', password: 'a-simulated-one', privilege: 4 }

function make(id: CipherSuiteId): { readonly handshake: Handshake; readonly bmc: BmcSessions } {
  const rules = {
    users: [user],
    suites: [3, 17] as const,
    guid: Buffer.alloc(16, 7),
    maxSessions: 4,
    hidesUsers: false,
  }
  const login = { suite: cipherSuite(id), username: user.name, password: user.password, privilege: 3 }
  return { handshake: new Handshake(login), bmc: new BmcSessions(rules) }
}

function answered(answer: Buffer | undefined): Buffer {
  if (answer === undefined) throw new Error('the simulated BMC did not answer')
  return answer
}

const suite = fc.constantFrom<CipherSuiteId>(3, 17)

void t.test('both sides come to the same keys', (t) => {
  for (const id of [3, 17] as const) {
    const { handshake, bmc } = make(id)
    t.same(handshake.acceptOpen(answered(bmc.openSession(handshake.openRequest()))), { kind: 'done' })
    t.same(handshake.acceptRakp2(answered(bmc.rakp1(handshake.rakp1()))), { kind: 'done' })
    t.same(handshake.acceptRakp4(answered(bmc.rakp3(handshake.rakp3()))), { kind: 'done' })
    const theirs = bmc.find(handshake.bmcSessionId)?.keys
    t.ok(theirs?.k1.equals(handshake.keys.k1))
    t.ok(theirs?.k2.equals(handshake.keys.k2))
  }
  t.end()
})

/** Bytes 2 and 3 of RAKP messages are reserved and covered by nothing. */
const covered = (length: number, where: number): number => {
  const index = where % (length - 2)
  return index < 2 ? index : index + 2
}

void t.test('no byte of a RAKP answer can be changed, and none be missing or too many', (t) => {
  const property = fc.property(suite, fc.nat(), fc.integer({ min: 1, max: 255 }), (id, where, difference) => {
    const bend = (answer: Buffer): readonly Buffer[] => {
      const bent = Buffer.from(answer)
      const index = covered(bent.length, where)
      bent[index] = (bent[index] ?? 0) ^ difference
      return [bent, answer.subarray(0, where % answer.length), Buffer.concat([answer, Buffer.from([0])])]
    }
    const isRefused = (outcomes: readonly Outcome[]): boolean => outcomes.every(({ kind }) => kind !== 'done')
    const { handshake, bmc } = make(id)
    handshake.acceptOpen(answered(bmc.openSession(handshake.openRequest())))
    const second = answered(bmc.rakp1(handshake.rakp1()))
    if (!isRefused(bend(second).map((bytes) => handshake.acceptRakp2(bytes)))) return false
    if (handshake.acceptRakp2(second).kind !== 'done') return false
    const fourth = answered(bmc.rakp3(handshake.rakp3()))
    return isRefused(bend(fourth).map((bytes) => handshake.acceptRakp4(bytes)))
  })
  fc.assert(property, { numRuns: 500 })
  t.end()
})

void t.test('any bytes are judged without throwing, and open nothing', (t) => {
  const bytes = fc.uint8Array({ maxLength: 100 }).map((array) => Buffer.from(array))
  const property = fc.property(suite, bytes, (id, answer) => {
    const { handshake } = make(id)
    const request = handshake.openRequest()
    // With the right tag and console id, so that what comes after them is looked at.
    const aimed = Buffer.concat([request.subarray(0, 1), answer.subarray(0, 3), request.subarray(4, 8), answer])
    const judged = [answer, aimed].flatMap((one) => [handshake.acceptRakp2(one), handshake.acceptRakp4(one)])
    handshake.acceptOpen(answer)
    handshake.acceptOpen(aimed)
    return judged.every(({ kind }) => kind !== 'done')
  })
  fc.assert(property, { numRuns: 2_000 })
  t.end()
})

void t.test('RAKP messages that crossed begin the handshake anew, and are no wrong password', (t) => {
  const { handshake, bmc } = make(17)
  handshake.acceptOpen(answered(bmc.openSession(handshake.openRequest())))
  const early = answered(bmc.rakp1(handshake.rakp1()))
  bmc.rakp1(handshake.rakp1())
  t.same(handshake.acceptRakp2(early), { kind: 'done' })
  t.match(handshake.acceptRakp4(answered(bmc.rakp3(handshake.rakp3()))), { kind: 'again' })
  t.end()
})
