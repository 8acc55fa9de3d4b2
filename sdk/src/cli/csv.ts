// Values as spreadsheets and bills read them: RFC 4180.

/** What a spreadsheet would take for a formula, and reckon or run. */
const formula = /^[=+\-@\t\r]/

/** One cell: in quotes where it must be, and never a formula. */
export function csvCell(value: string): string {
  const plain = formula.test(value) ? `'${value}` : value
  return /[",\r\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain
}

/** One line, with its end. */
export function csvLine(cells: readonly string[]): string {
  return `${cells.map(csvCell).join(',')}\r\n`
}
