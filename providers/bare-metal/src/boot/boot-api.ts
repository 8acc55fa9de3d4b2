import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { agentCommandLine, type AgentBoot } from '../agent/protocol.js'
import { isUnicastMac, parseMac } from '../mac.js'
import type { Boot, Boots, BootWindow, NetbootPlan } from './boots.js'
import { HttpRefusal, sendText } from './http-answer.js'
import { renderScript, renderWait } from './ipxe-script.js'
import { isBlankUuid } from './pxe-client.js'

/** A file of this host, or an address that the machine fetches it from itself. */
export type BootFile = { readonly path: string } | { readonly url: string }

/** A kernel with all that it needs. */
export interface BootKernel {
  readonly kernel: BootFile
  readonly initrds: readonly BootFile[]
}

/** Files that a booted system asks for once, by name. They may hold secrets. */
export type SeedFiles = ReadonlyMap<string, Buffer>

export interface BootApiOptions {
  readonly boots: Boots
  readonly nowMs: () => number
  /** Base of the boot endpoint, as machines reach it. */
  readonly bootUrl: () => string
  readonly save: () => Promise<void>
  /** iPXE's programs, by file name. */
  readonly programs: ReadonlyMap<string, string>
  /** What the agent's kernel is told besides its token. */
  readonly agent: () => BootKernel & Omit<AgentBoot, 'token' | 'bootMac'>
  /** What a netboot class starts; undefined: it is not configured any more. */
  readonly netboot: (plan: NetbootPlan) => BootKernel | undefined
  /** What a machine's system may fetch now. */
  readonly seed: (machineId: string) => SeedFiles | undefined
  readonly onScript: (boot: Boot, window: BootWindow) => void
  /** A disk image that is served from this host. */
  readonly image: (id: string) => string | undefined
}

/** iPXE escapes the colons of a MAC, and each is then three characters. */
const scriptPattern = /^\/boot\/script\?mac=([^&]{12,27})&uuid=([^&]{0,36})$/
const programPattern = /^\/boot\/ipxe\/([a-z0-9.]{1,32})$/
const tokenPattern = /^\/boot\/t\/([A-Za-z0-9._-]{1,128})\/(kernel|initrd|seed)(?:\/([a-z0-9-]{1,32}))?$/
const imagePattern = /^\/agent\/v1\/images\/([a-z0-9][a-z0-9._-]{0,62})$/
const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const waitSeconds = 5
/** cloud-init and others ask for a file more than once where an answer was lost. */
const seedReads = 3

/** What machines fetch to boot: scripts, kernels, seeds, images. All of it is keyed to one boot of one machine but iPXE itself. */
export class BootApi {
  readonly #options: BootApiOptions
  /** How often each file of a seed was fetched, by boot and name. */
  readonly #reads = new Map<string, number>()

  constructor(options: BootApiOptions) {
    this.#options = options
  }

