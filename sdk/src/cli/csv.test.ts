import fc from 'fast-check'
import t from 'tap'
import { csvCell, csvLine } from './csv.js'

/** Reads one line as RFC 4180 says. */
function parse(line: string): string[] {
  const cells: string[] = []
  for (let at = 0; at < line.length - 2 || cells.length === 0;) {
    const match = /^(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n$)/.exec(line.slice(at))
    if (match === null) throw new Error(`not RFC 4180: ${JSON.stringify(line.slice(at))}`)
    cells.push(match[1]?.replaceAll('""', '"') ?? match[2] ?? '')
    at += match[0].length
    if (match[3] === '\r\n') return cells
    if (at === line.length - 2) return [...cells, '']
  }
  return cells
}

void t.test('cells', (t) => {
  t.equal(csvCell('web-1'), 'web-1')
  t.equal(csvCell('a "b", c'), '"a ""b"", c"')
  t.equal(csvCell('=HYPERLINK("x")'), `"'=HYPERLINK(""x"")"`)
  for (const start of ['=', '+', '-', '@', '\t', '\r']) t.match(parse(csvLine([`${start}1`])), [`'${start}1`])
  t.end()
})

void t.test('what is written can be read, and no cell is a formula', (t) => {
  const text = fc.string({ unit: fc.constantFrom('a', '"', ',', '\n', '\r', '=', '-', ' ', 'é') })
  fc.assert(
    fc.property(fc.array(text, { minLength: 1, maxLength: 6 }), (cells) => {
      const read = parse(csvLine(cells))
      return (
        read.length === cells.length &&
        read.every(
          (cell, index) => cell.replace(/^'(?=[=+\-@\t\r])/, '') === cells[index] && !/^[=+\-@\t\r]/.test(cell),
        )
      )
    }),
  )
  t.end()
})
