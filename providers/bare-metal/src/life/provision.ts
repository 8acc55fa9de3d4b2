import { ProviderError, type Json, type MachineSpec, type ObservedMachine } from '@slipway/sdk'
import { agentRoot, type ImageSource, type Inventory, type OrderResult } from '../agent/protocol.js'
import { imageIdOf, type Data, type ImageConfig } from '../config.js'
import { chooseDisk, describeMiss } from '../disks.js'
import type { KnownMachine } from '../machine-book.js'
import { keysProblem, noCloudFiles, seedFor } from '../seed.js'
import type { Site } from '../site.js'
import { AgentVisit, claimOf, permissionOf, type Work } from './agent-visit.js'

type Spec = MachineSpec<Data>

const maxTurns = 3
/** How long an agent may take to hear that it is to go. */
const leaveMs = 60_000
/** Failures of an installation that another try may not have. */
const worthAnother: ReadonlySet<string> = new Set(['image-unavailable', 'checksum-mismatch', 'superseded', 'internal'])

/** Makes a host of a machine: by an image on its disk, or by a system that it boots from the network each time. */
export async function provision(site: Site, work: Work, machine: KnownMachine, spec: Spec): Promise<ObservedMachine> {
  const keys = keysProblem(work.config, spec.data, spec.bootstrap)
  if (keys !== undefined) throw new ProviderError('INVALID_SPEC', `ssh_public_keys: ${keys}`, { retryable: false })
  await work.report({ externalId: machine.id, attributes: { binding: spec.ownershipKey } })
  const { netboot } = spec.data
  const attributes =
    netboot === undefined
      ? await install(site, work, machine, spec)
      : await startNetboot(site, work, machine, spec, netboot)
  // What a host does with its power is its own business.
  site.power.want(machine.id, 'any')
  const learned = site.book.learned(machine.id)?.inventory
  return {
    externalId: machine.id,
    power: 'on',
    addresses: addressesOf(learned),
    attributes: { binding: spec.ownershipKey, ...attributes },
  }
}

async function install(
  site: Site,
  work: Work,
  machine: KnownMachine,
  spec: Spec,
): Promise<{ readonly [key: string]: Json }> {
  const [id, image] = imageOf(work, spec.data)
  const { installMs } = work.config.timeouts
  const installed = await AgentVisit.with(site, work, machine, installMs, (visit) =>
    installImage(site, work, visit, machine, spec, id, image),
  )
  // Its window is closed by now: what asks the network first finds nothing there, and goes on to the disk.
  await work.step('boot-disk', async () => {
    await bootDisk(site, work, machine)
    return true
  })
  return installed
}

/** A machine without a management controller starts itself anew; all others are started. */
async function bootDisk(site: Site, work: Work, machine: KnownMachine): Promise<void> {
  if (machine.bmc.kind !== 'manual') return site.power.boot(machine, 'disk', permissionOf(work))
  await permissionOf(work).permit()
  site.desk.dismiss(machine.id, 'reboot')
  const left = async (): Promise<true | undefined> =>
    site.desk.status(machine.id)?.left === 'reboot' ? true : undefined
  await work.poll(left, {
    initialDelayMs: 200,
    maxDelayMs: 1_000,
    timeoutMs: leaveMs,
    what: `the agent of ${machine.id} to restart it`,
  })
}

