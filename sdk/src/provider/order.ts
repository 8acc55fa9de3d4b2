import type {
  MachineSpec as WireSpec,
  StaticMachine as WireStaticMachine,
  ValidateReinstall,
} from '@slipway/proto/provider/v1'
import { specFromProto } from './convert.js'
import { ProviderError } from './errors.js'
import { parseBySchema } from './schema.js'
import { sayViolations, type AnyDefinition } from './settings.js'
import type { Task } from './task.js'
import type { Context, MachineSpec, ReinstallTarget, Violation } from './types.js'

/** What is wrong with an order: by the author's schema, and if that is content, by the author's own check. Else the order, with its data parsed. */
export async function checkOrder(
  definition: AnyDefinition,
  wire: WireSpec,
  context: Context<unknown, unknown> | undefined,
  reinstall?: ReinstallTarget<unknown>,
): Promise<{ readonly spec: MachineSpec<unknown> } | { readonly violations: readonly Violation[] }> {
  const parsed = await parseBySchema(definition.data, wire.providerData ?? {}, 'spec.provider_data')
  if ('violations' in parsed) return parsed
  const spec = specFromProto(wire, parsed.value)
  const violations = context === undefined ? [] : ((await definition.validate?.(context, spec, reinstall)) ?? [])
  return violations.length > 0 ? { violations } : { spec }
}

/** The machine that an order would reinstall. Data that fits the schema no more, because the provider was upgraded since, is nothing to compare with. */
export async function reinstallTarget(
  definition: AnyDefinition,
  { externalId, providerData }: ValidateReinstall,
): Promise<ReinstallTarget<unknown>> {
  const parsed = await parseBySchema(definition.data, providerData ?? {}, 'provider_data')
  return { externalId, ...('value' in parsed && { data: parsed.value }) }
}

/**
 * The order of a task, checked again before anything is made of it.
 *
 * @param options.askProvider also asks the author's own check. Not once something exists: what has begun is not refused any more.
 * @param options.reinstall the machine that is to have a new system by it.
 * @throws ProviderError of code INVALID_SPEC that names every field.
 */
export async function checkedSpec(
  task: Task,
  definition: AnyDefinition,
  options: { readonly askProvider: boolean; readonly reinstall?: ReinstallTarget<unknown> },
): Promise<MachineSpec<unknown>> {
  task.currentStep = 'validate'
  const context = options.askProvider ? task.context() : undefined
  const checked = await checkOrder(definition, wireSpec(task), context, options.reinstall)
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
