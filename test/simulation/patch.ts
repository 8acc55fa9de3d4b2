import { createRequire, syncBuiltinESMExports } from 'node:module'
import { real } from './real.js'
import type { Scheduler, SimEvent } from './scheduler.js'

// The code under test is used as it is: what is put in the place of time and chance is put beneath it. Outside of a simulation everything is as always.

let current: Scheduler | undefined
let installed = false

/** From now on, time and chance are the scheduler's; undefined: the real ones again. */
export function useScheduler(scheduler: Scheduler | undefined): void {
  if (!installed) install()
  current = scheduler
}

class Timer {
  event: SimEvent | undefined
  readonly #again: (() => void) | undefined

  constructor(again?: () => void) {
    this.#again = again
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  hasRef(): boolean {
    return true
  }

  refresh(): this {
    this.#again?.()
    return this
  }

  close(): this {
    if (this.event !== undefined) this.event.cancelled = true
    return this
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

type Callback = (...args: unknown[]) => void

function timeout(callback: Callback, ms = 0, ...args: unknown[]): unknown {
  const scheduler = current
  if (scheduler === undefined) return real.setTimeout(callback, ms, ...args)
  const start = (): void => {
    timer.close()
    timer.event = scheduler.schedule(Math.max(1, Number(ms) || 0), () => callback(...args))
  }
  const timer = new Timer(start)
  start()
  return timer
}

function interval(callback: Callback, ms = 0, ...args: unknown[]): unknown {
  const scheduler = current
  if (scheduler === undefined) return real.setInterval(callback, ms, ...args)
  const timer = new Timer()
  const next = (): void => {
    timer.event = scheduler.schedule(Math.max(1, Number(ms) || 0), () => {
      next()
      callback(...args)
    })
  }
  next()
  return timer
}

function immediate(callback: Callback, ...args: unknown[]): unknown {
  const scheduler = current
  if (scheduler === undefined) return real.setImmediate(callback, ...args)
  const timer = new Timer()
  timer.event = scheduler.schedule(0, () => callback(...args))
  return timer
}

function clear(realClear: (timer: never) => void): (timer: unknown) => void {
  return (timer) => {
    if (timer instanceof Timer) timer.close()
    else realClear(timer as never)
  }
}

/** `setTimeout` of node:timers/promises. */
function sleep<T>(ms = 0, value?: T, options: { readonly signal?: AbortSignal } = {}): Promise<T> {
  return new Promise((resolve, reject) => {
    const { signal } = options
    if (signal?.aborted === true) return reject(signal.reason as Error)
    const timer = timeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve(value as T)
    }, ms)
    const onAbort = (): void => {
      clear(real.clearTimeout)(timer)
      reject(signal?.reason as Error)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

function install(): void {
  installed = true
  Object.assign(globalThis, {
    setTimeout: timeout,
    setInterval: interval,
    setImmediate: immediate,
    clearTimeout: clear(real.clearTimeout),
    clearInterval: clear(real.clearInterval),
    clearImmediate: clear(real.clearImmediate),
  })
  globalThis.Date = new Proxy<DateConstructor>(real.Date, {
    construct: (target, args: unknown[], as) =>
      Reflect.construct(target, args.length === 0 ? [wallMs()] : args, as as () => void) as object,
    get: (target, key, receiver) => (key === 'now' ? wallMs : (Reflect.get(target, key, receiver) as unknown)),
  })
  performance.now = () => (current === undefined ? real.now() : current.nowMs)
  Math.random = () => (current === undefined ? real.random() : current.random.next())
  installChance()
}

function wallMs(): number {
  return current === undefined ? real.Date.now() : current.wallMs()
}

function installChance(): void {
  const require = createRequire(import.meta.url)
  const crypto = require('node:crypto') as Record<string, unknown> & { webcrypto: typeof globalThis.crypto }
  const timers = require('node:timers/promises') as Record<string, unknown>
  const realSleep = timers['setTimeout'] as (...args: unknown[]) => Promise<unknown>
  timers['setTimeout'] = (...args: [number?, unknown?, { readonly signal?: AbortSignal }?]) =>
    current === undefined ? realSleep(...args) : sleep(...args)
  const realBytes = crypto['randomBytes'] as (size: number) => Buffer
  const realUuid = crypto['randomUUID'] as () => string
  const realValues = crypto.webcrypto.getRandomValues.bind(crypto.webcrypto)
  const bytes = (size: number): Buffer => {
    if (current === undefined) return realBytes(size)
    const buffer = Buffer.alloc(size)
    current.random.fill(buffer)
    return buffer
  }
  const uuid = (): string => {
    if (current === undefined) return realUuid()
    const hex = bytes(16).toString('hex')
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`
  }
  crypto['randomBytes'] = bytes
  crypto['randomUUID'] = uuid
  Object.defineProperty(crypto.webcrypto, 'randomUUID', { value: uuid })
  Object.defineProperty(crypto.webcrypto, 'getRandomValues', {
    value: (array: Uint8Array) => {
      if (current === undefined) return realValues(array)
      current.random.fill(array)
      return array
    },
  })
  syncBuiltinESMExports()
}
