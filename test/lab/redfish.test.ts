import t from 'tap'
import { sushyTools } from '@slipway/provider-bare-metal/testing'
import { Lab } from './lab.js'
import { wholeLife } from './life.js'
import { whySkipped } from './places.js'
import { RedfishBmc } from './redfish.js'

// The same life with controllers that speak Redfish: OpenStack's emulator, and the standard body's own client for the hand that switches a machine on.

async function why(): Promise<string | false> {
  const missing = whySkipped({ redfishtool: 'redfishtool', python3: 'python3-venv' })
  if (missing !== false || process.env['CI'] === 'true') return missing
  return sushyTools().then(
    () => false,
    (error: unknown) => `needs sushy-tools of PyPI, or a folder with it in SLIPWAY_SUSHY_DIR: ${String(error)}`,
  )
}

t.setTimeout(30 * 60_000)

void t.test(
  'two machines behind Redfish, from their discovery to the next tenant',
  { skip: await why(), timeout: 30 * 60_000 },
  async (t) => {
    const machines = [{ firmware: 'bios', disk: 'virtio' } as const, { firmware: 'uefi', disk: 'nvme' } as const]
    await wholeLife(t, await Lab.startWith(t, machines, RedfishBmc.start))
  },
)
