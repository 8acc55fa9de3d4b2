import fc from 'fast-check'
import t from 'tap'
import { isUnicastMac, macOfBytes, parseMac } from './mac.js'

void t.test('every way to write an address is one address', (t) => {
  for (const text of ['52:54:00:AB:cd:01', '52-54-00-ab-cd-01', '525400abcd01'])
    t.equal(parseMac(text), '52:54:00:ab:cd:01')
  for (const text of [
    '',
    '52:54:00:ab:cd',
    '52:54-00:ab:cd:01',
    '52:54:00:ab:cd:0g',
    '52:54:00:ab:cd:01:02',
    '52:5400abcd01',
  ])
    t.equal(parseMac(text), undefined, text)
  t.end()
})

void t.test('what is made of bytes is read back', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (bytes) => {
      const mac = macOfBytes(bytes)
      return (
        parseMac(mac) === mac && isUnicastMac(mac) === ((bytes[0] ?? 1) % 2 === 0 && bytes.some((byte) => byte > 0))
      )
    }),
  )
  t.throws(() => macOfBytes(new Uint8Array(5)), RangeError)
  t.end()
})
