// Wrong versions of the product, each a small change of its compiled code that somebody could have made. Simulation or chaos must find every one of them. A change whose
// place is not found once fails loudly: it was overtaken by the code, and must be planted anew.

/**
 * @typedef {object} PlantedBug
 * @property {string} name
 * @property {string} what what is wrong, and which promise it breaks
 * @property {string} profile in which sort of seeds it is looked for
 * @property {readonly { file: string, find: string, replace: string }[]} changes in compiled files, each text exactly once in its file
 */

/** @type {readonly PlantedBug[]} */
export const catalogue = [
  {
    name: 'watch-cursor-by-transaction',
    profile: 'watches',
    what: 'The watch goes on after the highest transaction that it has seen, and loses what began earlier and commits later (I10).',
    changes: [
      {
        file: 'hub/dist/src/store/changes.js',
        find: 'where xid >= ${String(xmin)}::xid8 and not pg_visible_in_snapshot(xid, ${seen}::pg_snapshot)',
        replace: 'where xid >= pg_snapshot_xmax(${seen}::pg_snapshot)',
      },
    ],
  },
  {
    name: 'watch-forgets-behind-the-oldest',
    profile: 'watches',
    what: 'The watch stops before the oldest open transaction, and takes what it left out for told (I10).',
    changes: [
      {
        file: 'hub/dist/src/store/changes.js',
        find: 'not pg_visible_in_snapshot(xid, ${seen}::pg_snapshot)',
        replace:
          'not pg_visible_in_snapshot(xid, ${seen}::pg_snapshot) and xid < pg_snapshot_xmin(pg_current_snapshot())',
      },
    ],
  },
  {
    name: 'watch-revision-behind',
    profile: 'watches',
    what: 'A watch hands out the revision before what it tells: after a cut the same comes again (I10).',
    changes: [{ file: 'hub/dist/src/api/feed.js', find: ': { seen: later };', replace: ': { seen };' }],
  },
  {
    name: 'watch-resumes-behind-a-page',
    profile: 'watches',
    what: 'A watch that resumes in the midst of a page goes on from where the feed stands after it, and loses what lies between (I10).',
    changes: [
      { file: 'hub/dist/src/api/feed.js', find: 'isLater ||= at.within === undefined;', replace: 'isLater = true;' },
    ],
  },
  {
    name: 'list-and-watch-apart',
    profile: 'lists',
    what: 'A list and its revision are read under different snapshots (I10).',
    changes: [
      { file: 'hub/dist/src/store/database.js', find: "'begin isolation level repeatable read'", replace: "'begin'" },
    ],
  },
  {
    name: 'no-fence-on-reports',
    profile: 'partitions',
    what: 'Reports are taken from whoever sends them, whatever fence they carry (I3).',
    changes: [
      {
        file: 'hub/dist/src/store/reports.js',
        find: 'state.released || state.item.session_id !== entry.sessionId || state.item.fence !== entry.fence',
        replace: 'state.released',
      },
    ],
  },
  {
    name: 'fence-does-not-rise',
    profile: 'crashes',
    what: 'A new claim goes by the fence of the old one (I3).',
    changes: [
      {
        file: 'hub/dist/src/store/work-items.js',
        find: 'fence = work_items.fence + 1',
        replace: 'fence = greatest(work_items.fence, 1)',
      },
    ],
  },
  {
    name: 'any-holder-is-bound',
    profile: 'pauses',
    what: 'Hello binds an item again under whatever fence the instance names, though another has claimed it since (I3).',
    changes: [
      { file: 'hub/dist/src/store/sessions.js', find: 'and work_items.fence = held.fence', replace: '' },
      {
        file: 'hub/dist/src/store/sessions.js',
        find: 'work_items.session_id is null\n        or',
        replace: 'true\n        or',
      },
    ],
  },
  {
    name: 'claim-untold',
    profile: 'database',
    what: 'Claims whose commit is not answered are left to a session that never hears of them (I4).',
    changes: [{ file: 'hub/dist/src/gateway/dispatcher.js', find: 'this.#doubtful.add(session.id);', replace: ';' }],
  },
  {
    name: 'wake-ups-alone',
    profile: 'hints',
    what: 'The dispatcher looks only when it is woken: a lost wake-up is a lost request (I4).',
    changes: [
      {
        file: 'hub/dist/src/gateway/session-host.js',
        find: 'dispatcher.request(...registry.providerIds());',
        replace: '',
      },
    ],
  },
  {
    name: 'retry-orders-twice',
    profile: 'mixed',
    what: 'The answer to an order is not found again by its key: what is sent again is a second order (I8).',
    changes: [
      {
        file: 'hub/dist/src/store/idempotency.js',
        find: 'const row = byName.get(nameOf(key));',
        replace: 'const row = undefined;',
      },
    ],
  },
  {
    name: 'no-wipe-between-tenants',
    profile: 'mixed',
    what: 'A machine goes from one host straight to the next (I7).',
    changes: [
      {
        file: 'hub/dist/src/store/report-writes.js',
        find: "{ state: next, operation: 'CLEAN' }",
        replace: "{ state: 'AVAILABLE', operation: null }",
      },
    ],
  },
  {
    name: 'no-look-up-before-create',
    profile: 'cloud',
    what: 'What an earlier try made is not looked for before it is made again (I1).',
    changes: [
      {
        file: 'sdk/dist/provider/steps.js',
        find: 'const found = await lookUp(task, name, effect);',
        replace: 'const found = undefined;',
      },
    ],
  },
  {
    name: 'no-wait-for-create-in-doubt',
    profile: 'cloud',
    what: 'A create whose outcome is not known is repeated at once, while the first may still be under way (I1).',
    changes: [{ file: 'sdk/dist/provider/steps.js', find: 'if (waitMs > 0) {', replace: 'if (false) {' }],
  },
  {
    name: 'intent-not-stored',
    profile: 'crashes',
    what: 'Nothing says that a create was begun before it is begun: whoever comes after a crash makes a second one (I1).',
    changes: [
      {
        file: 'sdk/dist/provider/steps.js',
        find: 'await task.begin(name, `${name} is about to run`, marksDoubt(task) ? { createInDoubt: true } : undefined);',
        replace: '',
      },
      {
        file: 'sdk/dist/provider/dynamic.js',
        find: "await task.begin('create', 'creating the machine', begunObserved);",
        replace: '',
      },
    ],
  },
  {
    name: 'delete-does-not-wait',
    profile: 'cloud',
    what: 'A delete does not wait for a create that may still be under way, and leaves what it makes (I2).',
    changes: [
      { file: 'sdk/dist/provider/dynamic.js', find: 'if (coveredAtMs > monotonicMs()) {', replace: 'if (false) {' },
    ],
  },
  {
    name: 'wipe-does-not-wait',
    profile: 'iron',
    what: 'A host is taken off a machine while its installation may still be under way: it lands behind the wipe, and the next host finds it (I7).',
    changes: [
      { file: 'sdk/dist/provider/static.js', find: 'if (coveredAtMs > monotonicMs()) {', replace: 'if (false) {' },
    ],
  },
  {
    name: 'orders-at-once',
    profile: 'mixed',
    what: 'Two orders of one key at one moment do not wait for each other (I8).',
    changes: [
      {
        file: 'hub/dist/src/store/idempotency.js',
        find: 'select pg_advisory_xact_lock(hash)',
        replace: 'select hash',
      },
    ],
  },
  {
    name: 'quota-outside-the-lock',
    profile: 'quotas',
    what: 'What a quota allows is looked up without a lock: two orders at one moment both take the last of it (I9).',
    changes: [
      {
        file: 'hub/dist/src/store/limit-book.js',
        find: 'or l.workspace_id = any(${workspaces}::uuid[]))\n      order by l.id\n      for update of l',
        replace: 'or l.workspace_id = any(${workspaces}::uuid[]))\n      order by l.id',
      },
    ],
  },
  {
    name: 'gone-without-delete',
    profile: 'mixed',
    what: 'A release ends with the record, and the server stays (I2).',
    changes: [
      {
        file: 'sdk/dist/provider/dynamic.js',
        find: 'await definition.delete(makeWorkContext(task), {',
        replace: 'void ({',
      },
    ],
  },
]
