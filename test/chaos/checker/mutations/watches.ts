import type { WatchLine } from '../../history.js'
import { type Mutation, type Change, linesOf, changesOf, changeOf, drop, repeat, swap, unlist } from './change.js'

export const watches: readonly Mutation[] = [
  { name: 'a change is missing', rule: 'S14', mutate: (run) => drop(run, 'watcher-1-host', 'host-a', 3) },
  { name: 'the first change is missing', rule: 'S14', mutate: (run) => drop(run, 'watcher-1-host', 'host-a', 1) },
  { name: 'the last change is missing', rule: 'L6', mutate: (run) => drop(run, 'watcher-1-host', 'host-b', 8) },
  { name: 'a change is told twice', rule: 'S14', mutate: (run) => repeat(run, 'watcher-1-host', 'host-a', 3) },
  { name: 'a creation is told twice', rule: 'S14', mutate: (run) => repeat(run, 'watcher-1-request', 'request-b', 1) },
  { name: 'an end is told twice', rule: 'S14', mutate: (run) => repeat(run, 'watcher-2-host', 'host-r', 7) },
  {
    name: 'a change is told again much later',
    rule: 'S14',
    mutate: (run) => repeat(run, 'watcher-1-host', 'host-a', 2, 9),
  },
  {
    name: 'two changes of one object are told in the wrong order',
    rule: 'S14',
    mutate: (run) => swap(run, 'watcher-1-machine', ['machine-r', 2], ['machine-r', 3]),
  },
  {
    name: 'a cut loses a change',
    rule: 'S14',
    mutate: (run) => {
      const lines = linesOf(run, 'watcher-1-request')
      lines.splice(lines.findLastIndex((line) => line.type === 'open') + 2, 1)
    },
  },
  {
    name: 'a cut repeats a change',
    rule: 'S14',
    mutate: (run) => {
      const lines = linesOf(run, 'watcher-1-request')
      const cut = lines.findIndex((line) => line.type === 'end')
      lines.splice(cut + 3, 0, structuredClone(lines[cut - 1] as WatchLine))
    },
  },
  {
    name: 'what exists is told in the middle',
    rule: 'S14',
    mutate: (run) => void (changeOf(run, 'watcher-1-host', 'host-a', 4).change.change = 'EXISTING'),
  },
  {
    name: 'an update of what was never told',
    rule: 'S14',
    mutate: (run) => {
      for (const { line, change } of changesOf(run, 'watcher-2-host'))
        if (change.change === 'EXISTING' && change.seen.uid === 'host-a')
          (line.changes as unknown as Change[]).splice((line.changes as unknown as Change[]).indexOf(change), 1)
    },
  },
  {
    name: 'a watch begins with an older state than the list had',
    rule: 'S14',
    mutate: (run) => {
      for (const { change } of changesOf(run, 'watcher-2-host'))
        if (change.change === 'EXISTING') change.seen.version -= 1
    },
  },
  {
    name: 'one version is told with two contents',
    rule: 'S14',
    mutate: (run) => void (changeOf(run, 'watcher-2-host', 'host-r', 6).change.seen['digest'] = 'other'),
  },
  { name: 'an object is told that is not listed', rule: 'S14', mutate: (run) => unlist(run, 'machine', 'machine-b') },
  {
    name: 'an object is listed that was never told',
    rule: 'L6',
    mutate: (run) => {
      const lines = linesOf(run, 'watcher-2-machine')
      lines.splice(
        0,
        lines.length,
        ...lines.filter(
          (line) => line.type !== 'message' || !line.changes.some(({ seen }) => seen.uid === 'machine-b'),
        ),
      )
    },
  },
  {
    name: 'a watch never hears of the end',
    rule: 'L6',
    mutate: (run) => {
      const lines = linesOf(run, 'watcher-2-request')
      lines.splice(lines.findLastIndex((line) => line.type === 'open') + 1)
    },
  },
  {
    name: 'the last state that was told is not what is listed',
    rule: 'L6',
    mutate: (run) => void (changeOf(run, 'watcher-1-machine', 'machine-b', 2).change.seen['state'] = 'ACTIVE'),
  },
  {
    name: 'an event is told twice',
    rule: 'S14',
    mutate: (run) => repeat(run, 'watcher-1-event', 'events/ordered-b', 1),
  },
  {
    name: 'an event is told again after a cut',
    rule: 'S14',
    mutate: (run) => repeat(run, 'watcher-1-event', 'events/ordered-a', 1, 3),
  },
  {
    name: 'an event is missing in the middle',
    rule: 'S14',
    mutate: (run) => drop(run, 'watcher-1-event', 'events/ordered-b', 1),
  },
  {
    name: 'events of one host are told in another order',
    rule: 'S14',
    mutate: (run) => swap(run, 'watcher-1-event', ['events/ordered-r', 1], ['events/placed-r', 1]),
  },
]
