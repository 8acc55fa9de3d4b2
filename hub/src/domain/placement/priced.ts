import { listPrices, priceFor, type Pricing } from '../price/pricing.js'
import type { Candidate } from './placement.js'

/** Places at the prices of whoever orders. */
export function pricedFor(candidates: readonly Candidate[], pricing: Pricing, className: string): readonly Candidate[] {
  if (pricing === listPrices) return candidates
  return candidates.map((candidate) => {
    const { name: provider, family } = candidate.provider
    const { typeId, location } = candidate
    return {
      ...candidate,
      price: priceFor(pricing, { className, provider, family, typeId, location }, candidate.price),
    }
  })
}