async function installImage(
  site: Site,
  work: Work,
  visit: AgentVisit,
  machine: KnownMachine,
  spec: Spec,
  id: string,
  image: ImageConfig,
): Promise<{ readonly [key: string]: Json }> {
  const seed = seedFor(image.seed, spec.name, spec.bootstrap)
  for (let turn = 1; ; turn += 1) {
    const ended = (await work.step(`install-${turn}`, async () => {
      const { disks } = await visit.inventory()
      const disk = chooseDisk(disks, spec.data.disk, spec.shape.diskGib)
      if (disk === undefined)
        throw new ProviderError(
          'INVALID_SPEC',
          `${machine.id}: ${describeMiss(disks, spec.data.disk, spec.shape.diskGib)}`,
          { retryable: false },
        )
      const { name, serial, sizeBytes } = disk
      const result = await visit.run(
        {
          kind: 'install',
          disk: { name, serial, sizeBytes },
          image: sourceOf(site, id, image),
          ...(seed !== undefined && { seed }),
          efiEntry: machine.bootMode === 'uefi',
        },
        turn,
      )
      return { result, disk: { name, serial, sizeBytes } } as unknown as Json
    })) as unknown as { readonly result: OrderResult; readonly disk: { readonly [key: string]: Json } }
    if (ended.result.outcome === 'done') return { image: id, disk: ended.disk }
    if (worthAnother.has(ended.result.code) && turn < maxTurns) continue
    throw new ProviderError(
      'INTERNAL',
      `the image ${id} could not be installed on ${machine.id}: ${ended.result.message}`,
      {
        retryable: false,
        externalCode: ended.result.code,
      },
    )
  }
}

async function startNetboot(
  site: Site,
  work: Work,
  machine: KnownMachine,
  spec: Spec,
  netboot: string,
): Promise<{ readonly [key: string]: Json }> {
  const known = work.config.netboot[netboot]
  if (known === undefined)
    throw new ProviderError('INVALID_SPEC', noSuch('netboot class', netboot, Object.keys(work.config.netboot)), {
      retryable: false,
    })
  const args = known.args.replaceAll('{{hostname}}', spec.bootstrap.hostname)
  site.book.note(machine.id, { netboot: { netboot, args, binding: spec.ownershipKey } })
  await site.save()
  site.openNetboot(machine, String(claimOf(work).generation))
  site.boot.offerSeed(machine.id, noCloudFiles(spec.name, spec.bootstrap))
  await work.step('boot-network', async () => {
    await site.power.boot(machine, 'network', permissionOf(work))
    return true
  })
  return { netboot: { netboot, args } }
}

/** Takes the host off: nothing of it can boot or be ordered any more, and its power goes away. */
export async function deprovision(site: Site, work: Work, machine: KnownMachine): Promise<void> {
  const plan = site.book.learned(machine.id)?.netboot
  if (plan !== undefined) {
    site.boot.boots.close(machine.id, `netboot/${plan.binding}`)
    site.book.note(machine.id, { netboot: null })
    await site.save()
  }
  site.boot.offerSeed(machine.id, undefined)
  site.power.want(machine.id, 'any')
  if ((await site.power.read(machine.id, work.signal)) !== 'off')
    await site.power.switch(machine.id, 'off', permissionOf(work))
}

function sourceOf(site: Site, id: string, image: ImageConfig): ImageSource {
  const { format, compression, sha256 } = image
  return { url: image.url ?? `${site.boot.agentUrl}${agentRoot}/images/${id}`, format, compression, sha256 }
}

/** The image that an order names, or the only one that there is. @throws ProviderError of code INVALID_SPEC. */
export function imageOf(work: { readonly config: Work['config'] }, data: Data): readonly [string, ImageConfig] {
  const { images } = work.config
  const ids = Object.keys(images)
  const id = imageIdOf(work.config, data)
  const image = id === undefined ? undefined : images[id]
  if (id !== undefined && image !== undefined) return [id, image]
  throw new ProviderError('INVALID_SPEC', noSuch('image', data.image, ids), { retryable: false })
}

function noSuch(what: string, asked: string | undefined, ids: readonly string[]): string {
  const there = ids.length === 0 ? `the provider is configured with none` : `take one of ${ids.join(', ')}`
  return asked === undefined ? `name an ${what}: ${there}` : `there is no ${what} ${asked}: ${there}`
}

/** Where the machine was reached while the agent ran; its host may well keep the address. */
function addressesOf(inventory: Inventory | undefined): NonNullable<ObservedMachine['addresses']> {
  const all = inventory?.nics.flatMap(({ addresses }) => addresses) ?? []
  return all.filter((ip) => !/^(fe80|169\.254\.)/i.test(ip)).map((ip) => ({ type: 'private', ip }))
}
