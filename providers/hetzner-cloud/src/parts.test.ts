import { spawnSync } from 'node:child_process'
import fc from 'fast-check'
import t from 'tap'
import { parse } from 'yaml'
import { ProviderError, type Bootstrap } from '@slipway/sdk'
import { machineSpec } from '../testing/work.js'
import { labelMatcher, checkLabels } from '../testing/emulator/listing.js'
import { phoneHomeUrlOf } from '../testing/emulator/guests.js'
import { Shared } from './api/shared.js'
import { anyOwner, labelProblem, ownershipKeyOf, ownershipLabels, selectorOf, serverLabels } from './labels.js'
import { microsOf } from './price.js'
import { takeSettings } from './settings.js'
import { maxUserDataBytes, userDataOf, userDataProblem } from './user-data.js'

const { host } = machineSpec('a')
const { signal } = new AbortController()

function bootstrap(userData: string, over: Partial<Bootstrap> = {}): Bootstrap {
  const url = 'https://hub.example.org/v1/phone-home'
  return {
    hostname: 'web-1',
    userData,
    phoneHomeUrl: url,
    phoneHomePathUrl: `${url}/t0ken`,
    phoneHomeToken: 't0ken',
    sshPublicKeys: [],
    ...over,
  }
}

void t.test('an ownership key goes into labels and comes back', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.uuid(), fc.uuid(), async (hub, request) => {
      const labels = ownershipLabels(`${hub}/${request}`)
      checkLabels(labels)
      t.equal(ownershipKeyOf(labels), `${hub}/${request}`)
      t.ok(labelMatcher(selectorOf(`${hub}/${request}`))(labels) && labelMatcher(anyOwner)(labels))
      t.notOk(labelMatcher(selectorOf(`${request}/${hub}`))(labels) && hub !== request)
    }),
    { numRuns: 30 },
  )
  for (const key of ['', 'hub', 'hub/', '/x', 'a/b/c', 'a b/c', `${'x'.repeat(64)}/a`])
    t.throws(() => ownershipLabels(key), ProviderError, key)
  t.equal(ownershipKeyOf(undefined), undefined)
  t.equal(ownershipKeyOf({ 'slipway/hub': 'x' }), undefined)
})

void t.test('labels of hosts never break an order, and never forge an owner', async (t) => {
  const label = fc.oneof(
    fc.string(),
    fc.constantFrom('slipway/hub', 'slipway/request', 'hetzner.cloud/x', 'a/b', 'a.b/c', 'x'),
  )
  await fc.assert(
    fc.asyncProperty(fc.dictionary(label, fc.string()), fc.dictionary(label, fc.string()), async (labels, ordered) => {
      const given = serverLabels('hub/a', { ...host, labels }, ordered)
      checkLabels(given)
      t.equal(ownershipKeyOf(given), 'hub/a')
    }),
    { numRuns: 100 },
  )
  t.equal(labelProblem({ 'a.b/c': 'd', e: '' }), undefined)
  for (const key of ['slipway/hub', 'hetzner.cloud/x', 'a b', 'A.b/c', ''])
    t.match(labelProblem({ [key]: 'x' }), /cannot be/, key)
})

void t.test('prices are read to the millionth', async (t) => {
  t.equal(microsOf('0.0060000000'), 6_000n)
  t.equal(microsOf('3.7400000000000000'), 3_740_000n)
  t.equal(microsOf('0.00000049'), 0n)
  t.equal(microsOf('0.0000005'), 1n)
  t.equal(microsOf('12'), 12_000_000n)
  t.throws(() => microsOf('free'))
  fc.assert(fc.property(fc.nat(1e12), (micros) => microsOf((micros / 1e6).toFixed(10)) === BigInt(micros)))
})

void t.test('flags of this provider, and those of all', async (t) => {
  const { settings, rest } = takeSettings(['--gateway', 'x:1', '--list-interval-ms', '5', '--state-dir', 'd'])
  t.match(settings, { listIntervalMs: 5, effectTimeoutMs: 60_000, listingLagMs: 5_000 })
  t.strictSame(rest, ['--gateway', 'x:1', '--state-dir', 'd'])
})

