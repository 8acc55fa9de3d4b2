import { toJson } from '@bufbuild/protobuf'
import { durationMs, timestampDate, timestampFromDate, type Duration, type Timestamp } from '@bufbuild/protobuf/wkt'
import * as hub from '@slipway/proto/hub/v1'
import { csvLine } from '../csv.js'
import { usageError } from '../failure.js'
import { formatMicros, formatSpan, formatTable } from '../format.js'
import { idOf, priceText } from '../resource-type.js'
import type { Session } from '../session.js'

// What was used, and what it costs.

export interface UsageFlags {
  readonly organization?: string
  readonly month?: string
  readonly from?: string
  readonly to?: string
}

/** The columns of the CSV form, in their order. They are documented: new ones come at the end. */
export const usageColumns = [
  'month',
  'workspace',
  'host',
  'host_uid',
  'machine_class',
  'provider',
  'start_time',
  'end_time',
  'allocated_seconds',
  'billable_seconds',
  'powered_on_seconds',
  'currency',
  'hourly_price',
  'monthly_price',
  'setup_price',
  'setup_amount',
  'amount',
] as const

const hostsAPage = 1_000

/** `usage`: of a workspace or an organization, as a table with its sum, CSV, JSON or YAML. @throws CliError for times that are none. */
export async function usage(session: Session, flags: UsageFlags): Promise<void> {
  const client = await session.client()
  const parent =
    flags.organization === undefined
      ? `workspaces/${session.workspace}`
      : flags.organization.includes('/')
        ? flags.organization
        : `organizations/${flags.organization}`
  const [from, to] = spanOf(flags)
  const records: hub.UsageRecord[] = []
  if (session.output === 'csv') session.print(csvLine(usageColumns))
  for (let pageToken = ''; ;) {
    const page = await client.usage.listUsage({
      parent,
      pageSize: hostsAPage,
      pageToken,
      ...(from !== undefined && { startTime: timestampFromDate(from) }),
      ...(to !== undefined && { endTime: timestampFromDate(to) }),
    })
    if (session.output === 'csv') session.print(page.records.map((record) => csvLine(cellsOf(record))).join(''))
    else records.push(...page.records)
    pageToken = page.nextPageToken
    if (pageToken === '') break
  }
  if (session.output === 'csv') return
  session.printValue(
    records.map((record) => toJson(hub.UsageRecordSchema, record)),
    records.length === 0 ? 'nothing was used\n' : tableOf(records),
  )
}

function cellsOf(record: hub.UsageRecord): string[] {
  const { price } = record
  const amount = (micros: bigint | undefined) => (price === undefined ? '' : decimal(micros ?? 0n))
  return [
    timeText(record.month).slice(0, 7),
    record.host.split('/')[1] ?? '',
    idOf(record.host),
    record.hostUid,
    idOf(record.machineClass),
    idOf(record.provider),
    timeText(record.startTime),
    timeText(record.endTime),
    seconds(record.allocated),
    seconds(record.billable),
    seconds(record.poweredOn),
    price?.currency ?? '',
    amount(price?.hourlyMicros),
    amount(price?.monthlyMicros),
    amount(price?.setupMicros),
    amount(record.setupMicros),
    amount(record.amountMicros),
  ]
}

function tableOf(records: readonly hub.UsageRecord[]): string {
  const rows = records.map((record) => [
    `${record.host.split('/')[1] ?? ''}/${idOf(record.host)}`,
    idOf(record.machineClass),
    idOf(record.provider),
    timeText(record.startTime),
    timeText(record.endTime),
    span(record.allocated),
    span(record.billable),
    span(record.poweredOn),
    priceText(record.price),
    record.price === undefined ? '' : formatMicros(record.amountMicros, record.price.currency),
  ])
  const headings = ['HOST', 'CLASS', 'PROVIDER', 'FROM', 'TO', 'ALLOCATED', 'BILLABLE', 'ON', 'PRICE', 'AMOUNT']
  const sums = new Map<string, bigint>()
  for (const { price, amountMicros } of records)
    if (price !== undefined) sums.set(price.currency, (sums.get(price.currency) ?? 0n) + amountMicros)
  const totals = [...sums].sort().map(([currency, micros]) => `Total: ${formatMicros(toCents(micros), currency)}\n`)
  return `${formatTable(headings, rows)}\n${totals.join('')}`
}

/** Rounded to hundredths, halves up: once, at the end. */
function toCents(micros: bigint): bigint {
  return ((micros + 5_000n) / 10_000n) * 10_000n
}

function decimal(micros: bigint): string {
  return formatMicros(micros, '').trimEnd()
}

function seconds(duration: Duration | undefined): string {
  return duration === undefined ? '0' : (durationMs(duration) / 1_000).toFixed(3)
}

function span(duration: Duration | undefined): string {
  return formatSpan(duration === undefined ? 0 : durationMs(duration))
}

function timeText(time: Timestamp | undefined): string {
  return time === undefined ? '' : timestampDate(time).toISOString()
}

/** @throws CliError. */
function spanOf(flags: UsageFlags): readonly [from: Date | undefined, to: Date | undefined] {
  if (flags.month === undefined) return [timeOf(flags.from, '--from'), timeOf(flags.to, '--to')]
  if (flags.from !== undefined || flags.to !== undefined) throw usageError('give --month, or --from and --to')
  const [, year, month] = /^(\d{4})-(0[1-9]|1[0-2])$/.exec(flags.month) ?? []
  if (year === undefined || month === undefined) throw usageError(`--month ${flags.month} must be like 2026-04`)
  return [new Date(Date.UTC(Number(year), Number(month) - 1)), new Date(Date.UTC(Number(year), Number(month)))]
}

/** A day, or a time of one, in UTC unless it says otherwise. @throws CliError. */
function timeOf(text: string | undefined, flag: string): Date | undefined {
  if (text === undefined) return undefined
  const match = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)?)?$/.exec(text)
  const time =
    match === null ? undefined : new Date(match[1] === undefined || match[4] !== undefined ? text : `${text}Z`)
  if (time === undefined || Number.isNaN(time.getTime()))
    throw usageError(`${flag} ${text} must be a day like 2026-04-01, or a time like 2026-04-01T12:00:00Z`)
  return time
}
