import type { Result } from './results.js'
import { figure, median } from './stats.js'

// Bars: a group for each case, a bar for each series, with the median as its length and the spread over rounds as a line.

const width = 760
const labelWidth = 250
const barHeight = 18
const colours = ['#2563eb', '#94a3b8', '#d97706', '#059669', '#9333ea', '#dc2626', '#0891b2']

export function chartName(result: Result, metric: string): string {
  return `${result.name}-${metric
    .replaceAll(/[^a-z0-9]+/gi, '-')
    .replaceAll(/^-|-$/g, '')
    .toLowerCase()}.svg`
}

export function drawChart(result: Result, metric: string, title: string): string {
  const rows = result.rows.filter((row) => row.metrics[metric] !== undefined)
  const series = [...new Set(rows.map((row) => row.series))]
  const most = Math.max(...rows.flatMap((row) => row.metrics[metric] ?? []), Number.MIN_VALUE)
  const scale = (value: number) => (value / most) * (width - labelWidth - 110)
  const lines: string[] = []
  let y = 44
  for (const of of new Set(rows.map((row) => row.case))) {
    lines.push(`<text x="12" y="${y + 12}" font-weight="600">${escape(of)}</text>`)
    y += 18
    for (const row of rows.filter((candidate) => candidate.case === of)) {
      const values = row.metrics[metric] ?? []
      const middle = median(values)
      const [low, high] = [scale(Math.min(...values)), scale(Math.max(...values))]
      const centre = y + barHeight / 2
      lines.push(
        `<text x="${labelWidth - 8}" y="${centre + 4}" text-anchor="end">${escape(row.series)}</text>`,
        `<rect x="${labelWidth}" y="${y + 2}" width="${round(scale(middle))}" height="${barHeight - 4}" fill="${colours[series.indexOf(row.series) % colours.length]}"/>`,
        `<path d="M${round(labelWidth + low)} ${centre}H${round(labelWidth + high)}" stroke="#0f172a"/>`,
        `<text x="${round(labelWidth + Math.max(scale(middle), high) + 6)}" y="${centre + 4}">${figure(middle)}</text>`,
      )
      y += barHeight
    }
    y += 8
  }
  const height = y + 8
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="system-ui, sans-serif" font-size="12" fill="#0f172a">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="12" y="24" font-size="15" font-weight="600">${escape(title)}</text>`,
    ...lines,
    '</svg>',
    '',
  ].join('\n')
}

const round = (value: number): string => value.toFixed(1)

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
}
