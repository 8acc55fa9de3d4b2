import type { Invocation, Outcome } from '../history.js'
import type { Histories } from './histories.js'

/** A call with what became of it. Absent outcome: its caller was killed, and nobody knows. */
export interface Call {
  readonly invocation: Invocation
  readonly outcome?: Outcome
}

/** All calls of all clients, in order of invocation. */
export function callsOf({ clients }: Histories): readonly Call[] {
  const outcomes = new Map<string, Outcome>()
  for (const line of clients)
    if (line.type === 'ok' || line.type === 'fail' || line.type === 'info') outcomes.set(line.call, line)
  return clients.flatMap((invocation) => {
    if (invocation.type !== 'invoke') return []
    const outcome = outcomes.get(invocation.call)
    return [{ invocation, ...(outcome && { outcome }) }]
  })
}

/** The lines of a call, as evidence. */
export function linesOf(...calls: readonly (Call | undefined)[]): readonly unknown[] {
  return calls.flatMap((call) => (call === undefined ? [] : [call.invocation, ...(call.outcome ? [call.outcome] : [])]))
}
