import { HubError } from '../domain/error/errors.js'
import type { OrderToValidate } from '../domain/provider/validator.js'
import type { ProviderRow } from '../store/tables.js'
import type { ApiDeps } from './context.js'
import { checkAgainstSchema } from './provider-data.js'

const validationDeadlineMs = 2_000

/**
 * Checks what an order says in its provider's own terms before it costs money: by the provider's schema, and by its own opinion where it is connected.
 *
 * @param root the path of the order in the caller's request, with a dot at its end where there is one.
 * @returns what was not checked, and why.
 * @throws HubError PROVIDER_DATA_INVALID.
 */
export async function checkWithProvider(
  deps: ApiDeps,
  provider: ProviderRow,
  order: OrderToValidate,
  root: string,
): Promise<string[]> {
  checkAgainstSchema(provider.data_schema, order.providerData, {
    field: `${root}provider_data`,
    reason: 'PROVIDER_DATA_INVALID',
    provider: provider.name,
    known: provider.state !== 'PENDING',
  })
  return askProvider(deps, provider, order, root)
}

/**
 * Has a provider check an order, where it is connected.
 *
 * @returns and throws as {@link checkWithProvider}.
 */
export async function askProvider(
  deps: ApiDeps,
  provider: ProviderRow,
  order: OrderToValidate,
  root: string,
): Promise<string[]> {
  if (!provider.capabilities.includes('VALIDATE')) return []
  const verdict = await deps.validator.validate(provider.id, order, validationDeadlineMs)
  if (verdict.violations.length > 0) {
    const violations = verdict.violations.map(({ field, description }) => ({
      field: field.replace(/^spec\./, root),
      description,
    }))
    throw new HubError(
      'PROVIDER_DATA_INVALID',
      `provider ${provider.name} refuses the order: ${violations.map((violation) => `${violation.field}: ${violation.description}`).join('; ')}`,
      {
        violations,
        metadata: { provider: provider.name },
      },
    )
  }
  return verdict.unavailable === undefined
    ? []
    : [
        `Provider ${provider.name} was not asked: ${verdict.unavailable}. It checks the order itself before it makes anything.`,
      ]
}
