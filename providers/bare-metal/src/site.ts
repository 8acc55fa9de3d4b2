import { randomBytes } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { ProviderError, type Context } from '@slipway/sdk'
import type { Logger } from 'pino'
import type { z } from 'zod'
import { AgentDesk } from './boot/agent-desk.js'
import { BootService, bootStateSchema, type BootState } from './boot/boot-service.js'
import { isUrl } from './boot/boot-files.js'
import type { Config, Credentials } from './config.js'
import { ConsoleLogs } from './console-logs.js'
import { bookSchema, MachineBook, type KnownMachine } from './machine-book.js'
import type { PowerSupervisor } from './power/driver.js'
import type { BmcSecret } from './power/settings.js'
import { SerialLines } from './serial-lines.js'
import { StateFile } from './boot/state-file.js'
import { PowerKeeper } from './power-keeper.js'
import { tidingsOfPower, tidingsOfRogue } from './tidings.js'

export type Ctx = Context<Config, Credentials>

export interface SiteOptions {
  /** The provider's state folder. */
  readonly stateDir: string
  /** Images, the agent, netboot classes and certificates: `images/`, `agent/`, `netboot/`, `tls/`. */
  readonly filesDir: string
  /** Where the distribution keeps iPXE's programs. */
  readonly ipxeDir: string
  /** Makes what watches the power of machines. It asks before it switches one off that was found on. */
  readonly supervise: (log: Logger, mayCorrect: (id: string) => Promise<boolean | 'handed-over'>) => PowerSupervisor
}

/** What one process knows and serves of a segment. */
export class Site {
  readonly book: MachineBook
  readonly desk: AgentDesk
  readonly power: PowerKeeper
  readonly boot: BootService
  readonly consoles: ConsoleLogs
  readonly serialLines: SerialLines
  readonly #options: SiteOptions
  readonly #bookFile: StateFile<unknown>
  readonly #log: Logger
  #applied: { readonly config: Config; readonly credentials: Credentials } | undefined
  #applying: Promise<void> = Promise.resolve()
  #config: Config
  /** Whom the hub is told by. */
  #teller: Pick<Ctx, 'event' | 'calledBack'>

