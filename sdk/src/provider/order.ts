import type { MachineSpec as WireSpec, StaticMachine as WireStaticMachine } from '@slipway/proto/provider/v1'
import { specFromProto } from './convert.js'
import { ProviderError } from './errors.js'
import { parseBySchema } from './schema.js'
import { sayViolations, type AnyDefinition } from './settings.js'
import type { Task } from './task.js'
import type { Context, MachineSpec, Violation } from './types.js'

/** What is wrong with an order: by the author's schema, and if that is content, by the author's own check. Else the order, with its data parsed. */
export async function checkOrder(
  definition: AnyDefinition,
  wire: WireSpec,
  context: Context<unknown, unknown> | undefined,
): Promise<{ readonly spec: MachineSpec<unknown> } | { readonly violations: readonly Violation[] }> {
  const parsed = await parseBySchema(definition.data, wire.providerData ?? {}, 'spec.provider_data')
  if ('violations' in parsed) return parsed
  const spec = specFromProto(wire, parsed.value)
  const violations = context === undefined ? [] : ((await definition.validate?.(context, spec)) ?? [])
  return violations.length > 0 ? { violations } : { spec }
}

/**
 * The order of a task, checked again before anything is made of it.
 *
 * @param options.askProvider also asks the author's own check. Not once something exists: what has begun is not refused any more.
 * @throws ProviderError of code INVALID_SPEC that names every field.
 */
export async function checkedSpec(
  task: Task,
  definition: AnyDefinition,
  options: { readonly askProvider: boolean },
): Promise<MachineSpec<unknown>> {
  task.currentStep = 'validate'
  const checked = await checkOrder(definition, wireSpec(task), options.askProvider ? task.context() : undefined)
  if ('violations' in checked)
    throw new ProviderError('INVALID_SPEC', sayViolations(checked.violations), { retryable: false })
  return checked.spec
}

export function wireSpec(task: Task): WireSpec {
  if (task.wish.spec !== undefined) return task.wish.spec
  throw new ProviderError('INTERNAL', 'the hub sent a machine request without its order', { retryable: false })
}

export function wireMachine(task: Task): WireStaticMachine {
  if (task.wish.machine !== undefined) return task.wish.machine
  throw new ProviderError('INTERNAL', 'the hub sent work on a static machine without saying which', {
    retryable: false,
  })
}
