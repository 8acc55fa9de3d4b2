import fc from 'fast-check'
import t from 'tap'
import { canonicalEntry, ChainCheck, genesisHash, type AuditFacts, type AuditLink, type LinkHash } from './chain.js'

/** Good enough to tell texts apart: FNV-1a, spread over eight bytes. */
const hash: LinkHash = (previous, text) => {
  let state = 0xcbf29ce484222325n
  for (const byte of [...previous, ...new TextEncoder().encode(text)])
    state = BigInt.asUintN(64, (state ^ BigInt(byte)) * 0x100000001b3n)
  return new Uint8Array(new BigUint64Array([state]).buffer)
}

const entry = (index: number): AuditFacts => ({
  id: `id-${index}`,
  at: `2026-01-01T00:00:00.${String(index).padStart(6, '0')}Z`,
  organizationId: null,
  principal: 'principals/one',
  tokenId: 't',
  source: '127.0.0.1',
  method: 'Service/Method',
  resource: `things/${index}`,
  result: 'OK',
  requestId: `r-${index}`,
})

function chainOf(length: number): AuditLink[] {
  let previous = genesisHash
  return Array.from({ length }, (_, index) => {
    const sequence = index + 1
    previous = hash(previous, canonicalEntry(sequence, entry(sequence)))
    return { sequence, hash: previous, entry: entry(sequence) }
  })
}

function check(links: readonly AuditLink[], heads: readonly AuditLink[] = []) {
  const checking = new ChainCheck(hash, heads)
  for (const link of links) checking.take(link)
  const faults = checking.end()
  return { verified: checking.verified, faults: faults.map(({ kind, sequence }) => `${kind}@${sequence}`) }
}

const place = (length: number) => fc.integer({ min: 1, max: length })

void t.test('a chain', async (t) => {
  await t.test('that nobody touched is whole, whichever of its ends were signed', async () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 30 }), fc.array(place(30)), (length, signed) => {
        const links = chainOf(length)
        const heads = signed.flatMap((sequence) => links[sequence - 1] ?? [])
        const { faults, verified } = check(links, heads)
        return faults.length === 0 && verified === length
      }),
    )
  })

  await t.test('shows where any field of an entry was edited', async () => {
    const fields = Object.keys(entry(1)) as (keyof AuditFacts)[]
    fc.assert(
      fc.property(place(20), fc.constantFrom(...fields), (at, field) => {
        const links = chainOf(20).map((link) =>
          link.sequence === at && link.entry !== undefined
            ? { ...link, entry: { ...link.entry, [field]: 'forged' } }
            : link,
        )
        return String(check(links).faults) === `CHANGED@${at}`
      }),
    )
  })

  await t.test('shows where entries or links are gone', async () => {
    fc.assert(
      fc.property(place(20), (at) => {
        const links = chainOf(20)
        const emptied = links.map((link) => (link.sequence === at ? { ...link, entry: undefined } : link))
        const cut = links.filter(({ sequence }) => sequence !== at)
        const gap = at === 20 ? '' : `GAP@${at}`
        return String(check(emptied).faults) === `ENTRY_MISSING@${at}` && String(check(cut).faults) === gap
      }),
    )
  })

  await t.test('shows where two entries changed places', async () => {
    fc.assert(
      fc.property(place(20), place(20), (one, other) => {
        if (one === other) return true
        const links = chainOf(20)
        const swapped = links.map((link) =>
          link.sequence === one
            ? { ...link, entry: links[other - 1]?.entry }
            : link.sequence === other
              ? { ...link, entry: links[one - 1]?.entry }
              : link,
        )
        const [first, second] = [Math.min(one, other), Math.max(one, other)]
        return String(check(swapped).faults) === `CHANGED@${first},CHANGED@${second}`
      }),
    )
  })

  await t.test('shows that its end was cut off before one that was signed', async () => {
    fc.assert(
      fc.property(place(20), place(20), (length, signed) => {
        const links = chainOf(20)
        const { faults } = check(links.slice(0, length), links.slice(signed - 1, signed))
        return String(faults) === (signed > length ? `TRUNCATED@${length + 1}` : '')
      }),
    )
  })

  await t.test('that was reckoned anew after a forgery is not the one that was signed', async () => {
    const real = chainOf(10)
    let previous = genesisHash
    const forged = real.map(({ sequence, entry }) => {
      const facts = { ...(entry as AuditFacts), ...(sequence === 4 && { principal: 'principals/nobody' }) }
      previous = hash(previous, canonicalEntry(sequence, facts))
      return { sequence, hash: previous, entry: facts }
    })
    t.strictSame(check(forged).faults, [], 'the chain by itself is whole')
    t.strictSame(
      check(
        forged,
        [real[2], real[6], real[9]].filter((link) => link !== undefined),
      ).faults,
      ['HEAD_MISMATCH@7', 'HEAD_MISMATCH@10'],
    )
  })
})