  /** @param url path and query, as they came. */
  async handle(url: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method !== 'GET' && request.method !== 'HEAD') throw new HttpRefusal(404, 'there is nothing here')
    const script = scriptPattern.exec(url)
    if (script !== null) return this.#script(script[1] ?? '', script[2] ?? '', response)
    const program = this.#options.programs.get(programPattern.exec(url)?.[1] ?? '')
    if (program !== undefined) return sendFile(program, response)
    const [, token, what, name] = tokenPattern.exec(url) ?? []
    if (token !== undefined && what !== undefined) return this.#file(token, what, name, response)
    throw new HttpRefusal(404, 'there is nothing here', isTrick(url) ? 'path-trick' : undefined)
  }

  /** Images go to agents alone. @returns whether the path is one's. */
  async image(path: string, response: ServerResponse): Promise<boolean> {
    const id = imagePattern.exec(path)?.[1]
    if (id === undefined) return false
    const file = this.#options.image(id)
    if (file === undefined) throw new HttpRefusal(404, 'there is no such image')
    await sendFile(file, response)
    return true
  }

  async #script(macText: string, uuidText: string, response: ServerResponse): Promise<void> {
    const mac = parseMac(decode(macText))
    if (mac === undefined || !isUnicastMac(mac)) throw new HttpRefusal(400, 'this is no MAC address')
    const uuid = decode(uuidText).toLowerCase()
    const isKnown = uuidPattern.test(uuid) && !isBlankUuid(uuid)
    const minted = this.#options.boots.mint(mac, isKnown ? uuid : undefined, this.#options.nowMs())
    if (minted.outcome === 'refused') throw new HttpRefusal(403, 'it may not boot now', minted.rogue)
    const { bootUrl } = this.#options
    if (minted.outcome === 'later') {
      const again = `${bootUrl()}/boot/script?mac=${mac}&uuid=${isKnown ? uuid : ''}`
      return sendText(response, renderWait(again, waitSeconds))
    }
    await this.#options.save()
    const { token, boot, window } = minted
    sendText(response, this.#render(token, boot, window))
    this.#options.onScript(boot, window)
  }

  #render(token: string, boot: Boot, { into }: BootWindow): string {
    const base = `${this.#options.bootUrl()}/boot/t/${token}`
    const kernel = into === 'agent' ? this.#options.agent() : this.#netboot(into)
    const args =
      into === 'agent'
        ? agentCommandLine({ ...this.#options.agent(), token, bootMac: boot.mac })
        : into.args.replaceAll('{{seedUrl}}', `${base}/seed/`).replaceAll('{{mac}}', boot.mac)
    return renderScript({
      kernelUrl: 'url' in kernel.kernel ? kernel.kernel.url : `${base}/kernel`,
      initrdUrls: kernel.initrds.map((file, index) => ('url' in file ? file.url : `${base}/initrd/${index}`)),
      args,
      title: into === 'agent' ? 'booting the agent' : `booting ${into.netboot}`,
    })
  }

  async #file(token: string, what: string, name: string | undefined, response: ServerResponse): Promise<void> {
    const found = this.#options.boots.lookUp(token, this.#options.nowMs())
    if (found.outcome === 'refused') throw new HttpRefusal(403, 'it may not boot now', found.rogue)
    const { boot, window } = found
    if (what === 'seed') return this.#seed(boot, name ?? '', response)
    const kernel = window.into === 'agent' ? this.#options.agent() : this.#netboot(window.into)
    const file = what === 'kernel' && name === undefined ? kernel.kernel : kernel.initrds[Number(name ?? Number.NaN)]
    if (file === undefined || !('path' in file)) throw new HttpRefusal(404, 'there is nothing here')
    await sendFile(file.path, response)
  }

  #seed(boot: Boot, name: string, response: ServerResponse): void {
    const content = boot.machineId === undefined ? undefined : this.#options.seed(boot.machineId)?.get(name)
    if (content === undefined) throw new HttpRefusal(404, 'there is nothing here')
    const key = `${boot.bootId} ${name}`
    const reads = (this.#reads.get(key) ?? 0) + 1
    if (reads > seedReads) throw new HttpRefusal(403, 'it was fetched before', 'replayed-token')
    this.#reads.set(key, reads)
    const [oldest] = this.#reads.keys()
    if (this.#reads.size > 10_000 && oldest !== undefined) this.#reads.delete(oldest)
    sendText(response, content.toString('utf8'))
  }

  #netboot(plan: NetbootPlan): BootKernel {
    const kernel = this.#options.netboot(plan)
    if (kernel === undefined) throw new HttpRefusal(404, `there is no netboot class ${plan.netboot} any more`)
    return kernel
  }
}

/** Ways to write a path that lead elsewhere, or that only somebody tries who looks for such a way. */
function isTrick(url: string): boolean {
  return /\.\.|%2e|%2f|%5c|%00|\\|\/\//i.test(url)
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return ''
  }
}

async function sendFile(path: string, response: ServerResponse): Promise<void> {
  const { size } = await stat(path)
  response.writeHead(200, {
    'content-type': 'application/octet-stream',
    'content-length': size,
    'cache-control': 'no-store',
  })
  // One that goes away in the middle is its own business.
  await pipeline(createReadStream(path), response).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ERR_STREAM_PREMATURE_CLOSE' && error.code !== 'ECONNRESET' && error.code !== 'EPIPE')
      throw error
  })
}
