import { hostStates } from './host/host.js'
import { hostTransitions } from './host/transitions.js'
import { machineStates } from './machine/machine.js'
import { machineStateKinds, machineTransitions } from './machine/transitions.js'
import { requestStates } from './request/request.js'
import { requestTransitions } from './request/transitions.js'

interface Move {
  readonly from: string
  readonly event: string
  readonly to: string
  readonly why: string
}

interface Lifecycle {
  readonly title: string
  readonly about: string
  readonly start: readonly string[]
  readonly final: string
  readonly states: readonly string[]
  readonly moves: readonly Move[]
  readonly kinds?: Readonly<Record<string, string>>
}

/** Every lifecycle, as its table of transitions has it. */
export const lifecycles: readonly Lifecycle[] = [
  {
    title: 'Host',
    about:
      'What a tenant orders and keeps. ERROR is left by a retry or a release, and by nothing that happens without a person but the return of what was lost. ' +
      'Where the facts are ahead of it, a host makes several moves in one commit: a watcher that saw PLACED may see READY next. It skips no move for that.',
    start: ['ORDERED'],
    final: 'RELEASED',
    states: hostStates,
    moves: hostTransitions,
  },
  {
    title: 'Machine request',
    about:
      "The hub's order to one provider for one machine. Another place is tried only when the request before is GONE.",
    start: ['PENDING'],
    final: 'GONE',
    states: requestStates,
    moves: requestTransitions,
  },
  {
    title: 'Machine',
    about:
      'The kind of a state says who must act: *stable* (nobody), *doing* (the holder of the lease; if it dies the next one resumes), *waiting* (the machine’s own callback), *failed* (a person, or policy). Dynamic machines are ACTIVE while they live.',
    start: ['DISCOVERED', 'ACTIVE'],
    final: 'GONE',
    states: machineStates,
    moves: machineTransitions,
    kinds: machineStateKinds,
  },
]

/** The page that shows them. */
export function printLifecycles(): string {
  const intro =
    'Printed from the tables of transitions in `hub/src/domain` by `npm run docs:lifecycles -w hub`; a test compares. What is not listed is not possible.'
  return `${['# Lifecycles', intro, ...lifecycles.map(printLifecycle)].join('\n\n')}\n`
}

function printLifecycle(lifecycle: Lifecycle): string {
  const everywhere = eventsFromEverywhere(lifecycle)
  const drawn = lifecycle.moves.filter((move) => !everywhere.has(move.event))
  const diagram = [
    '```mermaid',
    'stateDiagram-v2',
    ...lifecycle.start.map((state) => `  [*] --> ${state}`),
    ...drawn.map((move) => `  ${move.from} --> ${move.to}: ${move.event}`),
    `  ${lifecycle.final} --> [*]`,
    '```',
  ].join('\n')
  const fromEverywhere = [...everywhere.values()].map(
    (move) => `From every state: \`${move.event}\` leads to ${move.to} (${move.why}).`,
  )
  const kinds = lifecycle.kinds
  const states =
    kinds === undefined
      ? []
      : [
          table(
            ['state', 'kind'],
            lifecycle.states.map((state) => [state, kinds[state] ?? '']),
          ),
        ]
  const moves = table(
    ['from', 'event', 'to', 'by whom, or why'],
    drawn.map((move) => [move.from, `\`${move.event}\``, move.to, move.why]),
  )
  return [`## ${lifecycle.title}`, lifecycle.about, diagram, ...fromEverywhere, ...states, moves].join('\n\n')
}

/** Events that lead from every other state to the same one: drawn, they would hide all else. */
function eventsFromEverywhere({ states, moves }: Lifecycle): ReadonlyMap<string, Move> {
  const found = new Map<string, Move>()
  for (const move of moves) {
    const same = moves.filter((other) => other.event === move.event && other.to === move.to)
    if (same.length === states.length - 1) found.set(move.event, move)
  }
  return found
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...rows.map(line)].join('\n')
}
