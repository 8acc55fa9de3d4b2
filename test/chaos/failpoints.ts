/** Named moments at which SLIPWAY_FAILPOINTS can end a process: one table, to be added to as the product names more. */
export const failpoints: Readonly<Record<'provider' | 'hub', readonly string[]>> = {
  provider: [
    'sdk.effect.before',
    'sdk.effect.after',
    'sdk.report.before',
    'sdk.report.after',
    'sdk.delete.before',
    'sdk.delete.after',
  ],
  hub: [],
}
