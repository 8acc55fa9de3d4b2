import type { Test } from 'tap'

/** What is done when the test is over, and what it throws fails it. tap says only that something was thrown: what it was is told as well. */
export function tellingTeardown(t: Test, work: () => Promise<void>): void {
  t.teardown(async () => {
    try {
      await work()
    } catch (error) {
      process.stderr.write(`${t.fullname}: ${error instanceof Error ? error.stack : String(error)}\n`)
      throw error
    }
  })
}
