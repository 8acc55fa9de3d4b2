import type { Authority } from '../../auth/authority.js'
import { canonicalHead } from '../../domain/audit/chain.js'
import { hubChain, insertHeads, sealEntries, type ChainEnd, type SignedHead } from '../../store/audit.js'
import { startController, type Turn } from '../controller.js'
import type { ReconcilerDeps } from '../deps.js'
import type { Loop } from '../loop.js'

const leaseMs = 15_000
const restMs = 1_000
const batch = 1_000

type SealDeps = ReconcilerDeps & { readonly authority: Authority; readonly epoch: string }

/** Seals the audit log: one replica at a time, a little after the entries were written, so that nobody who writes one waits for a chain. */
export function startSealing(deps: SealDeps): Loop {
  return startController(deps, {
    name: 'audit-seal',
    leaseMs,
    round: async (turn) => {
      await sealAll(deps, turn)
      return restMs
    },
  })
}

/** Seals all that is there, and signs where the chains end. */
export async function sealAll(
  deps: Pick<SealDeps, 'authority' | 'epoch' | 'hubId'>,
  turn: Pick<Turn, 'write'>,
): Promise<void> {
  for (;;) {
    const { more } = await turn.write(async (tx) => {
      const sealed = await sealEntries(tx, deps.epoch, batch)
      await insertHeads(tx, await Promise.all(sealed.ends.map((end) => sign(deps, end))))
      return sealed
    })
    if (!more) return
  }
}

async function sign({ authority, hubId }: Pick<SealDeps, 'authority' | 'hubId'>, end: ChainEnd): Promise<SignedHead> {
  const signedAt = new Date()
  const text = canonicalHead({
    hubId,
    chain: end.chain === hubChain ? '' : end.chain,
    sequence: end.sequence,
    hash: Buffer.from(end.hash).toString('hex'),
    signedAt: signedAt.toISOString(),
  })
  return { ...end, signedAt, signature: await authority.sign(text) }
}
