import { fileURLToPath } from 'node:url'
import { ensureImage, type Flavour, type MemoryImage, type Recipe } from './build.js'

/** Programs by package. What is not here is an applet of busybox. */
const programs: Recipe['programs'] = {
  'busybox-static': ['busybox'],
  curl: ['curl'],
  dosfstools: ['mkfs.vfat'],
  efibootmgr: ['efibootmgr'],
  fdisk: ['sfdisk'],
  hdparm: ['hdparm'],
  ipmitool: ['ipmitool'],
  jq: ['jq'],
  mtools: ['mtools'],
  'nvme-cli': ['nvme'],
  'qemu-utils': ['qemu-img'],
  'util-linux': ['blkdiscard'],
  zstd: ['zstd'],
}
/** mtools is one program under many names. */
const links = { mcopy: 'mtools', mmd: 'mtools' }

const modules = {
  folders: [
    'drivers/net/ethernet/',
    'drivers/scsi/',
    'drivers/message/fusion/',
    'drivers/ata/',
    'drivers/nvme/host/',
    'drivers/block/virtio_blk',
    'drivers/virtio/',
    'drivers/usb/host/',
    'drivers/usb/storage/',
    'drivers/char/ipmi/',
    'drivers/char/hw_random/virtio',
    'drivers/hv/',
    'drivers/net/hyperv/',
  ],
  names: ['virtio_net', 'sd_mod', 'sg', 'efivarfs', 'usbhid', 'hid_generic', 'button', 'vmxnet3'],
  except: [
    // Of no use to a server's disks: tapes, targets, parallel ports, PC cards and test drivers.
    'drivers/scsi/aic94xx',
    'drivers/scsi/fcoe',
    'drivers/scsi/libfc',
    'drivers/scsi/qla2xxx',
    'drivers/scsi/lpfc',
    'drivers/scsi/bfa',
    'drivers/scsi/fnic',
    'drivers/scsi/csiostor',
    'drivers/scsi/cxgbi',
    'drivers/scsi/bnx2',
    'drivers/scsi/qedi',
    'drivers/scsi/qedf',
    'drivers/scsi/pcmcia',
    'drivers/scsi/osst',
    'drivers/scsi/st.',
    'drivers/scsi/ppa',
    'drivers/scsi/imm',
    'drivers/scsi/scsi_debug',
    'drivers/net/ethernet/8390/',
    'drivers/net/ethernet/dec/',
    'drivers/net/ethernet/smsc/',
    'drivers/net/ethernet/sis/',
    'drivers/net/ethernet/3com/',
    'drivers/net/ethernet/mellanox/mlxsw/',
    'drivers/net/ethernet/netronome/',
    'drivers/ata/pata_',
  ],
}

/** The agent's own files. */
export const agentRootFolder = fileURLToPath(new URL('../../../agent/root/', import.meta.url))

/** The agent's image, built where that was not done before: see {@link ensureImage}. */
export function ensureAgentImage(options: {
  readonly flavour: Flavour
  readonly cacheDir: string
}): Promise<MemoryImage> {
  const recipe: Recipe = {
    flavour: options.flavour,
    programs,
    links,
    modules,
    certificates: true,
    root: agentRootFolder,
  }
  return ensureImage(recipe, options.cacheDir)
}
