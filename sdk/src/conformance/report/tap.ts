import type { CaseResult } from '../runner.js'

/** A run in the Test Anything Protocol, version 14. */
export function toTap(results: readonly CaseResult[]): string {
  const lines = results.flatMap((result, index) => [line(result, index + 1), ...diagnostics(result)])
  return ['TAP version 14', `1..${results.length}`, ...lines, ''].join('\n')
}

function line({ id, outcome, reason = '' }: CaseResult, number: number): string {
  const skip = outcome === 'skipped' ? ` # SKIP ${reason.replaceAll(/[\n#\\]/g, ' ')}` : ''
  return `${outcome === 'failed' ? 'not ok' : 'ok'} ${number} - ${id}${skip}`
}

function diagnostics({ outcome, rule, reason = '', durationMs, transcript }: CaseResult): string[] {
  if (outcome === 'skipped') return []
  const shown =
    outcome === 'failed'
      ? [
          ['message', reason],
          ['transcript', transcript ?? ''],
        ]
      : []
  return [
    '  ---',
    `  rule: ${JSON.stringify(rule)}`,
    `  duration_ms: ${Math.round(durationMs)}`,
    ...shown.flatMap(([key = '', text = '']) => [`  ${key}: |-`, ...text.split('\n').map((each) => `    ${each}`)]),
    '  ...',
  ]
}
