import type { CaseResult } from '../runner.js'

/** A run in the XML that JUnit made common: a suite for each theme. */
export function toJunit(results: readonly CaseResult[], suiteName: string): string {
  const themes = new Map<string, CaseResult[]>()
  for (const result of results) {
    const theme = result.id.split('/')[0] ?? ''
    themes.set(theme, [...(themes.get(theme) ?? []), result])
  }
  const suites = [...themes].map(([theme, own]) => suite(`${suiteName}.${theme}`, own))
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuites ${counts(suiteName, results)}>`,
    ...suites,
    '</testsuites>',
    '',
  ].join('\n')
}

function suite(name: string, results: readonly CaseResult[]): string {
  return [
    `  <testsuite ${counts(name, results)}>`,
    ...results.map((result) => testCase(name, result)),
    '  </testsuite>',
  ].join('\n')
}

function counts(name: string, results: readonly CaseResult[]): string {
  const count = (outcome: CaseResult['outcome']) => results.filter((result) => result.outcome === outcome).length
  const seconds = results.reduce((sum, { durationMs }) => sum + durationMs, 0) / 1000
  return `name="${escape(name)}" tests="${results.length}" failures="${count('failed')}" skipped="${count('skipped')}" time="${seconds.toFixed(3)}"`
}

function testCase(suiteName: string, { id, outcome, reason = '', durationMs, transcript = '' }: CaseResult): string {
  const head = `    <testcase classname="${escape(suiteName)}" name="${escape(id)}" time="${(durationMs / 1000).toFixed(3)}"`
  if (outcome === 'passed') return `${head}/>`
  const body =
    outcome === 'skipped'
      ? `<skipped message="${escape(reason)}"/>`
      : `<failure message="${escape(reason)}">${escape(transcript)}</failure>`
  return `${head}>${body}</testcase>`
}

/** Text that XML 1.0 can hold: markup escaped, and control characters that it forbids left out. */
function escape(text: string): string {
  return [...text]
    .filter((character) => isAllowed(character.codePointAt(0) ?? 0))
    .join('')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll('\n', '&#10;')
}

function isAllowed(codePoint: number): boolean {
  if (codePoint < 0x20) return codePoint === 0x09 || codePoint === 0x0a || codePoint === 0x0d
  return codePoint !== 0xfffe && codePoint !== 0xffff
}
