import { Capability, ProviderKind, type Hello } from '@slipway/proto/provider/v1'
import type { Description } from '../adapter.js'
import type { CaseResult } from '../runner.js'

const marks = { passed: 'pass', failed: 'FAIL', skipped: 'skip' } as const
const transcriptLines = 60

/** One case, as it ends: a line, and for a failure the reason and the end of the transcript. */
export function describeResult({ id, outcome, reason, durationMs, rule, transcript }: CaseResult): string {
  const time = outcome === 'skipped' ? '' : `  (${(durationMs / 1000).toFixed(1)} s)`
  const line = `${marks[outcome]}  ${id}${time}`
  if (outcome === 'passed') return line
  if (outcome === 'skipped') return `${line}  ${reason ?? ''}`
  const shown = transcript?.split('\n').slice(-transcriptLines) ?? []
  return [line, `      rule: ${rule}`, `      why:  ${reason ?? ''}`, ...shown.map((text) => `      | ${text}`)].join(
    '\n',
  )
}

/** What was tested, for the head of a report. */
export function describeProvider(hello: Hello | undefined, description: Description): string {
  if (hello === undefined) return `# ${description.family} (${description.kind}): no session was opened`
  const { family, kind, providerVersion, sdkName, sdkVersion, capabilities } = hello
  const names = capabilities.map((capability) => Capability[capability] ?? `capability ${capability}`)
  const version = providerVersion === '' ? '' : ` ${providerVersion}`
  const sdk = sdkName === '' ? 'no SDK named' : `${sdkName} ${sdkVersion}`
  return [
    `# ${family}${version}, ${ProviderKind[kind]?.toLowerCase() ?? kind}, ${sdk}`,
    `# capabilities: ${names.join(', ') || 'none'}`,
    ...(description.notes ?? []).map((note) => `# ${note}`),
  ].join('\n')
}

/** Why cases were skipped, with how many for each reason. */
export function describeSkips(results: readonly CaseResult[]): string {
  const reasons = new Map<string, number>()
  for (const { outcome, reason = '' } of results)
    if (outcome === 'skipped') reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
  return [...reasons].map(([reason, count]) => `# skipped ${count}: ${reason}`).join('\n')
}

/** The last line of every run. */
export function describeCounts(results: readonly CaseResult[]): string {
  const count = (outcome: CaseResult['outcome']) => results.filter((result) => result.outcome === outcome).length
  return `${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`
}
