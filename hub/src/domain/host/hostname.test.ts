import { isIP } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import { HubError } from '../error/errors.js'
import { checkHostname } from './hostname.js'

function complaint(hostname: string): string | undefined {
  try {
    checkHostname(hostname, 'host.hostname')
    return undefined
  } catch (error) {
    if (!(error instanceof HubError)) throw error
    t.match(error, { reason: 'INVALID_FIELD', violations: [{ field: 'host.hostname' }] })
    return error.message
  }
}

void t.test('names of hosts', async (t) => {
  const long = 'a'.repeat(63)
  for (const good of [
    'a',
    'web-1',
    'web-1.example.org',
    '1.example.org',
    '9a',
    'x--y',
    long,
    `${`${long}.`.repeat(3)}${'b'.repeat(61)}`,
  ])
    t.equal(complaint(good), undefined, good)
  const bad: readonly (readonly [string, RegExp])[] = [
    ['', /labels/],
    ['Web', /lower-case/],
    ['a_b', /labels/],
    ['-a', /hyphen/],
    ['a-', /hyphen/],
    ['a..b', /labels/],
    ['a.', /labels/],
    ['.a', /labels/],
    ['grün', /labels/],
    ['a\n', /labels/],
    [`${long}a`, /63/],
    [`${`${long}.`.repeat(3)}${'b'.repeat(62)}`, /254 characters/],
    ['10.0.0.1', /address/],
    ['12', /address/],
    ['a.b.1', /address/],
    ['0x7f', /address/],
    ['localhost', /every machine/],
    ['a.localhost', /every machine/],
  ]
  for (const [hostname, expected] of bad) t.match(complaint(hostname), expected, JSON.stringify(hostname))
})

void t.test('what passes is the host of a URL as it stands, and no address', async () => {
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z0-9x.-]{1,20}$/), (hostname) => {
      fc.pre(complaint(hostname) === undefined)
      // Names that claim to be in another script are looked at more closely by URLs.
      fc.pre(!/(^|\.)xn--/.test(hostname))
      return new URL(`http://${hostname}/`).hostname === hostname && isIP(hostname) === 0
    }),
  )
})
