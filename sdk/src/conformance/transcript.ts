import { toJson, type DescMessage, type MessageShape } from '@bufbuild/protobuf'

/** One line of what happened in a case. */
export interface TranscriptLine {
  /** Milliseconds since the case began. */
  readonly atMs: number
  /** `hub`, `kit`, or the name of a provider process. */
  readonly who: string
  readonly what: string
}

const maxTextChars = 2_000

/** What must never be shown, by field name: transcripts are attached to bug reports. */
const secretFields = new Set(['userData', 'phoneHomeToken', 'phoneHomePathUrl', 'credentials', 'joinToken', 'csrDer'])

/** Everything that was said and done in one case, in order. */
export class Transcript {
  readonly lines: TranscriptLine[] = []
  readonly #startedAtMs = performance.now()

  add(who: string, what: string): void {
    this.lines.push({ atMs: Math.round(performance.now() - this.#startedAtMs), who, what: what.slice(0, maxTextChars) })
  }

  /** A message of the protocol, without what is secret in it. */
  message<Desc extends DescMessage>(who: string, name: string, desc: Desc, message: MessageShape<Desc>): void {
    this.add(who, `${name} ${JSON.stringify(withoutSecrets(toJson(desc, message)))}`)
  }

  /** As text, one line each. @param last only the last so many lines. */
  toText(last = Number.POSITIVE_INFINITY): string {
    const shown = this.lines.slice(-last)
    const left = this.lines.length - shown.length
    const head = left > 0 ? [`(${left} earlier lines left out)`] : []
    return [...head, ...shown.map(({ atMs, who, what }) => `${String(atMs).padStart(7)} ms  ${who}: ${what}`)].join(
      '\n',
    )
  }
}

function withoutSecrets(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutSecrets)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, secretFields.has(key) ? '[secret]' : withoutSecrets(inner)]),
  )
}
