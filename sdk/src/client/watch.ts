import { setTimeout as sleep } from 'node:timers/promises'
import { Code } from '@connectrpc/connect'
import type { ChangeType } from '@slipway/proto/hub/v1'
import { SlipwayError } from './errors.js'

const firstPauseMs = 100
const longestPauseMs = 5_000
/** Answers after which a watch goes on from its last revision. */
const passing = new Set(['DRAINING', 'SLOW_CONSUMER', 'ACCESS_CHANGED', 'DATABASE_UNAVAILABLE'])

export interface WatchUpdate<Resource> {
  /** What happened. Absent in the update that only says that all that existed has been told. */
  readonly change?: { readonly type: ChangeType; readonly resource: Resource }
  /** All that existed at the beginning has been told. */
  readonly synced: boolean
  /** Resume after here. */
  readonly revision: string
}

interface Message<Change> {
  readonly changes: readonly Change[]
  readonly revision: string
  readonly synced: boolean
}

/**
 * Follows a watch over broken connections and restarted hubs, each change once: it resumes from the last revision.
 *
 * @param open begins a stream, from a revision or, where that is empty, with what exists.
 * @throws SlipwayError for anything that trying again cannot cure, REVISION_COMPACTED among it.
 */
export async function* follow<Change extends { readonly type: ChangeType }, Resource>(
  open: (revision: string, signal: AbortSignal) => AsyncIterable<Message<Change>>,
  resourceOf: (change: Change) => Resource | undefined,
  options: { readonly signal: AbortSignal; readonly revision?: string },
): AsyncGenerator<WatchUpdate<Resource>> {
  // Each watch listens to a signal of its own: a caller may end any number of them with one.
  const signal = AbortSignal.any([options.signal])
  let revision = options.revision ?? ''
  let settled = revision !== ''
  let failures = 0
  while (!signal.aborted) {
    try {
      for await (const message of open(settled ? revision : '', signal)) {
        failures = 0
        for (const change of message.changes) {
          const resource = resourceOf(change)
          if (resource !== undefined)
            yield { change: { type: change.type, resource }, synced: settled, revision: message.revision }
        }
        // What exists comes in several messages with one revision: only when all of them have been told may it be resumed from.
        settled ||= message.synced
        if (message.revision !== '') revision = message.revision
        if (message.synced) yield { synced: true, revision }
      }
    } catch (thrown) {
      if (signal.aborted) return
      const error = SlipwayError.of(thrown)
      // What was broken off, and not by us, is a cut like any other.
      const cut = error.unavailable || error.code === Code.Canceled || error.code === Code.DeadlineExceeded
      if (!cut && !passing.has(error.reason)) throw error
    }
    failures++
    await sleep(
      Math.min(longestPauseMs, firstPauseMs * 2 ** Math.min(failures, 6)) * (0.5 + Math.random() / 2),
      undefined,
      { signal },
    ).catch(() => undefined)
  }
}
