import { ProviderError, type Json } from '@slipway/sdk'
import type { OrderResult, WipedDisk } from '../agent/protocol.js'
import type { KnownMachine } from '../machine-book.js'
import type { Site } from '../site.js'
import { AgentVisit, type Work } from './agent-visit.js'

/** Failures of a try that say nothing about the disks: another try may do better. */
const worthAnother: ReadonlySet<string> = new Set(['superseded', 'internal'])
const maxTurns = 3
const sayAgainMs = 30_000

/**
 * Wipes a machine by its agent, and leaves it off. What was done to each disk is recorded. A wipe that failed is for a person to see to: it is not tried again by
 * itself, and the machine stays out of use.
 */
export async function clean(site: Site, work: Work, machine: KnownMachine): Promise<void> {
  if (machine.inUse)
    throw new ProviderError(
      'CONFLICT',
      `${machine.id} is a server in use by the configuration: it is not wiped; take inUse away first`,
      {
        retryable: false,
      },
    )
  const { wipeMs } = work.config.timeouts
  const result = await AgentVisit.with(site, work, machine, wipeMs, async (visit) => {
    const wiped = await wipe(visit, work)
    await work.report({ attributes: { wipe: recordOf(wiped) } })
    site.desk.dismiss(machine.id, 'power-off')
    await site.power.switch(machine.id, 'off', visit.permission)
    return wiped
  })
  refuseUnwiped(machine, result)
  site.power.want(machine.id, 'off')
  if (site.book.note(machine.id, { wanted: 'off', netboot: null })) await site.save()
}

async function wipe(visit: AgentVisit, work: Work): Promise<OrderResult> {
  for (let turn = 1; ; turn += 1) {
    const result = (await work.step(`wipe-${turn}`, async () => {
      // The disks that are wiped are those of this boot.
      const { disks } = await visit.inventory()
      const ended = await visit.run({ kind: 'wipe', method: work.config.wipe }, turn)
      return { ...ended, expected: disks.map(({ name, serial }) => ({ name, serial })) } as unknown as Json
    })) as unknown as OrderResult & { readonly expected: readonly { name: string; serial: string }[] }
    const isOver = result.outcome === 'done' || !worthAnother.has(result.code) || turn === maxTurns
    if (isOver) return withMissing(result, result.expected)
  }
}

/** A disk that was there before and of which nothing is said was not wiped. */
function withMissing(result: OrderResult, expected: readonly { name: string; serial: string }[]): OrderResult {
  if (result.outcome === 'failed') return result
  const said = new Set((result.disks ?? []).map(({ name }) => name))
  const missing = expected.filter(({ name }) => !said.has(name))
  if (missing.length === 0) return result
  const names = missing.map(({ name, serial }) => `${name} (serial ${serial || 'none'})`).join(', ')
  return {
    outcome: 'failed',
    code: 'wipe-failed',
    message: `nothing was said about ${names}`,
    disks: result.disks ?? [],
  }
}

function refuseUnwiped(machine: KnownMachine, result: OrderResult): void {
  const bad = (result.disks ?? []).filter((disk) => !disk.wiped || disk.readBack.unchanged > 0)
  if (result.outcome === 'done' && bad.length === 0) return
  const disks = bad.map(sayDisk).join('; ')
  const said = result.outcome === 'failed' ? result.message : ''
  const why = [said, disks].filter((part) => part !== '').join(': ')
  throw new ProviderError('INTERNAL', `the wipe of ${machine.id} failed, data may be left on its disks: ${why}`, {
    retryable: false,
    retryAfterMs: sayAgainMs,
    externalCode: 'wipe-failed',
  })
}

function sayDisk({ name, serial, steps, readBack }: WipedDisk): string {
  const last = steps.at(-1)
  const tried = last === undefined ? 'nothing was tried' : `${last.step}: ${last.ok ? 'went well' : last.message}`
  const unchanged = readBack.unchanged > 0 ? `, ${readBack.unchanged} places are as before` : ''
  return `${name} (serial ${serial || 'none'}): ${tried}${unchanged}`
}

/** What was really done, disk by disk, for the record. */
function recordOf(result: OrderResult): Json {
  return {
    outcome: result.outcome,
    disks: (result.disks ?? []).map(({ name, serial, wwn, sizeBytes, steps, readBack, wiped, durationMs }) => ({
      name,
      serial,
      wwn,
      sizeBytes,
      wiped,
      by: steps.at(-1)?.step ?? '',
      tried: steps.map(({ step, ok }) => `${step}: ${ok ? 'ok' : 'failed'}`),
      readBack: { ...readBack },
      durationMs,
    })),
  }
}
