import { randomUUID } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Case } from '../case.js'
import { CaseSkipped, expect, expectEqual } from '../until.js'
import { listIntervalMs } from './listings.js'

/** How many calls may be made for each time that the provider looks around: a few pages, what can be had, the credentials. */
const callsPerLook = 6

/** Nothing to do means that nothing is done; and no secret lies about. */
export const idleCases: readonly Case[] = [
  {
    id: 'idle/changes-nothing',
    rule: 'Without work nothing is changed out there.',
    basic: true,
    async run(bench) {
      const session = await (await bench.instance()).ready()
      await session.beats(4)
      const { writes = 0, things } = await bench.truth()
      expectEqual(writes, 0, 'calls that change something')
      const ours = things.filter(({ ownershipKey }) => ownershipKey.startsWith(`${bench.world.hubId}/`))
      expectEqual(ours.length, 0, 'things with a key of ours')
    },
  },
  {
    id: 'idle/says-little',
    rule: 'Without work there are signs of life and listings on the stream, and no reports.',
    async run(bench) {
      const { session } = await bench.provisioned()
      const before = session.heard.length
      await session.beats(4)
      const said = session.heard.slice(before).map(({ body }) => body.case)
      expect(!said.includes('report') && !said.includes('release'), `it said ${said.join(', ')}`)
    },
  },
  {
    id: 'idle/calls-only-to-look-around',
    rule: 'Without work the cloud is only called to look around, as often as the provider lists.',
    needs: { described: ['listIntervalMs'] },
    async run(bench) {
      const { session } = await bench.provisioned()
      const { calls: before } = await bench.truth()
      if (before === undefined) throw new CaseSkipped('the adapter does not count calls')
      const startedAtMs = performance.now()
      await session.beats(5)
      const looks = Math.ceil((performance.now() - startedAtMs) / (0.9 * listIntervalMs(bench))) + 1
      const made = ((await bench.truth()).calls ?? 0) - before
      expect(made <= looks * callsPerLook, `${made} calls were made while it looked around ${looks} times at most`)
    },
  },
  {
    id: 'idle/looks-at-no-machine-one-by-one',
    rule: 'What was made is looked after by listing, and not by a call for each machine.',
    needs: { described: ['listIntervalMs'] },
    async run(bench) {
      const instance = await bench.instance()
      const session = await instance.ready()
      const items = []
      for (let count = bench.description.orders ?? 5; count > 0; count -= 1) items.push(await bench.order())
      for (const item of items) await instance.claim(item)
      for (const item of items) await bench.drive(item)
      const { calls: before } = await bench.truth()
      if (before === undefined) throw new CaseSkipped('the adapter does not count calls')
      const startedAtMs = performance.now()
      await session.beats(5)
      const looks = Math.ceil((performance.now() - startedAtMs) / (0.9 * listIntervalMs(bench))) + 1
      const made = ((await bench.truth()).calls ?? 0) - before
      expect(made <= looks * callsPerLook, `${made} calls were made for ${items.length} machines in ${looks} looks`)
    },
  },
  {
    id: 'secrets/are-not-said',
    rule: 'No credential, token or user-data is in anything that is said to the hub or written to the outputs.',
    basic: true,
    async run(bench) {
      const { item } = await bench.provisioned()
      await bench.deprovision(item)
      // The kit looks through all that was said and written, here and at the end of every case.
    },
  },
  {
    id: 'secrets/are-not-said-when-refused',
    rule: 'Credentials that are refused are not in the refusal.',
    needs: { described: ['badCredentials'] },
    async run(bench) {
      const instance = await bench.instance()
      const { badCredentials = {} } = bench.description
      await bench.configure(instance, { ...bench.settings, credentials: badCredentials })
    },
  },
  {
    id: 'secrets/are-not-said-when-a-configuration-makes-no-sense',
    rule: 'A configuration or credentials of the wrong shape are refused without repeating what they hold.',
    async run(bench) {
      const instance = await bench.instance()
      const secret = `canary-${randomUUID()}`
      bench.canaries.set(secret, 'a credential of the wrong shape')
      const { ok } = await bench.configure(instance, { ...bench.settings, credentials: { nonsense: { secret } } })
      expect(bench.hello.credentialsSchema === '' || !ok, 'credentials of the wrong shape were accepted')
    },
  },
  {
    id: 'secrets/stay-in-memory',
    rule: 'Credentials, user-data and join tokens are in no file of the state folder.',
    async run(bench) {
      const { instance } = await bench.provisioned()
      const secrets = [...bench.canaries.keys(), ...bench.gateway.joinTokens]
      for (const { path, text } of filesOf(instance.stateDir))
        expect(!secrets.some((secret) => text.includes(secret)), `there is a secret in ${path}`)
    },
  },
  {
    id: 'secrets/keep-the-key-from-others',
    rule: 'What the state folder holds of the private key can be read by its owner alone.',
    basic: true,
    async run(bench) {
      const instance = await bench.instance()
      const keys = filesOf(instance.stateDir).filter(({ text }) => text.includes('PRIVATE KEY'))
      for (const { path, mode } of keys)
        expect((mode & 0o077) === 0, `${path} has mode ${(mode & 0o777).toString(8)}: others can read it`)
    },
  },
]

/** All files of a folder, with what they hold. */
function filesOf(folder: string): { readonly path: string; readonly text: string; readonly mode: number }[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => {
      const path = join(entry.parentPath ?? entry.path, entry.name)
      return { path, text: readFileSync(path, 'utf8'), mode: statSync(path).mode }
    })
}
