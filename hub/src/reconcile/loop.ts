import type { Logger } from 'pino'

const firstTroublePauseMs = 500
const longestTroublePauseMs = 30_000

export interface Loop {
  /** Ends the rest that is under way, or the next one: no wake-up is lost. */
  wake(): void
  /** Begins no further round; resolves when the present one is done. */
  stop(): Promise<void>
}

/**
 * Does one thing again and again, with growing pauses while it fails.
 *
 * @param what it does, for the log.
 * @param round does it once, and returns how long to rest in ms.
 */
export function startLoop(log: Logger, what: string, round: () => Promise<number>): Loop {
  let stopped = false
  let woken = false
  let endRest: (() => void) | undefined
  const rest = async (ms: number) => {
    if (!woken && !stopped) {
      let timer: NodeJS.Timeout | undefined
      await new Promise<void>((resolve) => {
        endRest = resolve
        timer = setTimeout(resolve, ms)
      })
      clearTimeout(timer)
      endRest = undefined
    }
    woken = false
  }
  const run = async () => {
    let troublePauseMs = firstTroublePauseMs
    while (!stopped) {
      let restMs: number
      try {
        restMs = await round()
        troublePauseMs = firstTroublePauseMs
      } catch (error) {
        log.error({ err: error }, `${what} failed; it is tried again`)
        // What woke it before is no reason to try again at once.
        woken = false
        restMs = troublePauseMs
        troublePauseMs = Math.min(longestTroublePauseMs, troublePauseMs * 2)
      }
      if (restMs > 0) await rest(restMs)
    }
  }
  const done = run()
  return {
    wake: () => {
      woken = true
      endRest?.()
    },
    stop: async () => {
      stopped = true
      endRest?.()
      await done
    },
  }
}
