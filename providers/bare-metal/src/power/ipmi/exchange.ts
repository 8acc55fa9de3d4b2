import { BmcError } from '../errors.js'
import type { Endpoint, UdpPort } from './udp-port.js'

export interface ExchangeOptions {
  readonly timeoutMs: number
  readonly tries: number
  readonly signal: AbortSignal
  /** What was asked, for people. */
  readonly what: string
  /** Whether what was asked may have happened though no answer came. */
  readonly inDoubt?: boolean
}

/** How much longer than the last one each wait is; lets a slow BMC catch up. */
const growth = 1.25
/** Waits differ by up to this part, so that a fleet that was asked at once is not asked again at once. */
const jitter = 0.2

/**
 * Sends until something that `accept` takes has come, with a packet made anew for each try.
 * @throws BmcError `unreachable` after the last try; what `accept` throws; the signal's reason.
 */
export function exchange<Answer>(
  port: UdpPort,
  endpoint: Endpoint,
  make: (attempt: number) => Uint8Array,
  accept: (packet: Buffer) => Answer | undefined,
  options: ExchangeOptions,
): Promise<Answer> {
  const { signal } = options
  return new Promise<Answer>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined
    let immediate: NodeJS.Immediate | undefined
    const settle = (then: () => void): void => {
      clearTimeout(timer)
      clearImmediate(immediate)
      stopListening()
      signal.removeEventListener('abort', onAbort)
      then()
    }
    const fail = (error: Error): void => settle(() => reject(error))
    const onAbort = (): void => fail(signal.reason as Error)
    const stopListening = port.listen(endpoint, (packet) => {
      try {
        const answer = accept(packet)
        if (answer !== undefined) settle(() => resolve(answer))
      } catch (error) {
        fail(error as Error)
      }
    })
    const send = (attempt: number, waitMs: number): void => {
      if (attempt > options.tries) return fail(silence(endpoint, options))
      // Where this process itself was late, the answer may lie in the socket already: what is there is read before the next try.
      const late = (): void => void (immediate = setImmediate(() => send(attempt + 1, waitMs * growth)))
      timer = setTimeout(late, waitMs * (1 + Math.random() * jitter))
      port.send(endpoint, make(attempt)).catch(fail)
    }
    if (signal.aborted) return onAbort()
    signal.addEventListener('abort', onAbort, { once: true })
    send(1, options.timeoutMs)
  })
}

function silence({ ip, port }: Endpoint, { what, tries, inDoubt }: ExchangeOptions): BmcError {
  const asked = tries === 1 ? 'asked once' : `asked ${tries} times`
  return new BmcError('unreachable', `the BMC ${ip} port ${port} did not answer (${what}, ${asked})`, {
    inDoubt: inDoubt ?? false,
  })
}
