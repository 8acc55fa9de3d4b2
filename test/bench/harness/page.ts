import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { chartName, drawChart } from './charts.js'
import type { Machine } from './machine.js'
import type { Result, Row } from './results.js'
import { figure, median } from './stats.js'

// docs/performance.md and its charts, made of the results and of nothing else.

/** Writes the page and its charts into a folder of docs. */
export function writePage(results: readonly Result[], docs: string): void {
  const charts = join(docs, 'charts')
  mkdirSync(charts, { recursive: true })
  for (const result of results)
    for (const { metric, title } of result.charts)
      writeFileSync(join(charts, chartName(result, metric)), drawChart(result, metric, title))
  writeFileSync(join(docs, 'performance.md'), page(results))
}

function page(results: readonly Result[]): string {
  return [
    '# Performance',
    '',
    'Measured by `npm run bench`, which writes this page; see `npm run bench -- --help`. Each figure is a median over rounds, with the least and the most in brackets.',
    'Whatever is compared was measured in the same run, taking turns, so ratios mean more than figures: the machine is a small one, and the load generator runs on the same cores.',
    '',
    ...results.flatMap(section),
  ].join('\n')
}

function section(result: Result): string[] {
  return [
    `## ${result.title}`,
    '',
    result.about,
    '',
    ...table(result.rows),
    '',
    ...result.goals.map(
      ({ text, value, bound, met }) =>
        `- ${met ? 'Met' : '**Not met**'}: ${text}: ${figure(value)}${bound.endsWith('×') ? ' ×' : ''} (${bound})`,
    ),
    ...(result.goals.length > 0 ? [''] : []),
    ...result.charts.flatMap(({ metric, title }) => [`![${title}](charts/${chartName(result, metric)})`, '']),
    `${describe(result.machine)}, ${result.rounds} rounds, ${result.at.slice(0, 10)}, load ${result.load.map((load) => load.toFixed(1)).join(' to ')}.`,
    '',
  ]
}

function table(rows: readonly Row[]): string[] {
  const metrics = [...new Set(rows.flatMap((row) => Object.keys(row.metrics)))]
  const cells = (values: readonly string[]) => `| ${values.join(' | ')} |`
  return [
    cells(['', '', ...metrics]),
    cells(['---', '---', ...metrics.map(() => '---:')]),
    ...rows.map((row) => cells([row.case, row.series, ...metrics.map((metric) => spread(row.metrics[metric] ?? []))])),
  ]
}

function spread(values: readonly number[]): string {
  if (values.length === 0) return ''
  const middle = figure(median(values))
  return values.length === 1 ? middle : `${middle} (${figure(Math.min(...values))}..${figure(Math.max(...values))})`
}

function describe({ cpu, cores, memoryGib, node, postgresql }: Machine): string {
  return `${cpu}, ${cores} cores, ${memoryGib} GiB, Node ${node}, PostgreSQL ${postgresql}`
}