void t.test('user data phones home, whatever it is', async (t) => {
  t.equal(
    userDataOf(bootstrap('')),
    '#cloud-config\nhostname: "web-1"\nphone_home:\n  url: "https://hub.example.org/v1/phone-home/t0ken"\n  post: [instance_id, hostname, fqdn]\n  tries: 100\n',
  )
  t.equal(userDataOf(bootstrap('', { hostname: '', phoneHomePathUrl: '' })), '#cloud-config\n{}\n')
  for (const own of ['#cloud-config\npackages: [jq]\n', '#!/bin/sh\necho hi\n', '#cloud-config\nmotd: grüß\n']) {
    const joined = userDataOf(bootstrap(own))
    t.equal(phoneHomeUrlOf(joined), 'https://hub.example.org/v1/phone-home/t0ken')
    t.match(joined, /^Content-Type: multipart\/mixed; boundary="slipway"\nMIME-Version: 1\.0\n\n--slipway\n/)
  }
  const ignition = '{"ignition": {"version": "3.4.0"}}'
  t.equal(userDataOf(bootstrap(ignition)), ignition, 'what is not for cloud-init stays as it is')
  t.match(userDataOf(bootstrap('#!/bin/sh\necho --slipway--\n')), /boundary="slipway="/)
  t.equal(userDataProblem(bootstrap('#!/bin/sh\n')), undefined)
  t.match(userDataProblem(bootstrap(`#!${'x'.repeat(maxUserDataBytes - 2)}`)), /32768/)
})

void t.test('keys stand in a cloud-config, and user data that takes none is refused', async (t) => {
  const aKey = fc.string({ unit: 'grapheme' }).map((comment) => `ssh-ed25519 AAAA ${comment}`)
  fc.assert(
    fc.property(fc.array(aKey, { minLength: 1, maxLength: 5 }), (sshPublicKeys) => {
      t.strictSame(parse(userDataOf(bootstrap('', { sshPublicKeys }))), {
        ...(parse(userDataOf(bootstrap(''))) as object),
        ssh_authorized_keys: sshPublicKeys,
      })
    }),
  )
  const silent = { hostname: '', phoneHomePathUrl: '', sshPublicKeys: ['ssh-ed25519 AAAA'] }
  t.strictSame(parse(userDataOf(bootstrap('', silent))), { ssh_authorized_keys: ['ssh-ed25519 AAAA'] })
  t.equal(userDataProblem(bootstrap('#!/bin/sh\n', silent)), undefined)
  t.match(
    userDataProblem(bootstrap('{"ignition": {"version": "3.4.0"}}', silent)),
    /not for cloud-init.*ssh_public_keys/,
  )
  t.equal(userDataProblem(bootstrap('{"ignition": {"version": "3.4.0"}}')), undefined)
})

const hasPython = spawnSync('python3', ['--version']).status === 0

void t.test('another reader of messages finds all parts', { skip: !hasPython && 'needs python3' }, async (t) => {
  const nested = userDataOf(bootstrap('#!/bin/sh\necho one\n', { hostname: 'inner' }))
  const program =
    'import email, json, sys\n' +
    'message = email.message_from_bytes(sys.stdin.buffer.read())\n' +
    'parts = [p.get_payload(decode=True).decode() for p in message.walk() if not p.is_multipart()]\n' +
    'print(json.dumps(parts))'
  const parts = (text: string) =>
    JSON.parse(spawnSync('python3', ['-c', program], { input: text }).stdout.toString()) as string[]
  const own = '#cloud-config\nmotd: grüß — dich\n'
  const mergeHow = 'merge_how: "dict(no_replace,recurse_list)+list(append)+str()"\n'
  const alone = userDataOf(bootstrap(''))
  t.strictSame(parts(userDataOf(bootstrap(own))), [own, alone.replace('#cloud-config\n', (mark) => mark + mergeHow)])
  const keys = ['ssh-ed25519 AAAA "quoted" \\ grüß: #1', 'ssh-rsa BBBB']
  const [first = '', second = ''] = parts(userDataOf(bootstrap(own, { sshPublicKeys: keys })))
  t.strictSame(parse(first), { motd: 'grüß — dich' })
  t.match(parse(second), { hostname: 'web-1', ssh_authorized_keys: keys, merge_how: /list\(append\)/ })
  const found = parts(userDataOf(bootstrap(nested)))
  t.equal(found.length, 3)
  t.match(found[0], /echo one/)
})

void t.test('what many ask for is read once; what is missing or fails is not kept', async (t) => {
  const shared = new Shared(60_000)
  let reads = 0
  const read = (value: string | undefined) => async () => {
    reads += 1
    await new Promise(setImmediate)
    return value
  }
  t.strictSame(await Promise.all([shared.get('a', signal, read('x')), shared.get('a', signal, read('y'))]), ['x', 'x'])
  t.equal(await shared.get('a', signal, read('z')), 'x')
  t.equal(reads, 1)
  t.equal(await shared.get('b', signal, read(undefined)), undefined)
  t.equal(await shared.get('b', signal, read('now')), 'now')
  const failing = shared.get('c', signal, () => Promise.reject(new Error('no')))
  await t.rejects(failing, /no/)
  t.equal(await shared.get('c', signal, read('again')), 'again')
  const giving = new AbortController()
  const first = shared.get('d', giving.signal, read('kept'))
  const second = shared.get('d', signal, read('never'))
  giving.abort(new Error('gave up'))
  await t.rejects(first, /gave up/)
  t.equal(await second, 'kept', 'whoever gives up takes nothing from the others')
})
