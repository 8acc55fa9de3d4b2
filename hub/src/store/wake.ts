import { EventEmitter } from 'node:events'

/**
 * What may want attention. Wake-ups are hints: whoever waits for one also looks by itself from time to time, so that a lost one costs
 * time and nothing else.
 */
export type WakeTopic =
  /** Work of a provider is due, or a held item's wish has changed. */
  | { readonly kind: 'work'; readonly providerId: string }
  /** A provider's configuration, credentials or certificates have changed. */
  | { readonly kind: 'provider'; readonly providerId: string }
  /** Claims were taken from their holders. */
  | { readonly kind: 'claim' }
  /** A replica has a reader for a console of this session's provider, and waits to be called at the address for the stream. */
  | { readonly kind: 'console'; readonly sessionId: string; readonly streamId: string; readonly address: string }
  /** A host is due for the reconciler. */
  | { readonly kind: 'host' }
  /** Somebody may do less than before: tokens, principals or role bindings have changed. */
  | { readonly kind: 'access' }
  /** Something was committed that watchers may want. */
  | { readonly kind: 'change' }

/**
 * Signals within this process at once, and to other replicas through whatever `relay` is attached. Call it after the commit, never
 * inside a transaction: NOTIFY in each transaction would serialise all commits.
 */
export class Wake {
  readonly #emitter = new EventEmitter()
  #relay: ((topic: WakeTopic) => void) | undefined

  constructor() {
    this.#emitter.setMaxListeners(0)
  }

  /** Forwards every local signal, for other replicas. */
  attachRelay(relay: (topic: WakeTopic) => void): void {
    this.#relay = relay
  }

  /** Signals here and elsewhere. */
  signal(...topics: readonly WakeTopic[]): void {
    for (const topic of topics) {
      this.#emitter.emit(topic.kind, topic)
      this.#relay?.(topic)
    }
  }

  /** Signals here only: what came from another replica. */
  signalLocally(topic: WakeTopic): void {
    this.#emitter.emit(topic.kind, topic)
  }

  /** Listens until the returned function is called. */
  on<Kind extends WakeTopic['kind']>(
    kind: Kind,
    listener: (topic: Extract<WakeTopic, { kind: Kind }>) => void,
  ): () => void {
    this.#emitter.on(kind, listener)
    return () => this.#emitter.off(kind, listener)
  }
}
