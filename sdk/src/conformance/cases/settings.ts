import { FailureCode, Health } from '@slipway/proto/provider/v1'
import type { Settings } from '../adapter.js'
import type { Bench } from '../bench.js'
import type { Case } from '../case.js'
import type { Verdict } from '../gateway/gateway.js'
import type { HubSession } from '../gateway/session.js'
import type { Instance } from '../instance.js'
import { expect, expectEqual } from '../until.js'
import { pause, reportNumber, strikeAt, untilItExists } from './moments.js'

/** Has a machine made after all. */
async function expectWork(bench: Bench, instance: Instance): Promise<void> {
  const item = await bench.order()
  await bench.drive(item, [instance])
  await bench.server(item)
}

/** Waits for a heartbeat of that health. */
async function expectHealth(instance: Instance, health: Health) {
  const session = await instance.session(1)
  return session.expect('heartbeat', (beat) => beat.health === health, `a heartbeat of health ${Health[health]}`)
}

/** Sends settings that work, at last. */
async function giveGood(session: HubSession, { config = {}, credentials = {} }: Settings): Promise<void> {
  const value = { version: 9n, config: config as never, credentials: credentials as never }
  session.send({ case: 'configure', value })
  await session.expect('configured', ({ version, ok }) => version === 9n && ok, 'good settings to be accepted')
}

