import { runProvider } from './run.js'
import { serveProvider } from './serve.js'
import type { AnyDefinition } from './settings.js'
import type { DynamicDefinition, Provider, StaticDefinition } from './types.js'

/** What a schema that is not given stands for: nothing is accepted, so nothing is there. */
export type Nothing = Record<string, never>

const familyPattern = /^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/

/**
 * Makes a provider of its functions. All types come from the definition's own schemas, and its capabilities from which functions are there.
 *
 * @throws TypeError where the definition cannot be: a family that is no lower-case name, a budget of no calls.
 */
export function defineProvider<Config = Nothing, Credentials = Nothing, Data = Nothing>(
  definition: DynamicDefinition<Config, Credentials, Data>,
): Provider
export function defineProvider<Config = Nothing, Credentials = Nothing, Data = Nothing>(
  definition: StaticDefinition<Config, Credentials, Data>,
): Provider
export function defineProvider(definition: AnyDefinition): Provider {
  if (!familyPattern.test(definition.family)) {
    throw new TypeError(
      `"${definition.family}" is no family name: lower-case letters, digits and dashes, at most 63, beginning with a letter`,
    )
  }
  for (const [name, { limit, windowMs }] of Object.entries(definition.budgets ?? {})) {
    if (!(limit >= 1) || !(windowMs > 0))
      throw new TypeError(`the budget "${name}" allows no calls: give a limit of at least 1 and a window above 0 ms`)
  }
  return {
    family: definition.family,
    kind: definition.kind,
    run: (options) => runProvider(definition, options),
    serve: (argv = process.argv.slice(2)) => serveProvider(definition, argv),
  }
}
