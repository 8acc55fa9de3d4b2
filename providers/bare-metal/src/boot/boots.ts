import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Admission } from './dhcp-decide.js'
import { isSameUuid } from './pxe-client.js'

/** What a machine of a netboot class boots into. */
export interface NetbootPlan {
  /** The class of the configuration. */
  readonly netboot: string
  /** As they go to the kernel. */
  readonly args: string
}

/** The time in which one machine may boot from here, and into what. */
export interface BootWindow {
  /** The same for the same work, whichever instance opens it: tokens of before a restart stay good by it. */
  readonly windowId: string
  readonly machineId: string
  readonly macs: readonly string[]
  /** SMBIOS UUID, where it is known. */
  readonly uuid?: string
  /** Of the operation that it is for; tokens name it. */
  readonly generation: string
  readonly into: 'agent' | NetbootPlan
  /** Absent: until it is closed. */
  readonly untilMs?: number
}

/** One boot of one machine, from the token on. */
export interface Boot {
  readonly bootId: string
  /** SHA-256 of the token, hexadecimal. The token itself is kept nowhere. */
  readonly tokenHash: string
  readonly windowId: string
  readonly mac: string
  readonly uuid?: string
  /** Absent: of a machine that is not known. */
  readonly machineId?: string
  readonly mintedAtMs: number
  readonly redeemedAtMs?: number
  /** When its agent was heard of last. Not kept over restarts to the second. */
  readonly seenAtMs?: number
  readonly over?: boolean
}

export type Refusal = { readonly outcome: 'refused'; readonly why: string; readonly rogue?: RogueKind }
export type RogueKind = 'spoofed-mac' | 'replayed-token' | 'unknown-token' | 'wrong-window' | 'too-many-boots'

export type Minted =
  | { readonly outcome: 'minted'; readonly token: string; readonly boot: Boot; readonly window: BootWindow }
  /** An agent of this machine is at work: whoever asks now is somebody else, or will be heard soon. */
  | { readonly outcome: 'later' }
  | Refusal

export interface BootSettings {
  /** Whether machines that nobody knows may boot the agent. */
  readonly discovery: boolean
  /** Such machines at once. */
  readonly maxUnknown: number
  /** Tokens for one window within an hour: a machine that boots for ever is sick. */
  readonly maxBoots: number
  /** How long a token may lie unused. */
  readonly tokenMs: number
  /** An agent that was heard of within this is alive. */
  readonly aliveMs: number
}

export const defaultBootSettings: BootSettings = {
  discovery: true,
  maxUnknown: 256,
  maxBoots: 20,
  tokenMs: 15 * 60_000,
  aliveMs: 15_000,
}

const discoveryWindowId = 'discovery'
const keptMs = 24 * 3_600_000
const mintedMs = 3_600_000

/**
 * Which machine may boot now, and the tokens that it does so with. No input, output or clock of its own; what must outlive the process is in
 * {@link snapshot}, and losing that costs no more than a boot: tokens and sessions are refused then, and the machine starts over.
 */
export class Boots {
  #settings: BootSettings
  readonly #windows = new Map<string, BootWindow>()
  readonly #macs = new Map<string, string>()
  readonly #boots = new Map<string, Boot>()
  readonly #minted = new Map<string, { readonly count: number; readonly sinceMs: number }>()
  /** What is known for certain of a MAC that has no window: it is no stranger, and may not boot. */
  readonly #isKnown: (mac: string) => boolean

  constructor(settings: BootSettings, isKnown: (mac: string) => boolean, known: readonly Boot[] = []) {
    this.#settings = settings
    this.#isKnown = isKnown
    for (const boot of known) this.#boots.set(boot.bootId, boot)
  }

  configure(settings: BootSettings): void {
    this.#settings = settings
  }

  /** Opens a machine's window; the one that it had is over. */
  open(window: BootWindow): void {
    const before = this.#windows.get(window.machineId)
    if (before !== undefined) this.#drop(before)
    this.#windows.set(window.machineId, window)
    for (const mac of window.macs) this.#macs.set(mac, window.machineId)
    if (before?.windowId !== window.windowId) this.#minted.delete(window.machineId)
  }

  /** Closes a machine's window, if it is still this one. */
  close(machineId: string, windowId: string): void {
    const window = this.#windows.get(machineId)
    if (window?.windowId === windowId) this.#drop(window)
  }

  windowOf(machineId: string, nowMs: number): BootWindow | undefined {
    const window = this.#windows.get(machineId)
    return window === undefined || isOver(window, nowMs) ? undefined : window
  }

