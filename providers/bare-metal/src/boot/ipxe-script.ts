/** What iPXE is to start. */
export interface IpxePlan {
  readonly kernelUrl: string
  readonly initrdUrls: readonly string[]
  readonly args: string
  /** For people, on the machine's console. */
  readonly title: string
}

/** iPXE expands `${…}`, and a line's end ends a command: neither may come from outside. */
const plain = /^[\x20-\x7e]*$/

/** The script that starts a kernel. Where anything of it fails, the firmware goes on to the next boot device after a while. @throws TypeError for what cannot stand in a script. */
export function renderScript({ kernelUrl, initrdUrls, args, title }: IpxePlan): string {
  for (const value of [kernelUrl, ...initrdUrls, args, title])
    if (!plain.test(value) || value.includes('${')) throw new TypeError('a value cannot stand in a script of iPXE')
  const names = initrdUrls.map((_, index) => `initrd${index}`)
  // UEFI kernels look for their initrds by these names; BIOS ones are handed them.
  const initrdArgs = names.map((name) => `initrd=${name}`).join(' ')
  return [
    '#!ipxe',
    `echo Slipway: ${title}`,
    ...initrdUrls.map((url, index) => `initrd --name ${names[index]} ${url} || goto failed`),
    `kernel ${kernelUrl} ${[initrdArgs, args].filter((part) => part !== '').join(' ')} || goto failed`,
    'boot || goto failed',
    ':failed',
    'echo Slipway: this boot has failed; starting over',
    'sleep 5',
    'reboot',
    '',
  ].join('\n')
}

/** The script for a machine that has to wait: it asks again. */
export function renderWait(scriptUrl: string, seconds: number): string {
  return ['#!ipxe', `sleep ${seconds}`, `chain --replace --autofree ${scriptUrl} || exit 1`, ''].join('\n')
}
