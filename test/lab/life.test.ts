import t from 'tap'
import { Lab } from './lab.js'
import { wholeLife } from './life.js'
import { whySkipped } from './places.js'

// Machines that really boot: QEMU behind ipmi_sim, iPXE and UEFI's own PXE, the site's dnsmasq, the hub, the provider and the command line as their users start them.

t.setTimeout(30 * 60_000)

void t.test(
  'two machines, from their discovery to the next tenant',
  { skip: whySkipped(), timeout: 30 * 60_000 },
  async (t) => {
    const lab = await Lab.start(t, [
      { firmware: 'bios', disk: 'virtio' },
      { firmware: 'uefi', disk: 'nvme' },
    ])
    await wholeLife(t, lab)
  },
)
