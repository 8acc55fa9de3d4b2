import fc from 'fast-check'
import t from 'tap'
import { HubError } from './error/errors.js'
import { retryDelayMs } from './backoff.js'
import {
  externalName,
  hostName,
  ownershipKey,
  parseHostName,
  parseResourceName,
  resourceName,
  shortName,
} from './names.js'
import { matchesLabels, parseLabelSelector, type LabelSelector } from './selector.js'

function thrown(work: () => unknown): HubError {
  try {
    work()
  } catch (error) {
    if (error instanceof HubError) return error
    throw error
  }
  throw new Error('nothing was thrown')
}

void t.test('label selectors are read', async (t) => {
  t.strictSame(parseLabelSelector(''), [])
  t.strictSame(parseLabelSelector('   '), [])
  t.strictSame(parseLabelSelector('rack in (b12, b13),gpu, !broken , tier=gold,zone != a,os notin (w)'), [
    { kind: 'in', key: 'rack', values: ['b12', 'b13'] },
    { kind: 'exists', key: 'gpu' },
    { kind: 'absent', key: 'broken' },
    { kind: 'in', key: 'tier', values: ['gold'] },
    { kind: 'not-in', key: 'zone', values: ['a'] },
    { kind: 'not-in', key: 'os', values: ['w'] },
  ] satisfies LabelSelector)
  t.strictSame(parseLabelSelector('example.com/rack==7'), [{ kind: 'in', key: 'example.com/rack', values: ['7'] }])
  t.strictSame(parseLabelSelector('empty=,in'), [
    { kind: 'in', key: 'empty', values: [''] },
    { kind: 'exists', key: 'in' },
  ])
})

void t.test('label selectors that make no sense say where', async (t) => {
  for (const [text, position] of [
    ['a,', 3],
    ['=b', 1],
    ['a b', 3],
    ['a in b', 6],
    ['a in (b', 8],
    ['a in ()', 7],
    ['a=$x', 3],
    ['!', 2],
    ['a,,b', 3],
  ] as const) {
    const error = thrown(() => parseLabelSelector(text))
    t.equal(error.reason, 'INVALID_LABEL_SELECTOR', text)
    t.equal(error.metadata['position'], String(position), `${text}: ${error.message}`)
  }
  t.equal(
    thrown(() => parseLabelSelector(Array(65).fill('a').join(','))).reason,
    'INVALID_LABEL_SELECTOR',
    'too many clauses',
  )
  t.equal(
    thrown(() => parseLabelSelector(`a in (${Array(101).fill('b').join(',')})`)).reason,
    'INVALID_LABEL_SELECTOR',
    'too many values',
  )
})

void t.test('labels are matched', async (t) => {
  const labels = { rack: 'b12', gpu: '' }
  const cases = {
    '': true,
    rack: true,
    '!rack': false,
    'gpu=': true,
    'gpu!=': false,
    'rack in (a,b12)': true,
    'rack!=b12': false,
    'x!=1': true,
    'x=1': false,
    '!x': true,
    toString: false,
    'rack,x': false,
  }
  for (const [text, matches] of Object.entries(cases))
    t.equal(matchesLabels(parseLabelSelector(text), labels), matches, text)
})

void t.test('any text is read, or refused with a reason; never anything else', async () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'ab=!,() \t.-_/in$ü') }), (text) => {
      try {
        parseLabelSelector(text)
      } catch (error) {
        return error instanceof HubError && error.reason === 'INVALID_LABEL_SELECTOR'
      }
      return true
    }),
    { numRuns: 3000 },
  )
})

void t.test('names', async (t) => {
  const id = '0193c0de-0000-7000-8000-00aabbccddee'
  t.equal(shortName('m', id), 'm-00aabbccddee')
  t.equal(ownershipKey('hub', id), `hub/${id}`)
  t.equal(hostName('default', 'web-1'), 'workspaces/default/hosts/web-1')
  t.strictSame(parseHostName('workspaces/default/hosts/web-1'), { workspace: 'default', id: 'web-1' })
  t.equal(parseResourceName('provider', resourceName('provider', 'fsn1')), 'fsn1')
  for (const wrong of ['', 'providers/', 'providers/a/b', 'machines/a', 'a']) {
    t.equal(
      thrown(() => parseResourceName('provider', wrong, 'host.provider')).violations[0]?.field,
      'host.provider',
      wrong,
    )
  }
  t.equal(thrown(() => parseHostName('hosts/web-1')).reason, 'INVALID_FIELD')
  fc.assert(
    fc.property(
      fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]+){0,2}$/),
      fc.uuid({ version: 7 }),
      (hostname, requestId) => {
        const name = externalName(hostname, requestId)
        return name.length <= 63 && /^[a-z][a-z0-9-]*[a-z0-9]$/.test(name) && name === externalName(hostname, requestId)
      },
    ),
  )
})

void t.test('pauses between tries grow, and stay within bounds', async (t) => {
  fc.assert(
    fc.property(
      fc.integer({ min: -5, max: 10_000 }),
      fc.nat(1_000_000),
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      (attempt, atLeastMs, random) => {
        const delayMs = retryDelayMs(attempt, atLeastMs, () => random)
        return delayMs >= 500 && delayMs >= atLeastMs && delayMs <= Math.max(atLeastMs, 5 * 60_000)
      },
    ),
  )
  t.ok(retryDelayMs(5, 0, () => 0) > retryDelayMs(3, 0, () => 0.99), 'later ones are longer')
})