  private constructor(
    options: SiteOptions,
    context: Ctx,
    parts: {
      readonly book: MachineBook
      readonly bookFile: StateFile<unknown>
      readonly bootState: BootState
      readonly bootFile: StateFile<unknown>
    },
  ) {
    const { log, config } = context
    this.#options = options
    this.#log = log
    this.#config = config
    this.#teller = context
    this.book = parts.book
    this.#bookFile = parts.bookFile
    this.desk = new AgentDesk(
      () => this.#config.timeouts.idleMs,
      Date.now,
      (id) => this.#teller.calledBack(id),
    )
    this.consoles = new ConsoleLogs(join(options.stateDir, 'consoles'))
    this.serialLines = new SerialLines((id, signal) => this.power.openConsole(id, signal))
    // Nobody here knows whether an order has just taken the machine, or a person has it left alone: the hub does, and has it corrected under a claim.
    const supervisor = options.supervise(log, (id) => {
      this.#teller.calledBack(id)
      return Promise.resolve('handed-over')
    })
    this.power = new PowerKeeper(
      supervisor,
      this.desk,
      log,
      (id, atMs) => {
        const { boots } = this.boot
        boots.endBefore(id, atMs)
        this.desk.depart(id, (bootId) => boots.session(bootId) === undefined)
      },
      (event) => this.#teller.event(tidingsOfPower(event)),
    )
    this.boot = new BootService({
      book: this.book,
      desk: this.desk,
      log,
      state: parts.bootState,
      stateFile: parts.bootFile,
      endpointFile: new StateFile(join(options.stateDir, 'boot-endpoint.json')),
      ipxeDir: options.ipxeDir,
      agentFiles: {
        kernel: { path: this.#file('agent', 'vmlinuz') },
        initrds: [{ path: this.#file('agent', 'initrd.img') }],
      },
      file: (folder, name) => this.#file(folder, name),
      tlsFiles: { cert: this.#file('tls', 'cert.pem'), key: this.#file('tls', 'key.pem') },
      save: () => this.save(),
      onHeartbeat: (id, beat) => this.consoles.take(id, beat),
      onRogue: (event) => this.#teller.event(tidingsOfRogue(event)),
    })
  }

  /** Reads what an earlier process left. What cannot be read is as if it had been lost, which does no harm. */
  static async open(options: SiteOptions, context: Ctx): Promise<Site> {
    const bookFile = new StateFile<unknown>(join(options.stateDir, 'machines.json'))
    const bootFile = new StateFile<unknown>(join(options.stateDir, 'boots.json'))
    const learned = await bookFile.read((value) => bookSchema.parse(value))
    const bootState = await bootFile.read((value) => bootStateSchema.parse(value))
    return new Site(options, context, {
      book: new MachineBook(context.config, (learned as z.infer<typeof bookSchema> | undefined) ?? []),
      bookFile,
      bootState: (bootState as BootState | undefined) ?? { key: randomBytes(32).toString('base64'), boots: [] },
      bootFile,
    })
  }

  /** Takes settings into use: machines, logins, and what is served. @throws ProviderError where something cannot be served. */
  apply(context: Ctx): Promise<void> {
    this.#applying = this.#applying
      .catch(() => undefined)
      .then(async () => {
        const { config, credentials } = context
        this.#teller = context
        if (this.#applied?.config === config && this.#applied.credentials === credentials) return
        this.#config = config
        this.book.configure(config)
        for (const machine of this.book.list()) {
          this.watch(machine, credentials)
          this.openNetboot(machine, '0')
        }
        await this.boot.apply(config)
        this.#applied = { config, credentials }
      })
    return this.#applying
  }

  /** Watches a machine's power with the login that it has now. */
  watch(machine: KnownMachine, credentials: Credentials): void {
    this.power.watch(machine, secretFor(machine, credentials), this.book.learned(machine.id)?.wanted ?? 'any')
  }

  /** A machine of a netboot class may boot it as often as it likes. @param generation of the operation that made it one; 0: that is long ago. */
  openNetboot(machine: KnownMachine, generation: string): void {
    const plan = this.book.learned(machine.id)?.netboot
    if (plan === undefined) return
    this.boot.open({
      windowId: `netboot/${plan.binding}`,
      machineId: machine.id,
      macs: machine.macs,
      ...(machine.uuid !== undefined && { uuid: machine.uuid }),
      generation,
      into: { netboot: plan.netboot, args: plan.args },
    })
  }

  /** Returns when what is known of machines is on disk. */
  async save(): Promise<void> {
    await this.#bookFile.write(() => this.book.snapshot())
  }

  async close(): Promise<void> {
    await this.boot.close()
    await this.serialLines.close()
    await this.power.close()
    await this.consoles.close()
  }

  /** Whether all files are there that a configuration names. @throws ProviderError of code INVALID_SPEC that names what is missing. */
  static async checkFiles(options: SiteOptions, config: Config): Promise<void> {
    const file = (folder: string, name: string): string => join(options.filesDir, folder, name)
    const local = (folder: string, name: string): readonly string[] => (isUrl(name) ? [] : [file(folder, name)])
    const needed = [
      file('agent', 'vmlinuz'),
      file('agent', 'initrd.img'),
      ...Object.values(config.images).flatMap((image) =>
        image.file === undefined ? [] : [file('images', image.file)],
      ),
      ...Object.values(config.netboot).flatMap(({ kernel, initrds }) =>
        [kernel, ...initrds].flatMap((name) => local('netboot', name)),
      ),
      ...(config.boot.tls === undefined ? [] : [file('tls', 'cert.pem'), file('tls', 'key.pem')]),
    ]
    const found = await Promise.all(
      needed.map((path) =>
        stat(path).then(
          (stats) => stats.isFile(),
          () => false,
        ),
      ),
    )
    const missing = needed.filter((_, at) => !found[at])
    if (missing.length > 0)
      throw new ProviderError('INVALID_SPEC', `there is no ${missing.join(', no ')} on the provider's host`, {
        retryable: true,
      })
  }

  #file(folder: string, name: string): string {
    return join(this.#options.filesDir, folder, name)
  }

  /** For tests and messages. */
  get log(): Logger {
    return this.#log
  }
}

function secretFor({ credentials }: KnownMachine, { bmc }: Credentials): BmcSecret {
  return bmc[credentials] ?? bmc['default'] ?? { username: '', password: '' }
}

/** The one site of a process, with the settings of whoever asks for it. */
export class SiteHolder {
  readonly #options: SiteOptions
  #opening: Promise<Site> | undefined

  constructor(options: SiteOptions) {
    this.#options = options
  }

  /** @throws ProviderError where machines cannot be served by these settings. */
  async open(context: Ctx): Promise<Site> {
    const opening = (this.#opening ??= Site.open(this.#options, context))
    opening.catch(() => {
      if (this.#opening === opening) this.#opening = undefined
    })
    const site = await opening
    await site.apply(context)
    return site
  }

  async close(): Promise<void> {
    await (await this.#opening?.catch(() => undefined))?.close()
    this.#opening = undefined
  }
}