/** Configuration and credentials: taken into use without a restart, and proven before the old ones are dropped. */
export const settingsCases: readonly Case[] = [
  {
    id: 'settings/answers-configure',
    rule: 'Configure in a session is answered by Configured with its version.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const { ok, failure } = await bench.configure(instance, bench.settings)
      expect(ok, `settings that are in use already are refused: ${failure?.message}`)
    },
  },
  {
    id: 'settings/answers-each-version',
    rule: 'Several changes in a row are each answered, and a version that comes again is answered again.',
    async run(bench) {
      const instance = await bench.instance()
      for (let change = 0; change < 3; change += 1) await bench.configure(instance, bench.settings)
      const session = await instance.ready()
      const { configure } = bench.gateway
      session.send({ case: 'configure', value: configure }, { case: 'configure', value: configure })
      const answers = () => session.all('configured').filter(({ version }) => version === configure.version)
      await bench.until('an answer to each', () => answers().length === 3)
      expect(
        answers().every(({ ok }) => ok),
        'one of them was refused',
      )
    },
  },
  {
    id: 'settings/refuses-a-bad-configuration',
    rule: 'A configuration that cannot be used is answered with ok false and a failure that says why.',
    needs: { described: ['badConfig'] },
    async run(bench) {
      const instance = await bench.instance()
      const { ok, failure } = await bench.configure(instance, { config: bench.description.badConfig ?? {} })
      expect(!ok, 'it was accepted')
      expectEqual(FailureCode[failure?.code ?? 0], 'INVALID_SPEC', 'the code of the failure')
      expect((failure?.message ?? '') !== '', 'the failure says nothing')
    },
  },
  {
    id: 'settings/goes-on-with-the-configuration-before',
    rule: 'After a refused configuration the one before stays in use.',
    needs: { described: ['badConfig'] },
    async run(bench) {
      const instance = await bench.instance()
      await bench.configure(instance, { ...bench.settings, config: bench.description.badConfig ?? {} })
      await expectWork(bench, instance)
    },
  },
  {
    id: 'settings/refuses-bad-credentials',
    rule: 'Credentials are proven before those in use are dropped: bad ones are answered with ok false and CREDENTIALS, and work goes on.',
    needs: { described: ['badCredentials'] },
    async run(bench) {
      const instance = await bench.instance()
      const { badCredentials = {} } = bench.description
      const { ok, failure } = await bench.configure(instance, { ...bench.settings, credentials: badCredentials })
      expect(!ok, 'they were accepted')
      expectEqual(FailureCode[failure?.code ?? 0], 'CREDENTIALS', 'the code of the failure')
      await expectWork(bench, instance)
    },
  },
  {
    id: 'settings/takes-rotated-credentials',
    rule: 'Other credentials that work are taken into use without a restart.',
    needs: { described: ['otherCredentials'] },
    async run(bench) {
      const instance = await bench.instance()
      const { otherCredentials = {} } = bench.description
      const { ok, failure } = await bench.configure(instance, { ...bench.settings, credentials: otherCredentials })
      expect(ok, `they were refused: ${failure?.message}`)
      await expectWork(bench, instance)
    },
  },
  {
    id: 'settings/rotates-in-flight',
    rule: 'Credentials that are rotated while a machine is made do it no harm: one machine, made to its end.',
    needs: { described: ['otherCredentials'], faults: ['slow-create'] },
    async run(bench) {
      await bench.inject('slow-create')
      const instance = await bench.instance()
      const item = await bench.order()
      await instance.claim(item)
      await untilItExists(bench, item)
      const { otherCredentials = {} } = bench.description
      const { ok } = await bench.configure(instance, { ...bench.settings, credentials: otherCredentials })
      expect(ok, 'the rotated credentials were refused')
      await bench.drive(item)
      await bench.server(item)
    },
  },
  {
    id: 'settings/keeps-claims-over-a-change',
    rule: 'A change of settings costs no claim: what is held goes on under its fence.',
    async run(bench) {
      const instance = await bench.instance()
      const item = await bench.order()
      const reached = strikeAt(bench, item, reportNumber(1), async (): Promise<Verdict> => {
        await bench.configure(instance, bench.settings)
        return 'ack'
      })
      await instance.claim(item)
      await reached()
      await bench.until('the item to be settled', () => item.settledAt === 1n, bench.createMs)
      expectEqual(item.fence, 1n, 'the fence under which it was settled')
    },
  },
  {
    id: 'settings/takes-no-work-without-a-usable-configuration',
    rule: 'Started with a configuration that cannot be used, it stays connected, says that it is unhealthy, and takes no work until a good one comes.',
    needs: { described: ['badConfig'] },
    async run(bench) {
      const good = bench.settings
      const { badConfig = {} } = bench.description
      bench.gateway.configure = { version: 1n, config: badConfig as never }
      const instance = await bench.instance({ waitForReady: false })
      const beat = await expectHealth(instance, Health.UNHEALTHY)
      expect(beat.message !== '', 'the heartbeat does not say why')
      const session = await instance.session(1)
      expect(!session.all('ready').some(({ capacity }) => capacity > 0), 'it said Ready all the same')
      await giveGood(session, good)
      await expectWork(bench, instance)
    },
  },
  {
    id: 'settings/tells-of-refused-credentials',
    rule: 'Started with credentials that are refused, it is unhealthy with a failure of CREDENTIALS, and healthy once good ones come.',
    needs: { described: ['badCredentials'] },
    async run(bench) {
      const { config = {} } = bench.settings
      const { badCredentials = {} } = bench.description
      bench.gateway.configure = { version: 1n, config: config as never, credentials: badCredentials as never }
      const instance = await bench.instance({ waitForReady: false })
      const beat = await expectHealth(instance, Health.UNHEALTHY)
      expectEqual(FailureCode[beat.failure?.code ?? 0], 'CREDENTIALS', 'the code of the failure')
      const session = await instance.session(1)
      const sick = session.all('heartbeat').length
      await giveGood(session, bench.settings)
      await bench.until('a heartbeat that is not UNHEALTHY', () =>
        session
          .all('heartbeat')
          .slice(sick)
          .some(({ health }) => health !== Health.UNHEALTHY),
      )
      await expectWork(bench, instance)
    },
  },
  {
    id: 'settings/does-not-give-orders-up-for-refused-credentials',
    rule: 'Refused credentials are one provider in trouble, not many failed machines: a claim fails with CREDENTIALS and may be retried, or is not taken.',
    needs: { described: ['badCredentials'], kind: 'dynamic' },
    async run(bench) {
      const { config = {} } = bench.settings
      const { badCredentials = {} } = bench.description
      bench.gateway.configure = { version: 1n, config: config as never, credentials: badCredentials as never }
      const instance = await bench.instance({ waitForReady: false })
      await expectHealth(instance, Health.UNHEALTHY)
      const item = await bench.order()
      bench.gateway.claim(item, await instance.session(1))
      await bench.released(item)
      expectEqual(item.outcome?.case, 'retryAfter', 'how the item was released')
      const given = item.failures.find(({ retryable }) => !retryable)
      expect(given === undefined, `it gave the order up: ${given?.message}`)
      for (const { code } of item.failures) expectEqual(FailureCode[code], 'CREDENTIALS', 'the code of the failure')
    },
  },
  {
    id: 'settings/keeps-working-where-only-the-hub-is-new',
    rule: 'Settings in a Welcome that are in use already change nothing, and nothing is done for them.',
    async run(bench) {
      const { instance, item, session } = await bench.provisioned()
      const before = (await bench.truth()).writes
      instance.wire.cut()
      await instance.ready(session)
      await pause(1_500)
      expectEqual((await bench.truth()).writes, before, 'calls that change something')
      await bench.server(item)
    },
  },
]
