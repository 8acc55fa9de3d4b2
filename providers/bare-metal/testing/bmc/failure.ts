import { BmcError } from '../../src/power/errors.js'

/** Waits for something to fail as a BMC does. @throws Error where it goes well, or fails otherwise. */
export async function bmcFailure(promise: Promise<unknown>): Promise<BmcError> {
  try {
    await promise
  } catch (error) {
    if (error instanceof BmcError) return error
    throw error
  }
  throw new Error('went well, and should have failed')
}
