import fc from 'fast-check'
import t from 'tap'
import { ControlStripper } from './console-text.js'

const strip = (...parts: readonly string[]): string => {
  const stripper = new ControlStripper()
  return Buffer.concat(parts.map((part) => stripper.strip(Buffer.from(part)))).toString()
}

void t.test('terminal control is left out, and all else passes', (t) => {
  t.equal(strip('a\tb\r\nc'), 'a\tb\r\nc')
  t.equal(strip('\u001b[1;31mred\u001b[0m \u001b[2Jclear'), 'red clear')
  t.equal(strip('\u001b]0;a title\u0007text \u001b]8;;http://x\u001b\\link'), 'text link')
  t.equal(strip('\u001bPdevice control\u001b\\after \u001b(Bset \u001b7save \u001bcreset'), 'after set save reset')
  t.equal(strip('bell\u0007, back\b, null\0, delete\u007f'), 'bell, back, null, delete')
  t.equal(strip('grün ✓'), 'grün ✓')
  t.equal(strip('\u001b[3', '1mred'), 'red', 'a sequence that is cut')
  t.equal(strip('\u001b]0;never ended', ' and on'), '')
  t.end()
})

void t.test('however it is cut, the same is left, and never an escape', (t) => {
  const part = fc.oneof(
    fc.string(),
    fc.constantFrom('\u001b', '\u001b[', '\u001b[31m', '\u001b]0;', '\u0007', '\u001b\\', '\u001b(B'),
  )
  fc.assert(
    fc.property(fc.array(part), (parts) => {
      const cut = strip(...parts)
      t.equal(cut, strip(parts.join('')))
      t.notMatch(cut, /[^\P{Cc}\t\n\r]/u)
    }),
    { numRuns: 200 },
  )
  t.end()
})