  /** Whether somebody who asks by DHCP may be answered. */
  admit(mac: string, uuid: string | undefined, nowMs: number): Admission {
    const found = this.#find(mac, uuid, nowMs)
    if (found === undefined) {
      if (this.#isKnown(mac)) return { admit: 'address' }
      return this.#settings.discovery
        ? { admit: 'boot' }
        : { admit: 'nothing', why: 'nobody knows it, and discovery is off', rogue: false }
    }
    return 'why' in found ? { admit: 'nothing', why: found.why, rogue: true } : { admit: 'boot' }
  }

  /** A token for the boot that begins now. Tokens of before that were not used are good no more. */
  mint(mac: string, uuid: string | undefined, nowMs: number): Minted {
    const found = this.#find(mac, uuid, nowMs)
    if (found !== undefined && 'why' in found) return found
    if (found === undefined) {
      if (this.#isKnown(mac)) return { outcome: 'refused', why: 'it may not boot now', rogue: 'wrong-window' }
      if (!this.#settings.discovery) return { outcome: 'refused', why: 'nobody knows it, and discovery is off' }
    }
    const window = found ?? unknownWindow(mac)
    if (this.#liveBoot(window, mac, nowMs) !== undefined) return { outcome: 'later' }
    const before = this.#minted.get(window.machineId)
    const minted =
      before === undefined || before.sinceMs + mintedMs <= nowMs
        ? { count: 1, sinceMs: nowMs }
        : { ...before, count: before.count + 1 }
    if (minted.count > this.#settings.maxBoots)
      return {
        outcome: 'refused',
        why: `it booted ${this.#settings.maxBoots} times within an hour`,
        rogue: 'too-many-boots',
      }
    if (found === undefined && this.#unknownAtOnce(mac, nowMs) >= this.#settings.maxUnknown)
      return { outcome: 'refused', why: 'too many unknown machines boot at once', rogue: 'too-many-boots' }
    this.#minted.set(window.machineId, minted)
    this.#forgetUnused(mac, nowMs)
    const token = `${window.generation}.${randomBytes(32).toString('base64url')}`
    const boot: Boot = {
      bootId: randomBytes(12).toString('hex'),
      tokenHash: hashOf(token),
      windowId: window.windowId,
      mac,
      ...(uuid !== undefined && { uuid }),
      ...(found !== undefined && { machineId: window.machineId }),
      mintedAtMs: nowMs,
    }
    this.#boots.set(boot.bootId, boot)
    return { outcome: 'minted', token, boot, window }
  }

  /** Whose boot a token stands for, as long as its files may be fetched: until it is used, or too old. */
  lookUp(
    token: string,
    nowMs: number,
  ): { readonly outcome: 'found'; readonly boot: Boot; readonly window: BootWindow } | Refusal {
    const boot = this.#byToken(token)
    if (boot === undefined) return { outcome: 'refused', why: 'there is no such token', rogue: 'unknown-token' }
    if (boot.over === true) return { outcome: 'refused', why: 'its boot is over', rogue: 'replayed-token' }
    const window = boot.machineId === undefined ? unknownWindow(boot.mac) : this.windowOf(boot.machineId, nowMs)
    if (window === undefined || window.windowId !== boot.windowId)
      return { outcome: 'refused', why: 'its window is over', rogue: 'wrong-window' }
    if (boot.redeemedAtMs === undefined && boot.mintedAtMs + this.#settings.tokenMs < nowMs)
      return { outcome: 'refused', why: 'it is too old', rogue: 'wrong-window' }
    return { outcome: 'found', boot, window }
  }

  /** Uses a token up. @param as what the machine says of itself; it must be the one that the token was made for. */
  redeem(
    token: string,
    as: { readonly bootMac?: string | undefined; readonly uuid?: string | undefined },
    nowMs: number,
  ): { readonly outcome: 'redeemed'; readonly boot: Boot } | Refusal {
    const found = this.lookUp(token, nowMs)
    if (found.outcome === 'refused') return found
    const { boot, window } = found
    if (boot.redeemedAtMs !== undefined)
      return { outcome: 'refused', why: 'it was used before', rogue: 'replayed-token' }
    if (window.into !== 'agent') return { outcome: 'refused', why: 'it is for no agent', rogue: 'wrong-window' }
    if (as.bootMac !== undefined && as.bootMac !== boot.mac)
      return { outcome: 'refused', why: `it was made for ${boot.mac}`, rogue: 'spoofed-mac' }
    const uuid = window.uuid ?? boot.uuid
    if (as.uuid !== undefined && uuid !== undefined && !isSameUuid(as.uuid, uuid))
      return { outcome: 'refused', why: 'it was made for another machine', rogue: 'spoofed-mac' }
    const redeemed: Boot = { ...boot, redeemedAtMs: nowMs, seenAtMs: nowMs }
    // One machine runs one system: whatever it ran before is over.
    for (const other of this.#boots.values())
      if (other.bootId !== boot.bootId && isSameMachine(other, boot))
        this.#boots.set(other.bootId, { ...other, over: true })
    this.#boots.set(boot.bootId, redeemed)
    return { outcome: 'redeemed', boot: redeemed }
  }

  /** The boot behind a session, as long as it is the machine's latest. */
  session(bootId: string): Boot | undefined {
    const boot = this.#boots.get(bootId)
    return boot === undefined || boot.over === true || boot.redeemedAtMs === undefined ? undefined : boot
  }

  /** The agent of a boot was heard of. */
  seen(bootId: string, nowMs: number): void {
    const boot = this.session(bootId)
    if (boot !== undefined) this.#boots.set(bootId, { ...boot, seenAtMs: nowMs })
  }

  /** Whether an agent may be running on a machine that has not been heard of since this process began. */
  mayRun(machineId: string): boolean {
    for (const boot of this.#boots.values())
      if (boot.machineId === machineId && boot.redeemedAtMs !== undefined && boot.over !== true) return true
    return false
  }

  /** A machine's power was cut: what it booted before that runs no more. */
  endBefore(machineId: string, atMs: number): void {
    for (const boot of this.#boots.values())
      if (boot.machineId === machineId && boot.mintedAtMs < atMs) this.#boots.set(boot.bootId, { ...boot, over: true })
  }

  /** A machine that was not known has a name from now on; what it runs is its own. */
  recognise(bootId: string, machineId: string): void {
    const boot = this.#boots.get(bootId)
    if (boot !== undefined) this.#boots.set(bootId, { ...boot, machineId })
  }

  /** What must outlive the process. */
  snapshot(nowMs: number): readonly Boot[] {
    for (const [machineId, { sinceMs }] of this.#minted) if (sinceMs + mintedMs <= nowMs) this.#minted.delete(machineId)
    for (const boot of this.#boots.values())
      if (Math.max(boot.mintedAtMs, boot.seenAtMs ?? 0) + keptMs < nowMs) this.#boots.delete(boot.bootId)
    return [...this.#boots.values()]
  }

  #find(mac: string, uuid: string | undefined, nowMs: number): BootWindow | Refusal | undefined {
    const machineId = this.#macs.get(mac)
    const window = machineId === undefined ? undefined : this.windowOf(machineId, nowMs)
    if (window === undefined) return undefined
    if (uuid !== undefined && window.uuid !== undefined && !isSameUuid(uuid, window.uuid))
      return { outcome: 'refused', why: `${mac} belongs to a machine with another UUID`, rogue: 'spoofed-mac' }
    return window
  }

  #liveBoot({ windowId }: BootWindow, mac: string, nowMs: number): Boot | undefined {
    for (const boot of this.#boots.values()) {
      const isAlive =
        boot.over !== true && boot.seenAtMs !== undefined && boot.seenAtMs + this.#settings.aliveMs > nowMs
      if (isAlive && boot.mac === mac && boot.windowId === windowId) return boot
    }
    return undefined
  }

  #unknownAtOnce(mac: string, nowMs: number): number {
    const others = [...this.#boots.values()].filter(
      (boot) =>
        boot.machineId === undefined &&
        boot.over !== true &&
        boot.mac !== mac &&
        (boot.seenAtMs ?? boot.mintedAtMs) + this.#settings.tokenMs > nowMs,
    )
    return new Set(others.map((boot) => boot.mac)).size
  }

  #forgetUnused(mac: string, nowMs: number): void {
    for (const boot of this.#boots.values())
      if (boot.mac === mac && boot.redeemedAtMs === undefined) this.#boots.delete(boot.bootId)
      else if (boot.mac === mac && boot.over === true && boot.mintedAtMs + keptMs < nowMs)
        this.#boots.delete(boot.bootId)
  }

  #byToken(token: string): Boot | undefined {
    const hash = Buffer.from(hashOf(token), 'hex')
    for (const boot of this.#boots.values()) if (timingSafeEqual(Buffer.from(boot.tokenHash, 'hex'), hash)) return boot
    return undefined
  }

  #drop(window: BootWindow): void {
    this.#windows.delete(window.machineId)
    for (const mac of window.macs) if (this.#macs.get(mac) === window.machineId) this.#macs.delete(mac)
  }
}

function isOver({ untilMs }: BootWindow, nowMs: number): boolean {
  return untilMs !== undefined && untilMs <= nowMs
}

function isSameMachine(one: Boot, other: Boot): boolean {
  return one.mac === other.mac || (one.machineId !== undefined && one.machineId === other.machineId)
}

/** A machine that nobody knows boots the agent, which tells what it is, and does nothing to it. */
function unknownWindow(mac: string): BootWindow {
  return { windowId: discoveryWindowId, machineId: `unknown ${mac}`, macs: [mac], generation: '0', into: 'agent' }
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}
