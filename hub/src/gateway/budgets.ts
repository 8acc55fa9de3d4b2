import type { BudgetFacts } from '../domain/provider/provider.js'

/** What moves by less than this share of its limit is not worth a write. */
const materialShare = 0.1

/** Whether budgets have moved so far that people should see it: by a tenth of a limit, to nothing left, from nothing, or to other limits. */
export function haveMoved(told: readonly BudgetFacts[], now: readonly BudgetFacts[]): boolean {
  if (told.length !== now.length) return true
  return now.some(({ name, limit, remaining }, index) => {
    const before = told[index]
    if (before === undefined || before.name !== name || before.limit !== limit) return true
    if ((before.remaining === 0) !== (remaining === 0)) return true
    return Math.abs(before.remaining - remaining) >= Math.max(1, limit * materialShare)
  })
}
