import t from 'tap'
import { bmcFailure } from '../../testing/bmc/failure.js'
import { isPlausibleBmcAddress, resolveBmcAddress } from './address.js'

void t.test('addresses that a BMC may have', (t) => {
  for (const ip of [
    '10.0.0.5',
    '192.168.3.4',
    '127.0.0.1',
    '100.64.1.1',
    '203.0.113.9',
    'fd00::5',
    '2001:db8::1',
    '::1',
  ])
    t.equal(isPlausibleBmcAddress(ip), true, ip)
  t.end()
})

void t.test('addresses that no BMC has', (t) => {
  const linkLocal = ['169.254.169.254', '::ffff:169.254.169.254', '::ffff:a9fe:a9fe', 'fe80::1']
  const others = ['0.0.0.0', '::', 'ff02::1', '239.1.1.1', '255.255.255.255']
  for (const ip of [...linkLocal, ...others, 'name', '', '10.0.0', '010.0.0.1x'])
    t.equal(isPlausibleBmcAddress(ip), false, ip)
  t.end()
})

void t.test('what is resolved is checked', async (t) => {
  t.same(await resolveBmcAddress('127.0.0.1'), { ip: '127.0.0.1', family: 4 })
  t.same(await resolveBmcAddress('[::1]'), { ip: '::1', family: 6 })
  const forbidden = { kind: 'address-forbidden', code: 'INVALID_SPEC', retryable: false }
  t.match(await bmcFailure(resolveBmcAddress('169.254.169.254')), forbidden)
  const refusing = await bmcFailure(resolveBmcAddress('localhost', () => false))
  t.match(refusing, { kind: 'address-forbidden', message: /localhost/ })
  t.match(await bmcFailure(resolveBmcAddress('no-such-name.invalid')), { kind: 'unreachable', retryable: true })
})
