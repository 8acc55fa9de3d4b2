import { realpath } from 'node:fs/promises'
import { isAbsolute, resolve, sep } from 'node:path'
import { ProviderError } from '@slipway/sdk'
import { z } from 'zod'
import { userNetworkHost } from './seed.js'

const id = z.string().regex(/^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$/, {
  error: 'use lower-case letters, digits, dots, dashes and underscores, at most 63',
})

const path = z
  .string()
  .max(4096)
  .refine((value) => isAbsolute(value) && !value.includes('\0'), {
    error: 'give an absolute path on the host of the provider',
  })

const diskImage = z.strictObject({
  kind: z.literal('disk'),
  path: path.meta({
    description: 'The image. Each machine gets a disk of its own on top of it; it is only read, and must never change.',
  }),
  format: z.enum(['qcow2', 'raw']).default('qcow2'),
})

const kernelImage = z.strictObject({
  kind: z.literal('kernel'),
  kernel: path.meta({ description: 'A kernel that QEMU starts itself. The machine gets an empty disk.' }),
  initrd: path.optional(),
  cmdline: z.string().max(2048).default('console=ttyS0').meta({ description: 'Its command line.' }),
})

const image = z.discriminatedUnion('kind', [diskImage, kernelImage])

export type Image = z.infer<typeof image>

const machineType = z.strictObject({
  vcpus: z.int().min(1).max(255),
  memoryMib: z.int().min(32).max(4_194_304).meta({ description: 'Memory, MiB.' }),
  diskGib: z.int().min(1).max(65_536).meta({ description: 'Root disk, GiB. It grows as it is written to.' }),
})

export type MachineType = z.infer<typeof machineType>

const port = z.int().min(1024).max(65_535)

const userNetwork = z.strictObject({
  kind: z.literal('user'),
  isolated: z
    .boolean()
    .default(false)
    .meta({ description: 'Cut machines off from all networks. They cannot phone home then.' }),
  sshPorts: z
    .strictObject({ from: port, to: port })
    .refine((range) => range.from <= range.to, { error: 'from must not exceed to', path: ['from'] })
    .optional()
    .meta({ description: 'Give each machine one of these ports of 127.0.0.1, forwarded to its port 22.' }),
})

const bridgeNetwork = z.strictObject({
  kind: z.literal('bridge'),
  bridge: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,15}$/)
    .meta({ description: 'A bridge of the host that /etc/qemu/bridge.conf allows.' }),
})

const network = z.discriminatedUnion('kind', [userNetwork, bridgeNetwork])

export type Network = z.infer<typeof network>

const limits = z.strictObject({
  machines: z.int().min(0).default(64).meta({ description: 'Machines at once, whether on or off.' }),
  memoryMib: z.int().min(0).optional().meta({ description: "Memory of all machines. Default: 80 % of the host's." }),
  vcpus: z
    .int()
    .min(0)
    .optional()
    .meta({ description: "Virtual CPUs of all machines. Default: four for each of the host's." }),
  freeDiskMib: z
    .int()
    .min(0)
    .default(1024)
    .meta({ description: 'Make no machine where less than this would be free on disk.' }),
})

export type Limits = z.infer<typeof limits>

const defaultTypes = {
  tiny: { vcpus: 1, memoryMib: 256, diskGib: 1 },
  small: { vcpus: 1, memoryMib: 1024, diskGib: 10 },
  medium: { vcpus: 2, memoryMib: 2048, diskGib: 20 },
  large: { vcpus: 4, memoryMib: 8192, diskGib: 80 },
}

/** The provider's configuration, as the hub keeps it. Paths are of the host that the provider runs on. */
export const configSchema = z.strictObject({
  directory: path.optional().meta({
    description:
      'Where machines live, a folder each. Default: <state-dir>/machines. Never change it while there are any.',
  }),
  images: z
    .record(id, image)
    .refine((images) => Object.keys(images).length > 0, { error: 'give at least one image' })
    .meta({ description: 'What machines can be made of, by the id that orders name.' }),
  defaultImage: id
    .optional()
    .meta({ description: 'For orders that name none. Default: the only image, where there is just one.' }),
  types: z.record(id, machineType).default(defaultTypes).meta({ description: 'What can be had, by type id.' }),
  network: network.default({ kind: 'user', isolated: false }),
  phoneHomeHost: z
    .string()
    .regex(/^[A-Za-z0-9.:-]{1,253}$/)
    .optional()
    .meta({
      description: `Where machines reach a hub whose address is a loopback one. Default in the user network: ${userNetworkHost}.`,
    }),
  accel: z.enum(['auto', 'kvm', 'tcg']).default('auto').meta({
    description: 'auto: KVM where a kernel was seen to boot under it, else emulation. kvm: nothing else will do.',
  }),
  probeKernel: path
    .optional()
    .meta({ description: "The kernel with which KVM is tried. Default: an image's, else the host's own." }),
  tcgCacheMib: z
    .int()
    .min(32)
    .max(1024)
    .default(128)
    .meta({ description: 'Translated code kept by each emulated machine.' }),
  shutdownTimeoutMs: z
    .int()
    .min(0)
    .max(3_600_000)
    .default(60_000)
    .meta({ description: 'How long a machine may take to shut down before it is switched off.' }),
  consoleKib: z.int().min(16).max(65_536).default(1024).meta({ description: 'How much of a console is kept.' }),
  limits: limits.default({ machines: 64, freeDiskMib: 1024 }),
})

export type Config = z.infer<typeof configSchema>

/** What an order may say in the provider's own terms. */
export const dataSchema = z.strictObject({
  image: z.string().max(63).optional().meta({ description: 'An image id of the configuration.' }),
})

export type Data = z.infer<typeof dataSchema>

/** @returns the id of the image that an order gets; undefined where it has to name one and did not. */
export function imageIdOf(config: Pick<Config, 'images' | 'defaultImage'>, data: Data): string | undefined {
  const ids = Object.keys(config.images)
  return data.image ?? config.defaultImage ?? (ids.length === 1 ? ids[0] : undefined)
}

/** All files of an image. */
export function imagePaths(image: Image): readonly string[] {
  if (image.kind === 'disk') return [image.path]
  return image.initrd === undefined ? [image.kernel] : [image.kernel, image.initrd]
}

/** What stands for a loopback address of the hub inside of machines; undefined: such an address is left as it is. */
export function hubHostOf(config: Pick<Config, 'network' | 'phoneHomeHost'>): string | undefined {
  return config.phoneHomeHost ?? (config.network.kind === 'user' ? userNetworkHost : undefined)
}

/**
 * Whoever runs the provider may confine images to one folder, so that whoever configures it through the hub cannot have other files
 * of the host read.
 *
 * @throws ProviderError of code INVALID_SPEC where a file lies outside.
 */
export async function confineImage(image: Image, imageRoot: string | undefined): Promise<void> {
  if (imageRoot === undefined) return
  const root = await realpath(resolve(imageRoot))
  for (const file of imagePaths(image)) {
    const real = await realpath(file).catch(() => undefined)
    if (real === undefined) throw new ProviderError('INVALID_SPEC', `${file} is not there`)
    if (!real.startsWith(root + sep)) {
      throw new ProviderError(
        'INVALID_SPEC',
        `${file} is not inside of ${root}, to which SLIPWAY_QEMU_IMAGE_DIR confines images: move it there`,
      )
    }
  }
}
